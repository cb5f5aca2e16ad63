"""What a stage will cost, from epochs measured on this machine, through the code that will run.

Each strategy trains two epochs with the first fusion asked for, on as much of the data as an epoch
of about a second needs; the first strategy also with the other fusions. Everything else is scaled.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miles_repro.config import Config, build
from miles_repro.data.manifest import part_sizes, read_manifest
from miles_repro.errors import UserError
from miles_repro.machine import duration
from miles_repro.protocol.jobs import Job
from miles_repro.protocol.stages import Protocol
from miles_repro.records import load_rows

TARGET_S = 1.0
FIT_START_EPOCHS = 30
"""G-Blend's copies train a tenth of the epochs, at least 3: measured for 30, scaled above."""


@dataclass(frozen=True)
class Cost:
    """Seconds on one worker: an epoch, and a whole run with its evaluation.

    share: of the data the measurement used; cpu: cores it kept busy; measured: False where
    another fusion's was scaled.
    """

    epoch_s: float
    run_s: float
    share: float
    cpu: float
    measured: bool = True

    def times(self, ratio: float) -> Cost:
        return replace(self, epoch_s=self.epoch_s * ratio, run_s=self.run_s * ratio, measured=False)


Cell = tuple[str, str, str]
"""(data set, fusion, row), as :attr:`Job.cell`."""

Tell = Callable[[str], None]
"""Shows one line of progress."""


def unit(job: Job) -> Job:
    """The run that stands for all of a cell's: its first trial, without an ablation's value."""
    alone = job.fixed[0] == "strategy.modality"
    return Job(job.dataset, job.strategy, job.fusion, 0, 0, job.fixed if alone else ("", ""))


def refusals(protocol: Protocol, units: list[Job]) -> dict[Cell, str]:
    """Cells that are not defined -> the reason. Imports torch."""
    from miles_repro.run import check

    found = {}
    for job in units:
        try:
            check(protocol.config_for_timing(job))
        except UserError as e:
            found[job.cell] = str(e)
    return found


def gpu_flops(protocol: Protocol, units: list[Job]) -> dict[Cell, float]:
    """Floating-point operations of one run of each cell; the same model is counted once."""
    from miles_repro.protocol.flops import run_flops

    models: dict[tuple[str, ...], float] = {}
    found = {}
    for job in units:
        config = protocol.config_for_timing(job)
        strategy = build(config.strategy)
        used = strategy.restrict(list(config.dataset.modalities))
        key = (job.fusion, *used)
        if key not in models:
            models[key] = run_flops(config, used, 1)
        found[job.cell] = models[key] * getattr(strategy.needs, "passes", 1)
    return found


def costs(protocol: Protocol, units: list[Job], tell: Tell) -> dict[Cell, Cost]:
    """The cost of one run of each cell of one data set, which must be defined ones."""
    found: dict[Cell, Cost] = {}
    if not units:
        return found
    rows = {job.row: job for job in reversed(units)}  # each row's first fusion
    others = {job.fusion: job for job in reversed(units) if rows[job.row] != job}
    todo = [*dict.fromkeys([*rows.values()][::-1]), *others.values()]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="miles-plan-") as scratch:
        meter = _Meter(protocol, Path(scratch))
        for i, job in enumerate(todo):
            left = (time.perf_counter() - began) / i * (len(todo) - i) if i else 0.0
            about = f", left {duration(left)}" if i else ""
            tell(f"[{i + 1}/{len(todo)}{about}] measuring {job.dataset} {job.fusion} {job.row}")
            if not i:
                meter.calibrate(job)
            found[job.cell] = meter.cost(job)
    for job in units:
        if job.cell not in found:
            one = others[job.fusion]
            ratio = found[one.cell].run_s / found[rows[one.row].cell].run_s
            found[job.cell] = found[rows[job.row].cell].times(ratio)
    return found


class _Meter:
    """Trains two epochs of a cell in a scratch folder, on a share of one data set."""

    def __init__(self, protocol: Protocol, scratch: Path) -> None:
        self.protocol, self.scratch = protocol, scratch
        self.share = 1.0
        self._names: Iterator[int] = iter(range(1_000_000))

    def calibrate(self, job: Job) -> None:
        """Choose the share of the data that takes about TARGET_S an epoch."""
        config = self.protocol.config_for_timing(job)
        manifest = read_manifest(config.runtime.data_dir / job.dataset)
        rows = part_sizes(manifest, config.dataset.scheme)["train"] * config.budget.data_fraction
        self.share = min(1.0, 4 * config.batch_size / rows)
        seconds = self.cost(job).epoch_s * self.share
        self.share = min(1.0, self.share * max(1.0, TARGET_S / seconds))

    def cost(self, job: Job) -> Cost:
        from miles_repro.run import run

        config = self.protocol.config_for_timing(job)
        epochs = config.epochs
        outcome = run(self._small(config), "plan")
        assert outcome.summary is not None
        rows = load_rows(outcome.config.run_dir)
        first, last = rows[0]["time"]["epoch_s"], rows[-1]["time"]["epoch_s"]
        start = max(0.0, first - last) * max(1.0, epochs / FIT_START_EPOCHS)
        spent = outcome.summary["cost"]
        evaluation = spent["wall_s"] - sum(r["time"]["epoch_s"] for r in rows)
        whole = start + epochs * last + max(0.0, evaluation)
        cpu = spent["cpu_s"] / spent["wall_s"]
        return Cost(last / self.share, whole / self.share, self.share, cpu)

    def _small(self, config: Config) -> Config:
        fraction = config.budget.data_fraction * self.share
        folder = self.scratch / str(next(self._names))
        changes: dict[str, Any] = {
            "epochs": 2,
            "budget": config.budget.model_copy(update={"data_fraction": fraction}),
            "runtime": config.runtime.model_copy(update={"runs_dir": folder}),
            "tracker": {"_target_": "miles_repro.tracking.NoTracker"},
        }
        return config.model_copy(update=changes)
