"""Short runs in processes of their own, started together on one device, ended by a deadline."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miles_repro.config import Config

DATA = "synthetic"
MODALITIES, CLASSES, SHAPE = ("image", "audio"), 10, (1, 28, 28)
WARM = ("epochs=1", "budget.data_fraction=0.05", "seed=999")
MB = 2**20


class NotMeasured(Exception):
    """Why there is no number: the deadline, or what the process said last."""


class Deadline:
    """A point in time, so many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()


@dataclass(frozen=True)
class Request:
    """One short run. ``data``: folder of the prepared set; ``runs``: an empty one for records."""

    data: Path
    runs: Path
    device: str
    depth: int
    overrides: tuple[str, ...]
    tf32: bool = True

    def config(self, runs: str, *more: str) -> Config:
        from bench.work import compose, synthetic_node

        target = "miles_repro.encoders.resnet.resnet"
        encoder = {"_target_": target, "depth": self.depth, "in_channels": 1}
        return compose(
            *("budget=paper", "tracker=none", f"runtime.device={self.device}"),
            *(f"runtime.data_dir={self.data}", f"runtime.runs_dir={self.runs / runs}"),
            *(*self.overrides, *more),
            dataset=synthetic_node(DATA, MODALITIES, CLASSES, encoder),
        )


@dataclass(frozen=True)
class Short:
    """What a short run took and found.

    first, later: seconds of the first epoch with all before it, and the median of the others, each
    with its validation and its row. run_s: from the overrides to the record. peak_mb: most memory
    that torch held on the device; used_mb: most that was taken on the whole card. None on a CPU.
    """

    first: float
    later: float
    run_s: float
    peak_mb: float | None
    used_mb: float | None
    device_name: str
    folder: Path
    rows: list[Any]

    def extrapolated(self, epochs: int) -> float:
        """Seconds of a run of so many epochs: this one, and more epochs like its later ones."""
        return self.run_s + (epochs - len(self.rows)) * self.later


def together(requests: Sequence[Request], deadline: Deadline) -> list[Short]:
    """Run all at the same time, a process each; they begin when the last one is warm.

    Raises:
        NotMeasured: the deadline came first, or one of them failed. None is left running.
    """
    if deadline.left <= 0:
        raise NotMeasured("the time was up")
    context = get_context("spawn")
    gate = context.Barrier(len(requests))
    pending: dict[Any, int] = {}
    found: dict[int, Short] = {}
    processes = []
    try:
        for i, request in enumerate(requests):
            mine, other = context.Pipe(duplex=False)
            process = context.Process(target=_process, args=(request, gate, other))
            process.start()
            processes.append(process)
            other.close()
            pending[mine] = i
        while pending:
            ready = connection.wait(list(pending), timeout=max(0.0, deadline.left))
            if not ready:
                raise NotMeasured("the time was up")
            for end in ready:
                found[pending.pop(end)] = _receive(end)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [found[i] for i in range(len(requests))]


def _receive(end: Any) -> Short:
    try:
        said = end.recv()
    except EOFError:
        raise NotMeasured("a process ended without a word") from None
    if isinstance(said, Short):
        return said
    raise NotMeasured(said)


def _process(request: Request, gate: Any, end: Any) -> None:
    try:
        end.send(_measure(request, gate))
    except Exception as error:  # whatever it is, it is the finding
        lines = str(error).strip().splitlines() or [""]
        end.send(f"{type(error).__name__}: {lines[0][:100]}")


def _measure(request: Request, gate: Any) -> Short:
    import torch

    from bench.timing import Laps
    from miles_repro.records import load_rows
    from miles_repro.run import run

    torch.backends.cudnn.allow_tf32 = request.tf32
    on_gpu = request.device != "cpu"
    run(request.config("warm", *WARM, "precision.compile=false"), "bench")
    gate.wait()
    laps, used = Laps(first=True), [0.0]

    def on_epoch(config: Config, row: dict[str, Any]) -> None:
        laps()
        if on_gpu:
            free, total = torch.cuda.mem_get_info(request.device)
            used.append((total - free) / MB)

    started = time.perf_counter()
    config = request.config("runs")
    summary = run(config, "bench", on_epoch).summary
    assert summary is not None
    return Short(
        first=laps.spans[0].wall,
        later=statistics.median(s.wall for s in laps.spans[1:] or laps.spans),
        run_s=time.perf_counter() - started,
        peak_mb=summary["cost"]["peak_gpu_mb"],
        used_mb=max(used) if on_gpu else None,
        device_name=summary["environment"]["device"],
        folder=config.run_dir,
        rows=load_rows(config.run_dir),
    )
