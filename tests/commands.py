"""Running train.py and scripts/reproduce.py on the tiny data set, as a user would."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miles_repro.records import load_rows, load_summaries, run_folders

REPO = Path(__file__).resolve().parents[1]
PASSING = ("cost", "environment", "finished", "command")


def hydra(*overrides: str) -> list[str]:
    """Overrides that every run here shares, and more."""
    search = f"hydra.searchpath=[file://{REPO / 'tests' / 'conf'}]"
    return [search, "tracker=none", "runtime.device=cpu", *overrides]


def train(data: Path, runs: Path, *overrides: str) -> list[str]:
    """The command of a sweep."""
    where = (f"runtime.data_dir={data}", f"runtime.runs_dir={runs}")
    common = hydra("dataset=tiny", "budget=smoke", *where)
    return [sys.executable, str(REPO / "train.py"), "-m", *common, *overrides]


def reproduce(command: str, data: Path, runs: Path, *arguments: str) -> list[str]:
    """The command of scripts/reproduce.py plan or run; overrides may be among the arguments."""
    script = [sys.executable, str(REPO / "scripts" / "reproduce.py"), command]
    options = ["--budget", "smoke", "--datasets", "tiny", "--data-dir", str(data)]
    return [*script, *options, "--runs-dir", str(runs), *arguments, *hydra()]


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """In its own process group; output goes to ``log``."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=REPO,
            env=environment(),
            start_new_session=True,
        )


def finish(command: list[str], timeout: float = 1200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=REPO,
        env=environment(),
        timeout=timeout,
    )


def cpu_seconds_of_children() -> float:
    """What ended children of this process spent: unlike a clock, not moved by busy neighbours."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def environment() -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if k != "MILES_SWEEP"}
    return {**own, "PYTHONPATH": str(REPO / "tests"), "OMP_NUM_THREADS": "1"}


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def members(group: int) -> list[int]:
    """Live processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def results(runs: Path) -> dict[str, Any]:
    """Run id -> all that must be the same however the runs were launched."""
    found = {}
    for summary in load_summaries(runs):
        cell = (summary["dataset"], summary["fusion"], summary["strategy"], summary["run_id"])
        folder = runs.joinpath(*cell)
        rows = [{k: v for k, v in row.items() if k != "time"} for row in load_rows(folder)]
        lasting = {k: v for k, v in summary.items() if k not in PASSING}
        found[summary["run_id"]] = {"rows": rows, **lasting}
    return found


def leftovers(runs: Path) -> list[Path]:
    """Files that no finished run should leave behind."""
    names = ("last.pt", "error.txt", "*.tmp")
    return [path for folder in run_folders(runs) for name in names for path in folder.glob(name)]


def trained(runs: Path) -> list[str]:
    """Labels of the runs that sweeps report to have trained, one for each time."""
    entries = [
        json.loads(line)
        for path in sorted((runs / ".sweeps").glob("*/journal.*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [entry["job"] for entry in entries if entry["status"] == "done"]
