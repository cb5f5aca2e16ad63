"""3. Runs per hour of a sweep against the usual recipe."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.report import Goal, Section, Table
from bench.timing import Clock, Ratio, Span, command
from bench.work import MODULES, NAMES, REPO, Encoder, Work, common
from miles_repro.records import load_summaries

LIMITS: dict[Encoder, float] = {"mlp": 8.0, "cnn": 2.5}
WORKERS = 2
RECIPE = "usual recipe at torch's default threads"
SAME = 0.01
"""How far apart the two mean test accuracies may lie: threads and optimizer kernels round apart."""
TEXT = """\
A sweep over seeds with two workers, from the command line until the last record: `train.py -m
hydra/launcher=local` against as many processes of the usual recipe, two at a time. The recipe,
which is this suite's own code and no other's: one process a run, `DataLoader` with a transform for
every item, torch's default threads and default Adam, a loss read back every step, scoring in a
Python loop over samples and heads, best weights saved, a tracker opened in every run. It is spared
decoding, loader processes (which lose here) and per-sample forward passes. Both use the same model,
losses (fused + unimodal), data, batches and epochs, and W&B offline; both report the test metric of
the best validation epoch. Ours also evaluates missing and noisy modalities, which the recipe does
not.
"""


def measure(work: Work) -> Section:
    table = Table(
        [
            "encoders",
            "runs x epochs",
            f"{RECIPE}, runs/h",
            "ours, runs/h",
            "ratio, wall",
            "ratio, CPU",
        ],
    )
    metrics = Table(
        ["encoders", f"{RECIPE}, test", "ours, test", "largest difference of one seed"],
        title="Test accuracy of the best validation epoch, mean over seeds",
    )
    goals: list[Goal] = []
    raw: dict[str, Any] = {}
    for encoder, limit in LIMITS.items():
        rounds = 1 if encoder == "cnn" or work.size.repeats == 1 else 2
        pairs = []
        for i in range(rounds):
            first, second = (ours, peer) if i % 2 == 0 else (peer, ours)
            a, b = first(work, encoder), second(work, encoder)
            pairs.append((a, b) if first is ours else (b, a))
        runs, epochs = work.size.sweep_runs, work.size.sweep_epochs
        wall = Ratio.of([p.span.wall / o.span.wall for o, p in pairs])
        cpu = Ratio.of([p.span.cpu / o.span.cpu for o, p in pairs])
        table.add(
            NAMES[encoder],
            f"{runs} x {epochs}",
            f"{statistics.median(runs / p.span.wall * 3600 for _, p in pairs):.0f}",
            f"{statistics.median(runs / o.span.wall * 3600 for o, _ in pairs):.0f}",
            wall,
            cpu,
        )
        o, p = pairs[0]
        apart = max(abs(x - y) for x, y in zip(o.test, p.test, strict=True))
        mean = (statistics.mean(p.test), statistics.mean(o.test))
        metrics.add(NAMES[encoder], f"{mean[0]:.4f}", f"{mean[1]:.4f}", f"{apart:.3f}")
        if work.size.fraction == 1 and abs(mean[0] - mean[1]) > SAME:
            raise RuntimeError(f"{encoder}: the two sweeps do not reach the same metric: {mean}")
        what = f"runs per hour, ours / {RECIPE}, {NAMES[encoder]}"
        goals.append(Goal(what, wall.median, limit, at_least=True))
        raw[encoder] = [
            {name: {"wall": s.span.wall, "cpu": s.span.cpu, "test": s.test}}
            for pair in pairs
            for name, s in zip(("ours", "peer"), pair, strict=True)
        ]
    return Section("sweep", "A sweep and the usual recipe", TEXT, [table, metrics], goals, raw)


class Sweep:
    """Time of a sweep, and fused test metrics by seed."""

    def __init__(self, span: Span, test: list[float]) -> None:
        self.span, self.test = span, test


def ours(work: Work, encoder: Encoder) -> Sweep:
    folder = work.folder()
    args: list[Any] = [
        *(sys.executable, REPO / "train.py", "-m"),
        *common(encoder, work, tracker="wandb"),
        *("tracker.mode=offline", "hydra/launcher=local", f"hydra.launcher.n_jobs={WORKERS}"),
        *("strategy=vanilla_aux", f"epochs={work.size.sweep_epochs}"),
        *(f"seed=range({work.size.sweep_runs})", f"runtime.runs_dir={folder}"),
    ]
    span = command(args)
    found = {s["seed"]: s["test"]["fused"]["metric"] or math.nan for s in load_summaries(folder)}
    return Sweep(span, [found[seed] for seed in range(work.size.sweep_runs)])


def peer(work: Work, encoder: Encoder) -> Sweep:
    folder = work.folder()
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= {**MODULES, "WANDB_SILENT": "true"}
    for seed in range(work.size.sweep_runs):
        config = work.config(
            encoder,
            *("strategy=vanilla_aux", f"epochs={work.size.sweep_epochs}", f"seed={seed}"),
        )
        (folder / str(seed)).mkdir()
        (folder / str(seed) / "settings.json").write_text(config.model_dump_json())

    def one(seed: int) -> float:
        own = folder / str(seed)
        module = [sys.executable, "-m", "bench.peer"]
        command([*module, own / "settings.json", own / "result.json"], environment)
        return float(json.loads((own / "result.json").read_text())["test"]["fused"])

    clock = Clock(children=True)
    with ThreadPoolExecutor(WORKERS) as pool:
        test = list(pool.map(one, range(work.size.sweep_runs)))
    return Sweep(clock.read(), test)
