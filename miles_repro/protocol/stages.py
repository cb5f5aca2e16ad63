"""The protocol as stages of runs, each stage built on the records of the one before.

For every data set: 1. unimodal models of every modality, random search; 2. every other row x
fusion, random search; 3. and 4. the winner of each cell (by validation) over the decision seeds,
which is beyond the paper, unimodal models first: rows that learn from them find them; 5. the
paper's ablations on MILES around its winner: tau (Table IV) and mu (Table V), each with the other
at the winner's value and at the paper's, metrics from the training split (Table VI, re-tuned).
Imports no torch.

Seeds: every trial runs with seed 0, every decision run with 1, 2, 3, ..: the seed that chose a
winner says nothing about it, and a seed means the same run order and split for every row.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from miles_repro import composing, places
from miles_repro.composing import compose
from miles_repro.config import BudgetConfig, Config, RuntimeConfig, explain
from miles_repro.errors import UserError
from miles_repro.paper import DEFAULTS, MUS, TAUS
from miles_repro.protocol.jobs import Job, Stage
from miles_repro.protocol.menu import UNIMODAL, expand
from miles_repro.records import CONFIG, ERROR, LAST, Summary, read_summary, status_of
from miles_repro.trials import SEARCH_SEED

OWN_KEYS = ("dataset", "fusion", "strategy", "budget", "trial", "seed")
SOURCES = {"smnist_mini": "", "mfeat": ""}
"""What ``prepare`` needs besides a data set's name, where that is no folder of raw files."""
FROM_RECORDS = ("rates", "modality")
"""A strategy's values that may have to be taken from unimodal runs: ``trials.without_search``."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    ablations: data sets that get them; twice: those of tau and mu with the other of the two at the
    paper's value as well; overrides: further Hydra overrides of every run.
    """

    budget: str = "mini"
    datasets: tuple[str, ...] = ("smnist_mini",)
    fusions: tuple[str, ...] = ("concat", "sum")
    strategies: tuple[str, ...] = ()
    ablations: tuple[str, ...] = ()
    twice: bool = True
    overrides: tuple[str, ...] = ()

    @property
    def common(self) -> list[str]:
        return [f"budget={self.budget}", *self.overrides]


class Sizes(BaseModel):
    """What a protocol counts with before any of its runs is checked."""

    budget: BudgetConfig
    runtime: RuntimeConfig


def check_request(request: Request) -> None:
    """Raises UserError for a data set, fusion or strategy that the configuration does not have,
    and for an override of what the protocol itself goes through."""
    for override in request.overrides:
        if (key := override.lstrip("+").split("=", 1)[0]) in OWN_KEYS:
            raise UserError(
                f"{override}: the protocol chooses every run's {key}; "
                "see --help for --datasets, --strategies, --fusions and --budget"
            )
    expand(request.strategies, request.overrides)
    for group, names in (("dataset", request.datasets), ("fusion", request.fusions)):
        for name in names:
            raw = composing.resolve(compose([f"{group}={name}", *request.common]))
            raw["budget"].pop("search", None)
            try:
                Sizes.model_validate(raw)
            except ValidationError as e:
                raise UserError(explain(e)) from None


@dataclass(frozen=True)
class Seen:
    """A job as one look found it.

    folder: of its record, None where that cannot be known yet, and why.
    state: ``done``, ``running``, ``failed`` or ``unfinished``; summary: where it is done.
    begun, saved, failed: when the run last wrote its configuration, its state and its error (ns,
    0 = never).
    """

    folder: Path | None = None
    why: str = ""
    state: str = "unfinished"
    summary: Summary | None = None
    begun: int = 0
    saved: int = 0
    failed: int = 0


