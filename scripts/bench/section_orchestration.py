"""5. What surrounds the runs: help, skipping finished ones, starting new ones."""

from __future__ import annotations

import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from bench.report import Goal, Section, Table
from bench.timing import Span, command, interleaved
from bench.work import REPO, Work, cheap, compose
from miles_repro.run import run

SKIP_LIMIT, START_LIMIT = 0.1, 0.03
FEW, MANY = 2, 26
TEXT = """\
Seconds from the command line to its end. *A finished run in a multirun* is the slope between sweeps
of few and many finished runs, so the process's own start is not in it. *A tiny run in a multirun,
beyond its training* is the slope between sweeps of few and many new runs of one process, less what
the runs' records say of themselves (training, testing): composing its configuration and checking
it, reading the data and building the model.
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
    goals = [Goal(what, cpu, SKIP_LIMIT)]
    beyond = [starting(work) for _ in range(work.size.repeats)]
    raw["tiny runs, beyond their training"] = [[s.wall, s.cpu] for s in beyond]
    wall = statistics.median(s.wall for s in beyond)
    cpu = statistics.median(s.cpu for s in beyond)
    table.add("a tiny run in a multirun, beyond its training", f"{wall:.3f}", f"{cpu:.3f}")
    what = "seconds around a tiny run in a multirun (CPU)"
    goals.append(Goal(what, cpu, START_LIMIT))
    return Section("orchestration", "Around the runs", TEXT, [table], goals, raw)


def starting(work: Work) -> Span:
    """What a new run costs beside what its record counts."""
    found = []
    for runs in (FEW, MANY):
        folder = work.folder()
        span = command(skipping(work, folder, runs))
        costs = [json.loads(p.read_text())["cost"] for p in folder.rglob("summary.json")]
        found.append(
            Span(
                span.wall - sum(c["wall_s"] for c in costs),
                span.cpu - sum(c["cpu_s"] for c in costs),
            )
        )
    few, many = found
    return Span((many.wall - few.wall) / (MANY - FEW), (many.cpu - few.cpu) / (MANY - FEW))


def timed(args: list[Any]) -> list[Span]:
    return [command(args)]


def finished_runs(work: Work) -> Path:
    folder = work.folder()
    for seed in range(MANY):
        run(compose(*cheap(work, folder, seed)), "bench")
    return folder


def skipping(work: Work, folder: Path, runs: int) -> list[Any]:
    own = cheap(work, folder, f"range({runs})")
    return [sys.executable, REPO / "train.py", "-m", "hydra/launcher=in_process", *own]
