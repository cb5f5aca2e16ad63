"""4. What surrounds the runs: help, skipping finished ones, status and tables of many records."""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from bench.report import Goal, Section, Table
from bench.timing import Span, command, interleaved
from bench.work import FULL, RATES, REPO, Work, common, compose
from miles_repro.run import run

SKIP_LIMIT = 0.15
LIMITS = {"status": 5.0, "tables": 10.0}
FEW, MANY = 2, 26
STRATEGIES = (
    *("vanilla", "vanilla_aux", "mslr_k", "mslr_s", "mslr_d", "ogm", "ogm_ge", "mses"),
    *("gblend", "miles"),
)
FUSIONS = ("concat", "sum")
SEEDS = 5
TEXT = """\
Seconds from the command line to its end. *A finished run in a multirun* is the slope between sweeps
of few and many finished runs, so the process's own start is not in it; Hydra composes jobs that
differ in trial and seed alone once. `status` is a first look, without its cache. The records for
`status` and `tables` are copies of a real one with other names and shifted numbers.
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
    records = many_records(work, next(folder.rglob("summary.json")).parent)
    for name in ("status", "tables"):
        args = [sys.executable, reproduce, name, "--runs-dir", records]
        if name == "tables":
            args += ["--results", work.folder()]
        (span,) = timed(args)
        table.add(
            f"reproduce.py {name}, {work.size.records:,} records",
            f"{span.wall:.2f}",
            f"{span.cpu:.2f}",
        )
        raw[name] = [span.wall, span.cpu]
        if work.size.records >= FULL.records:
            what = f"seconds for {name} of {work.size.records:,} records (CPU)"
            goals.append(Goal(what, span.cpu, LIMITS[name]))
    return Section("orchestration", "Around the runs", TEXT, [table], goals, raw)


def timed(args: list[Any]) -> list[Span]:
    return [command(args)]


def cheap(work: Work, folder: Path, seed: object) -> list[str]:
    """Overrides of the cheapest real run."""
    own = ["strategy=vanilla_aux", "epochs=1", f"seed={seed}", f"runtime.runs_dir={folder}"]
    few = [o for o in common("cnn", work) if not o.startswith("budget.data_fraction")]
    return [*few, "budget.data_fraction=0.02", *own]


def finished_runs(work: Work) -> Path:
    folder = work.folder()
    for seed in range(MANY):
        run(compose(*cheap(work, folder, seed)), "bench")
    return folder


def skipping(work: Work, folder: Path, runs: int) -> list[Any]:
    return [sys.executable, REPO / "train.py", "-m", *cheap(work, folder, f"range({runs})")]


def many_records(work: Work, model: Path) -> Path:
    """Records like that of ``model``: strategies x fusions x trials x seeds."""
    root = work.folder()
    summary = json.loads((model / "summary.json").read_text())
    rows = (model / "metrics.jsonl").read_text()
    draw = random.Random(0)
    for cell, (fusion, strategy) in enumerate(itertools.product(FUSIONS, STRATEGIES)):
        needs = (RATES,) if strategy.startswith("mslr") else ()
        overrides = (f"fusion={fusion}", f"strategy={strategy}", *needs)
        identity = work.config("mlp", *overrides).identity()
        for n in range(work.size.records // (len(FUSIONS) * len(STRATEGIES))):
            trial, seed = divmod(n, SEEDS)
            one = summary | {
                "run_id": f"{cell:06x}{n:06x}",
                "strategy": strategy,
                "label": strategy,
                "fusion": fusion,
                "trial": trial,
                "seed": seed,
                "config": identity | {"trial": trial, "seed": seed},
                "val": shifted(summary["val"], draw),
                "test": shifted(summary["test"], draw),
            }
            folder = root / one["dataset"] / fusion / strategy / one["run_id"]
            folder.mkdir(parents=True)
            (folder / "summary.json").write_text(json.dumps(one, indent=1))
            (folder / "config.json").write_text(json.dumps(one["config"], indent=1))
            (folder / "metrics.jsonl").write_text(rows)
    os.sync()  # the writing is not what is measured
    return root


def shifted(scores: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    factor = {head: draw.uniform(0.9, 1.0) for head in scores}
    return {head: s | {"metric": s["metric"] * factor[head]} for head, s in scores.items()}
