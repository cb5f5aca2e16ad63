"""The protocol as stages of runs, each stage built on the records of the one before.

For every data set: 1. unimodal models, random search; 2. every other row x fusion, random search;
3. the winner of each cell (by validation) over the seeds, which is beyond the paper; 4. the paper's
ablations on MILES around its winner: tau (Table IV), mu (Table V), metrics from the training split
(Table VI, re-tuned). Imports no torch.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miles_repro import composing, trials
from miles_repro.composing import compose
from miles_repro.config import Config
from miles_repro.errors import UserError
from miles_repro.records import read_summary

PAPER_ROWS = (
    "vanilla", "mslr_k", "mslr_s", "mslr_d", "ogm", "ogm_ge", "mses", "gblend", "miles",
)  # fmt: skip
CONTROLS = ("vanilla_aux", "static_lr", "random_lr", "modality_dropout", "mimo")
UNIMODAL = ("unimodal_strong", "unimodal_weak")
TAUS = ("0.5", "0.3", "0.2", "0.1", "0.0")
MUS = ("1.0", "0.75", "0.5", "0.25", "0.1", "0.05", "0.01")


@dataclass(frozen=True)
class Job:
    """One run: choices of the configuration. ``fixed``: a value set by hand, for an ablation."""

    dataset: str
    strategy: str
    fusion: str
    trial: int | str
    seed: int
    fixed: tuple[str, str] = ("", "")

    @property
    def cell(self) -> tuple[str, str, str]:
        return self.dataset, self.fusion, self.strategy

    @property
    def overrides(self) -> list[str]:
        chosen = [f"dataset={self.dataset}", f"strategy={self.strategy}", f"fusion={self.fusion}"]
        return [*chosen, f"{self.fixed[0]}={self.fixed[1]}"] if self.fixed[0] else chosen

    def __str__(self) -> str:
        fixed = f" {self.fixed[0]}={self.fixed[1]}" if self.fixed[0] else ""
        return (
            f"{self.dataset} {self.fusion} {self.strategy}{fixed} "
            f"trial={self.trial} seed={self.seed}"
        )


@dataclass(frozen=True)
class Stage:
    name: str
    jobs: tuple[Job, ...]


OWN_KEYS = ("dataset", "fusion", "strategy", "budget", "trial", "seed")


@dataclass(frozen=True)
class Request:
    """What was asked for. ``overrides``: further Hydra overrides of every run."""

    budget: str = "mini"
    datasets: tuple[str, ...] = ("smnist_mini",)
    fusions: tuple[str, ...] = ("concat", "sum")
    strategies: tuple[str, ...] = (*PAPER_ROWS, *CONTROLS, *UNIMODAL)
    ablations: bool = True
    overrides: tuple[str, ...] = ()

    @property
    def common(self) -> list[str]:
        return [f"budget={self.budget}", *self.overrides]


def check_request(request: Request) -> None:
    """Raises UserError for a data set, fusion or strategy that the configuration does not have,
    and for an override of what the protocol itself goes through."""
    for override in request.overrides:
        if (key := override.lstrip("+").split("=", 1)[0]) in OWN_KEYS:
            raise UserError(
                f"{override}: the protocol chooses every run's {key}; "
                "see --help for --datasets, --strategies, --fusions and --budget"
            )
    choices = {"dataset": request.datasets, "fusion": request.fusions}
    for group, names in (choices | {"strategy": request.strategies}).items():
        for name in names:
            compose([f"{group}={name}", *request.common])


@dataclass
class Protocol:
    """The request's runs, and where their records are."""

    request: Request
    _composed: dict[tuple[str, ...], dict[str, Any] | UserError] = field(default_factory=dict)

    def stages(self, dataset: str) -> Iterator[Stage]:
        """In order; a stage's runs are only final once the stages before it are complete."""
        asked = self.request
        budget = self.raw(Job(dataset, UNIMODAL[0], "concat", 0, 0))["budget"]
        searched, seeds = range(budget["trials"]), range(budget["seeds"])
        alone = [s for s in asked.strategies if s in UNIMODAL]
        rows = [s for s in asked.strategies if s not in UNIMODAL]
        cells = [(s, "concat") for s in alone] + [(s, f) for f in asked.fusions for s in rows]
        yield self._stage("unimodal search", dataset, cells[: len(alone)], searched)
        yield self._stage("search", dataset, cells[len(alone) :], searched)
        yield self._stage("winners over seeds", dataset, cells, ["best"], seeds)
        if asked.ablations and "miles" in rows:
            miles = [("miles", f) for f in asked.fusions]
            for key, values in (("tau", TAUS), ("mu", MUS)):
                fixed = [(f"strategy.{key}", value) for value in values]
                yield self._stage(f"ablation of {key}", dataset, miles, ["best"], seeds, fixed)
            fixed = [("strategy.source", "train")]
            yield self._stage("training metrics, search", dataset, miles, searched, fixed=fixed)
            yield self._stage(
                "training metrics, winners", dataset, miles, ["best"], seeds, fixed=fixed
            )

    def _stage(
        self,
        name: str,
        dataset: str,
        cells: Iterable[tuple[str, str]],
        trials: Iterable[int | str],
        seeds: Iterable[int] = (0,),
        fixed: Iterable[tuple[str, str]] = (("", ""),),
    ) -> Stage:
        cells, seeds, fixed = list(cells), list(seeds), list(fixed)
        jobs = [
            Job(dataset, strategy, fusion, trial, seed, value)
            for trial in trials
            for seed in seeds
            for value in fixed
            for strategy, fusion in cells
        ]
        return Stage(name, tuple(jobs))

    def forget(self) -> None:
        """Look at the records anew: learning rates taken from them may have changed."""
        self._composed.clear()

    def raw(self, job: Job) -> dict[str, Any]:
        """The composed configuration of a job's cell, before its trial is filled in."""
        key = (*job.overrides, *self.request.common)
        if key not in self._composed:
            try:
                raw = composing.resolve(compose(list(key)))
                if raw["strategy"].get("rates") == "records":
                    raw["strategy"]["rates"] = trials.best_rates(raw)
                self._composed[key] = raw
            except UserError as e:
                self._composed[key] = e
        found = self._composed[key]
        if isinstance(found, UserError):
            raise UserError(str(found))
        return copy.deepcopy(found)

    def config(self, job: Job) -> Config:
        """Raises UserError where it cannot be known yet: it needs records that are not there."""
        return self._complete(job, self.raw(job))

    def config_for_timing(self, job: Job) -> Config:
        """As `config`, with made-up learning rates where there are no records to take them from."""
        raw = composing.resolve(compose([*job.overrides, *self.request.common]))
        if raw["strategy"].get("rates") == "records":
            raw["strategy"]["rates"] = dict.fromkeys(raw["dataset"]["modalities"], 1e-3)
        return self._complete(job, raw)

    def _complete(self, job: Job, raw: dict[str, Any]) -> Config:
        raw |= {"trial": job.trial, "seed": job.seed}
        return composing.complete(raw, [*job.overrides, *self.request.common])

    def folder(self, job: Job) -> Path | None:
        """Where the run's record goes, None where that cannot be known yet."""
        try:
            return self.config(job).run_dir
        except UserError:
            return None

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """The jobs without a finished record, each run once."""
        found: dict[Path | Job, Job] = {}
        for job in jobs:
            folder = self.folder(job)
            if folder is None or read_summary(folder) is None:
                found.setdefault(folder or job, job)
        return list(found.values())

    def not_prepared(self) -> dict[str, str]:
        """Data sets without prepared data -> the command that prepares them."""
        found = {}
        for name in self.request.datasets:
            raw = self.raw(Job(name, UNIMODAL[0], "concat", 0, 0))
            if not (Path(raw["runtime"]["data_dir"]) / name / "manifest.json").is_file():
                source = "" if name == "smnist_mini" else " raw=<folder>"
                found[name] = f"python scripts/prepare_data.py dataset={name}{source}"
        return found


