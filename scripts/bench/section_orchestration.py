"""5. What surrounds the runs: help, and skipping finished ones."""

from __future__ import annotations

import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from bench.report import Goal, Section, Table
from bench.timing import Span, command, interleaved
from bench.work import REPO, Work, cheap, compose
from miles_repro.run import run

SKIP_LIMIT = 0.15
FEW, MANY = 2, 26
TEXT = """\
Seconds from the command line to its end. *A finished run in a multirun* is the slope between sweeps
of few and many finished runs, so the process's own start is not in it; nearly all of it is Hydra,
which composes each job's configuration twice (once to check the overrides before the first job
starts).
"""


def measure(work: Work) -> Section:
    table = Table(["what", "wall, s", "CPU, s"])
    raw: dict[str, Any] = {}
    train, reproduce = REPO / "train.py", REPO / "scripts" / "reproduce.py"
    cases: dict[str, list[str | Path]] = {
        "train.py --help": [sys.executable, train, "--help"],
        "reproduce.py --help": [sys.executable, reproduce, "--help"],
        "python -c 'import torch', for comparison": [sys.executable, "-c", "import torch"],
    }
    series = interleaved({k: partial(timed, v) for k, v in cases.items()}, work.size.repeats)
    raw |= series.raw()
    for name in cases:
        span = series.median(name)
        table.add(name, f"{span.wall:.2f}", f"{span.cpu:.2f}")
    folder = finished_runs(work)
    sweeps = {str(n): partial(timed, skipping(work, folder, n)) for n in (FEW, MANY)}
    series = interleaved(sweeps, work.size.repeats)
    raw["finished runs in a multirun"] = series.raw()
    slopes = [
        Span((b.wall - a.wall) / (MANY - FEW), (b.cpu - a.cpu) / (MANY - FEW))
        for (a,), (b,) in zip(series.spans[str(FEW)], series.spans[str(MANY)], strict=True)
    ]
    wall = statistics.median(s.wall for s in slopes)
    cpu = statistics.median(s.cpu for s in slopes)
    table.add("a finished run in a multirun", f"{wall:.3f}", f"{cpu:.3f}")
    what = "seconds to skip a finished run in a multirun (CPU)"
    goals = [Goal(what, cpu, SKIP_LIMIT, note="Hydra composes each job twice (see text)")]
    return Section("orchestration", "Around the runs", TEXT, [table], goals, raw)


def timed(args: list[Any]) -> list[Span]:
    return [command(args)]


def finished_runs(work: Work) -> Path:
    folder = work.folder()
    for seed in range(MANY):
        run(compose(*cheap(work, folder, seed)), "bench")
    return folder


def skipping(work: Work, folder: Path, runs: int) -> list[Any]:
    return [sys.executable, REPO / "train.py", "-m", *cheap(work, folder, f"range({runs})")]
