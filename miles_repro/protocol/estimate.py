"""What a stage will cost, from epochs measured on this machine, through the code that will run.

Each strategy trains two epochs with the first fusion asked for, on as much of the data as an epoch
of about a second needs; the first strategy also with the other fusions. Everything else is scaled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miles_repro.config import Config
from miles_repro.data.manifest import read_manifest
from miles_repro.errors import UserError
from miles_repro.protocol.stages import Job, Protocol
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


Cell = tuple[str, str]
"""(strategy, fusion)"""


def refusals(protocol: Protocol, dataset: str, cells: list[Cell]) -> dict[Cell, str]:
    """Cells that are not defined -> the reason. Imports torch."""
    from miles_repro.run import check

    found = {}
    for strategy, fusion in cells:
        try:
            check(protocol.config_for_timing(Job(dataset, strategy, fusion, 0, 0)))
        except UserError as e:
            found[strategy, fusion] = str(e)
    return found


def costs(protocol: Protocol, dataset: str, cells: list[Cell]) -> dict[Cell, Cost]:
    """The cost of one run of each cell, which must be defined ones."""
    found: dict[Cell, Cost] = {}
    if not cells:
        return found
    fusions = list(dict.fromkeys(fusion for _, fusion in cells))
    strategies = dict.fromkeys(strategy for strategy, _ in cells)
    with tempfile.TemporaryDirectory(prefix="miles-plan-") as scratch:
        meter = _Meter(protocol, dataset, Path(scratch))
        first = cells[0]
        meter.calibrate(*first)
        for strategy in strategies:
            own = [fusion for fusion in fusions if (strategy, fusion) in cells]
            found[strategy, own[0]] = meter.cost(strategy, own[0])
        for fusion in fusions:
            same = [cell for cell in cells if cell[1] == fusion and cell not in found]
            ratio = None
            for strategy, _ in same:
                known = next(cost for (s, _), cost in found.items() if s == strategy)
                if ratio is None:
                    found[strategy, fusion] = meter.cost(strategy, fusion)
                    ratio = found[strategy, fusion].run_s / known.run_s
                else:
                    found[strategy, fusion] = known.times(ratio)
    return found


class _Meter:
    """Trains two epochs of a cell in a scratch folder, on a share of one data set."""

    def __init__(self, protocol: Protocol, dataset: str, scratch: Path) -> None:
        self.protocol, self.dataset, self.scratch = protocol, dataset, scratch
        self.share = 1.0
        self._names: Iterator[int] = iter(range(1_000_000))

    def calibrate(self, strategy: str, fusion: str) -> None:
        """Choose the share of the data that takes about TARGET_S an epoch."""
        config = self._config(strategy, fusion)
        manifest = read_manifest(config.runtime.data_dir / self.dataset)
        rows = manifest["schemes"][config.dataset.scheme]["train"] * config.budget.data_fraction
        self.share = min(1.0, 4 * config.batch_size / rows)
        seconds = self.cost(strategy, fusion).epoch_s * self.share
        self.share = min(1.0, self.share * max(1.0, TARGET_S / seconds))

    def cost(self, strategy: str, fusion: str) -> Cost:
        from miles_repro.run import run

        config = self._config(strategy, fusion)
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

    def _config(self, strategy: str, fusion: str) -> Config:
        return self.protocol.config_for_timing(Job(self.dataset, strategy, fusion, 0, 0))

    def _small(self, config: Config) -> Config:
        fraction = config.budget.data_fraction * self.share
        folder = self.scratch / str(next(self._names))
        changes: dict[str, Any] = {
            "epochs": 2,
            "budget": config.budget.model_copy(update={"data_fraction": fraction}),
            "runtime": config.runtime.model_copy(update={"runs_dir": folder}),
            "tracker": {"name": "none"},
        }
        return config.model_copy(update=changes)
