"""8. A run on small feature vectors in a sweep, and where its time goes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import yaml

from bench.report import Goal, Section, Table
from bench.sweep_parts import CPU, PARTS, WALL
from bench.work import MODULES, Work, mlp, synthetic, synthetic_node

LIMIT = 0.6
MODALITIES, CLASSES, VALUES, EPOCHS = ("a", "b", "c"), 10, 64, 10
REST = "the rest: reading, building, reporting"
TEXT = """\
A MILES run of 10 epochs on 2,000 synthetic samples of three feature vectors of 64 values (1,600 for
training, 200 each for validation and test; MLPs, concatenation, batches of 64), from its overrides
to its record, in a sweep of seeds in one process. The first run warms up and the last one ends the
sweep; neither is counted. Medians of wall time over the runs.
"""


def measure(work: Work) -> Section:
    folder, rows = work.folder(), work.size.feature_rows
    synthetic(folder / "data" / "bench", rows * 4 // 5, MODALITIES, CLASSES, (VALUES,))
    node = synthetic_node("bench", MODALITIES, CLASSES, mlp(VALUES))
    conf = folder / "conf" / "dataset" / "bench.yaml"
    conf.parent.mkdir(parents=True)
    conf.write_text(yaml.safe_dump(node))
    overrides = (
        *("dataset=bench", f"hydra.searchpath=[file://{folder / 'conf'}]", "strategy=miles"),
        *("tracker=none", f"runtime.device={work.device}", "batch_size=64", f"epochs={EPOCHS}"),
        *(f"runtime.runs_dir={folder / 'runs'}", f"runtime.data_dir={folder / 'data'}"),
        f"seed=range({2 + 3 * work.size.repeats})",
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench.sweep_parts", *overrides],
        env={**os.environ, **MODULES},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the sweep failed:\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}")
    runs = json.loads(done.stdout.splitlines()[-1])
    for run in runs:
        run[REST] = run[WALL] - sum(run[part] for part in PARTS)
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    table = Table(["part", "ms", "share"])
    for part in (*PARTS, REST):
        table.add(part, f"{1000 * median[part]:.0f}", f"{100 * median[part] / median[WALL]:.0f} %")
    table.add("all", f"{1000 * median[WALL]:.0f}", "100 %")
    table.add("all, CPU time", f"{1000 * median[CPU]:.0f}", "")
    what = "seconds of a run of 10 epochs on 2,000 feature vectors, in a sweep"
    goals = [Goal(what, median[WALL], LIMIT)] if rows >= 2000 else []
    return Section("features", "A run on feature vectors", TEXT, [table], goals, {"runs": runs})