@dataclass
class Protocol:
    """The request's runs, and where their records are."""

    request: Request
    _composed: dict[tuple[str, ...], dict[str, Any] | UserError] = field(default_factory=dict)

    def stages(self, dataset: str) -> Iterator[Stage]:
        """In order; a stage's runs are only final once the stages before it are complete."""
        asked = self.request
        budget = self.options(dataset)["budget"]
        searched, seeds = range(budget["trials"]), range(1, budget["seeds"] + 1)
        rows = [(s, f) for f in asked.fusions for s in asked.strategies if s != UNIMODAL]
        for name, trials, chosen in (
            ("search", searched, [SEARCH_SEED]),
            ("winners over seeds", ["best"], seeds),
        ):
            yield Stage(f"unimodal {name}", tuple(self.unimodal(dataset, trials, chosen)))
            yield _stage(name, dataset, rows, trials, chosen)
        if dataset in asked.ablations and "miles" in asked.strategies:
            miles = [("miles", f) for f in asked.fusions]
            for key, values, other in (("tau", TAUS, "mu"), ("mu", MUS, "tau")):
                fixed = [(f"strategy.{key}", value) for value in values]
                yield _stage(f"ablation of {key}", dataset, miles, ["best"], seeds, fixed)
                held = f"strategy.{other}={DEFAULTS[other]}"
                name = f"ablation of {key} at the paper's {other}"
                if asked.twice:
                    yield _stage(name, dataset, miles, ["best"], seeds, fixed, held)
            fixed = [("strategy.source", "train")]
            search = [SEARCH_SEED]
            yield _stage("training metrics, search", dataset, miles, searched, search, fixed)
            yield _stage("training metrics, winners", dataset, miles, ["best"], seeds, fixed)

    def unimodal(
        self, dataset: str, trials: Iterable[int | str], seeds: Iterable[int]
    ) -> Iterator[Job]:
        """Each modality alone; fused or not makes no difference to it."""
        if UNIMODAL in self.request.strategies:
            fixed = [
                ("strategy.modality", m) for m in self.options(dataset)["dataset"]["modalities"]
            ]
            yield from _stage("", dataset, [(UNIMODAL, "concat")], trials, seeds, fixed).jobs

    def options(self, dataset: str) -> dict[str, Any]:
        """The composed configuration of a data set at this budget, whatever the strategy."""
        return self._raw(Job(dataset, "vanilla", "concat", 0, 0))

    def look(self, jobs: Iterable[Job]) -> dict[Job, Seen]:
        """One look at configurations and records. What a cell takes from records (its winner,
        its learning rates) is taken once."""
        taken: dict[tuple[str, ...], dict[str, Any] | UserError] = {}
        return {job: self._see(job, taken) for job in jobs}

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """The jobs without a finished record, each run once."""
        return unfinished(self.look(jobs))

    def config(self, job: Job) -> Config:
        """Raises UserError where it cannot be known yet: it needs records that are not there."""
        return self._complete(job, {})

    def config_for_timing(self, job: Job) -> Config:
        """As `config`, with made-up values in the place of those that records have to tell."""
        modalities = list(self.options(job.dataset)["dataset"]["modalities"])
        made_up = {"rates": dict.fromkeys(modalities, 1e-3), "modality": modalities[0]}
        return self._complete(job, made_up)

    def not_prepared(self) -> dict[str, str]:
        """Data sets without prepared data -> the command that prepares them."""
        found = {}
        for name in self.request.datasets:
            folder = Path(self.options(name)["runtime"]["data_dir"]) / name
            if not (folder / "manifest.json").is_file():
                source = SOURCES.get(name, " raw=<folder>")
                found[name] = f"{places.command('prepare')} dataset={name}{source}"
        return found

    def _see(self, job: Job, taken: dict[tuple[str, ...], dict[str, Any] | UserError]) -> Seen:
        key = (*job.overrides, str(job.trial == "best"))
        known = taken.get(key, {})
        try:
            if isinstance(known, UserError):
                raise known
            config = self._complete(job, known)
        except UserError as e:
            taken[key] = e
            return Seen(why=str(e))
        taken[key] = {"trial": config.trial} | {k: config.strategy.get(k) for k in FROM_RECORDS}
        folder = config.run_dir
        state = status_of(folder)
        # After the lock: a run that ends elsewhere in between is seen as done, not as free.
        summary = None if state == "running" else read_summary(folder)
        times = (_written(folder / name) for name in (CONFIG, LAST, ERROR))
        return Seen(folder, "", "done" if summary else state, summary, *times)

    def _complete(self, job: Job, known: dict[str, Any]) -> Config:
        """``known``: the winning trial and what else records tell, where they need not be asked."""
        raw = self._raw(job) | {"trial": job.trial, "seed": job.seed}
        if job.trial == "best" and "trial" in known:
            raw["trial"] = known["trial"]
        for name in FROM_RECORDS:
            if raw["strategy"].get(name, "") in ("records", None) and known.get(name):
                raw["strategy"][name] = known[name]
        return composing.complete(raw, [*job.overrides, *self.request.common])

    def _raw(self, job: Job) -> dict[str, Any]:
        """The composed configuration of a job's cell: Hydra is asked once for each."""
        key = (*job.overrides, *self.request.common)
        if key not in self._composed:
            try:
                self._composed[key] = composing.resolve(compose(list(key)))
            except UserError as e:
                self._composed[key] = e
        found = self._composed[key]
        if isinstance(found, UserError):
            raise UserError(str(found))
        return copy.deepcopy(found)


def unfinished(seen: dict[Job, Seen]) -> list[Job]:
    """The jobs of a look without a finished record, each run once."""
    found: dict[Path | Job, Job] = {}
    for job, one in seen.items():
        if one.state != "done":
            found.setdefault(one.folder or job, job)
    return list(found.values())


def _stage(
    name: str,
    dataset: str,
    cells: Iterable[tuple[str, str]],
    trials: Iterable[int | str],
    seeds: Iterable[int],
    fixed: Iterable[tuple[str, str]] = (("", ""),),
    held: str = "",
) -> Stage:
    cells, seeds, fixed = list(cells), list(seeds), list(fixed)
    jobs = [
        Job(dataset, strategy, fusion, trial, seed, value, held)
        for trial in trials
        for seed in seeds
        for value in fixed
        for strategy, fusion in cells
    ]
    return Stage(name, tuple(jobs))


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
