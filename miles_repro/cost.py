"""What a run costs and where it ran."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from miles_repro import __version__

RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


class Meter:
    """Wall time, CPU time and energy since it was made, on top of what earlier sittings spent."""

    def __init__(self, earlier: dict[str, float] | None = None) -> None:
        self.earlier = earlier or {}
        self._wall, self._cpu, self._energy = time.perf_counter(), time.process_time(), _energy()

    def spent(self) -> dict[str, float]:
        now = {
            "wall_s": time.perf_counter() - self._wall,
            "cpu_s": time.process_time() - self._cpu,
        }
        energy = _energy()
        if energy is not None and self._energy is not None and energy >= self._energy:
            now["energy_j"] = energy - self._energy
        return {k: v + self.earlier.get(k, 0.0) for k, v in now.items()}


def _energy() -> float | None:
    """Joules counted by the CPU package so far (Linux, where readable), else None."""
    try:
        return int(RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None


def summary(meter: Meter, train_seconds: float, samples: int, device: str) -> dict[str, Any]:
    """The ``cost`` entry of a run record. Peak memory is the process's, earlier runs included."""
    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    spent = meter.spent()
    on_gpu = device.startswith("cuda")
    return {
        "wall_s": spent["wall_s"],
        "cpu_s": spent["cpu_s"],
        "train_samples_per_s": samples / train_seconds if train_seconds else None,
        "peak_rss_mb": peak / 2**20,
        "peak_gpu_mb": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
        "energy_j": spent.get("energy_j"),
    }


@cache
def commit() -> tuple[str | None, bool | None]:
    """Short hash of the checkout this package runs from, and whether it has local changes."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        run = subprocess.run(
            ["git", "-C", str(here), *args], capture_output=True, text=True, check=True, timeout=10
        )
        return run.stdout.strip()

    try:
        code = ("--", str(here), str(here.parent / "conf"))
        return git("rev-parse", "--short", "HEAD"), bool(git("status", "--porcelain", *code))
    except (OSError, subprocess.SubprocessError):
        return None, None


def environment(device: str, threads: int) -> dict[str, Any]:
    """The ``environment`` entry of a run record."""
    import numpy
    import torch

    name, dirty = commit()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "threads": threads,
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "commit": name,
        "dirty": dirty,
        "version": __version__,
    }