def boxes(jobs: Iterable[Job]) -> list[list[str]]:
    """Cover the jobs, and nothing else, with few full grids: the overrides of one sweep each."""
    axes = ("trial", "seed", "fixed", "fusion", "strategy", "dataset")
    order = {job: i for i, job in enumerate(jobs)}
    grids = {tuple(frozenset([getattr(job, axis)]) for axis in axes): i for job, i in order.items()}
    for axis in range(len(axes)):
        merged: defaultdict[tuple[Any, ...], frozenset[Any]] = defaultdict(frozenset)
        first: dict[tuple[Any, ...], int] = {}
        for grid, i in grids.items():
            key = (grid[:axis], grid[axis + 1 :])
            merged[key] |= grid[axis]
            first[key] = min(i, first.get(key, i))
        grids = {(*k[0], values, *k[1]): first[k] for k, values in merged.items()}
    return [_as_overrides(axes, grid) for grid in sorted(grids, key=lambda grid: grids[grid])]


def _as_overrides(axes: tuple[str, ...], grid: tuple[frozenset[Any], ...]) -> list[str]:
    """Outermost axis first: all cells get their first trials before any gets its last."""
    found = []
    for axis, values in zip(axes, grid, strict=True):
        if axis != "fixed":
            found.append(f"{axis}={','.join(str(v) for v in sorted(values))}")
        elif any(key for key, _ in values):
            key = next(iter(values))[0]
            found.append(f"{key}={','.join(sorted(value for _, value in values))}")
    return found
