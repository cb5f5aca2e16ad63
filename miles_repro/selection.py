"""Which runs count: the choice of trials and learning rates, made from validation numbers alone.

Nothing here opens a record's test fields (``test``, ``gap``, ``missing``, ``noise``,
``utilization``): a record without them selects the same. Imports nothing heavy, so composing a
configuration can use it.

The rules
---------
- Ordinary runs choose: finished, no searched value fixed by hand (``pinned`` empty), utilization
  measured on validation data (``source: train`` is the paper's Table VI, kept apart). A diverged
  run is a finished one: it keeps its place among the seeds and is marked.
- One protocol per data set and budget: same data, split, encoders, optimizer, epochs, batch size.
  Of several, the one with most runs counts; the others are left out, and captions say how many.
- One configuration per trial, the seed apart: the one with most runs, by the same rule. Values
  outside the search (``strategy.reset_other``) make another configuration, not another trial.
- Best epoch: chosen inside the run by the fused validation metric, the first one wins ties.
- Best trial of a cell (data set, budget, fusion, strategy): highest fused validation metric on the
  search seed, 0. Ties: the lowest trial. Where no trial ran that seed, the lowest trial.
- Decision seeds are all others. Means, intervals and verdicts use these alone, so no number is
  reported from a seed that it was chosen on.
- Best unimodal learning rate: highest mean over the search seed, or without it over the seeds that
  most rates have run; ties: the smallest rate.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from typing import Any, TypeVar

from miles_repro.alike import FREE, all_same_but
from miles_repro.errors import UserError
from miles_repro.verdicts import EPS

Record = Mapping[str, Any]
"""One summary.json."""
Key = TypeVar("Key", int, float)

SEARCH_SEED = 0
FINISHED = ("done", "diverged")


@dataclass(frozen=True)
class Cell:
    """The runs a table entry speaks of.

    runs: the selected trial on its decision seeds, one run a seed; search: its run on the search
    seed, if any; searched: every run the selection chose from; trials: how many trials those are.
    """

    dataset: str
    budget: str
    fusion: str
    strategy: str
    trial: int
    trials: int
    runs: tuple[Record, ...]
    search: tuple[Record, ...]
    searched: tuple[Record, ...]


@dataclass(frozen=True)
class Study:
    """One data set at one budget: its cells by (fusion, strategy), and what had to stay outside.

    records: every finished run under the study's protocol, ablations included.
    left_out: run id -> why it is not comparable. eps: as ``verdicts.EPS``, how close is equal.
    """

    dataset: str
    budget: str
    records: tuple[Record, ...]
    cells: dict[tuple[str, str], Cell]
    left_out: dict[str, str]
    eps: Mapping[str, float] = field(default_factory=EPS.copy)

    def margin(self, measure: str) -> float:
        """Points within which two methods count as equal on a measure (``report.measures``)."""
        return self.eps["fused" if measure == "fused" else "heads"]

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """Strongest to weakest: what the data set declares, then by validation metric of the
        unimodal runs, or where not all have run, of the probes."""
        first = max(self.records, key=lambda record: len(record["modalities"]))
        scores: defaultdict[tuple[bool, str], list[float]] = defaultdict(list)
        for run in (run for cell in self.cells.values() for run in (*cell.search, *cell.runs)):
            if is_unimodal(run["strategy"]):
                scores[True, run["strategy"].removeprefix("unimodal_")].append(_validation(run))
                continue
            probes = run.get("instruments", {}).get("probe", {"val": {}})["val"]
            for m, score in probes.items():
                scores[False, m].append(score["metric"] or 0.0)
        alone = all((True, m) in scores for m in first["modalities"])
        mean = {m: sum(found) / len(found) for (kind, m), found in scores.items() if kind == alone}
        side = {first["strong"]: -1, first["weak"]: 1}
        found = [(side.get(m, 0), -mean.get(m, 0.0), m) for m in first["modalities"]]
        return tuple(m for *_, m in sorted(found, key=lambda one: one[:2]))

    @property
    def strong(self) -> str:
        return self.modalities[0]

    @property
    def weak(self) -> str:
        return self.modalities[-1]

    @property
    def stand_in(self) -> bool:
        """Whether other data stands under the data set's name."""
        return any(record.get("stand_in") for record in self.records)

    @cached_property
    def names(self) -> dict[str, tuple[str, str]]:
        """Strategy -> (family, label), as its records say; no two have one label."""
        found = {r["strategy"]: (r.get("family", ""), r.get("label")) for r in self.records}
        times = Counter(label for _, label in found.values())
        named = {s: f"{k} ({s})" if k and times[k] > 1 else k or s for s, (_, k) in found.items()}
        return {strategy: (family, named[strategy]) for strategy, (family, _) in found.items()}

    @property
    def metric(self) -> str:
        return str(self.records[0]["metric"])

    @property
    def fusions(self) -> list[str]:
        order = {"concat": 0, "sum": 1}
        found = {fusion for fusion, strategy in self.cells if not is_unimodal(strategy)}
        return sorted(found, key=lambda fusion: (order.get(fusion, 2), fusion))


def is_unimodal(strategy: str) -> bool:
    return strategy.startswith("unimodal_")


def setting(record: Record, section: str, key: str) -> Any:
    """One value of the run's configuration, None where it has none."""
    return (record["config"].get(section) or {}).get(key)


def source(record: Record) -> str:
    """Which split the run measured utilization on: ``val`` unless its strategy says ``train``."""
    return "train" if setting(record, "strategy", "source") == "train" else "val"


def ordinary(record: Record) -> bool:
    """Whether the run may be selected: nothing searched was fixed by hand."""
    return not record["pinned"] and source(record) == "val"


def studies(records: Iterable[Record], eps: Mapping[str, float] = EPS) -> list[Study]:
    """Group finished runs into studies, in order of data set and budget."""
    grouped: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in {record["run_id"]: record for record in records}.values():
        if record["status"] in FINISHED:
            grouped[record["dataset"], record["budget"]].append(record)
    return [replace(_study(*key, grouped[key]), eps=eps) for key in sorted(grouped)]


def study(records: Iterable[Record], dataset: str, budget: str) -> Study | None:
    """The study of one data set and budget, None where nothing has run."""
    found = studies(r for r in records if (r["dataset"], r["budget"]) == (dataset, budget))
    return found[0] if found else None


def _study(dataset: str, budget: str, records: Sequence[Record]) -> Study:
    keys = zip((r["data_fingerprint"] for r in records), all_same_but(records, *FREE), strict=True)
    kept, others = _majority(records, list(keys))
    left_out = {r["run_id"]: "other data, split, encoders or recipe" for r in others}
    by_cell: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in filter(ordinary, kept):
        by_cell[record["fusion"], record["strategy"]].append(record)
    cells = {}
    for key in sorted(by_cell):
        cells[key], variants = select(by_cell[key])
        left_out |= {r["run_id"]: "other configuration of the same trial" for r in variants}
    return Study(dataset, budget, tuple(kept), cells, left_out)


def select(records: Sequence[Record]) -> tuple[Cell, list[Record]]:
    """Choose the trial among the runs of one cell; also returns the runs that cannot take part."""
    alike, variants = _one_configuration_per_trial(records)
    alike = sorted(alike, key=itemgetter("finished", "run_id"))
    newest = {(r["trial"], r["seed"]): r for r in alike}  # older ones had other teachers
    runs = list(newest.values())
    variants += [r for r in alike if newest[r["trial"], r["seed"]] is not r]
    searches = [(r["trial"], 0, _validation(r)) for r in runs if r["seed"] == SEARCH_SEED]
    trial = _best(searches) if searches else min(run["trial"] for run in runs)
    own = sorted((r for r in runs if r["trial"] == trial), key=lambda r: r["seed"])
    first = runs[0]
    cell = Cell(
        dataset=first["dataset"],
        budget=first["budget"],
        fusion=first["fusion"],
        strategy=first["strategy"],
        trial=trial,
        trials=len({run["trial"] for run in runs}),
        runs=tuple(run for run in own if run["seed"] != SEARCH_SEED),
        search=tuple(run for run in own if run["seed"] == SEARCH_SEED),
        searched=tuple(runs),
    )
    return cell, variants


def _one_configuration_per_trial(runs: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Within one trial only the seed may differ: keep the configuration with most runs."""
    by_trial: defaultdict[int, list[Record]] = defaultdict(list)
    for run in runs:
        by_trial[run["trial"]].append(run)
    kept: list[Record] = []
    others: list[Record] = []
    for group in by_trial.values():
        if len(group) == 1:
            kept += group
            continue
        same, different = _majority(group, all_same_but(group, "seed"))
        kept += same
        others += different
    return kept, others


def _majority(
    records: Sequence[Record], keys: Sequence[Hashable]
) -> tuple[list[Record], list[Record]]:
    """Records of the most frequent key (ties: the one that finished a run first), and the rest."""
    counts = Counter(keys)
    if len(counts) == 1:
        return list(records), []
    pairs = sorted(zip(records, keys, strict=True), key=lambda pair: pair[0]["finished"])
    first = {key: -i for i, (_, key) in reversed(list(enumerate(pairs)))}
    winner = max(counts, key=lambda key: (counts[key], first[key]))
    return [r for r, key in pairs if key == winner], [r for r, key in pairs if key != winner]


def _validation(record: Record) -> float:
    """Fused validation metric at the run's best epoch; below any other where it is not finite."""
    value = record["val"]["fused"]["metric"]
    return float(value) if value is not None and math.isfinite(value) else -math.inf


def _best(scored: Iterable[tuple[Key, int, float]]) -> Key:
    """Key with the highest mean over the search seed, or over the seeds that most keys have where
    none has that, from (key, seed, score) triples."""
    table: defaultdict[Key, dict[int, list[float]]] = defaultdict(dict)
    for key, seed, score in scored:
        table[key].setdefault(seed, []).append(score)
    counts = Counter(seed for seeds in table.values() for seed in seeds)
    most = max(counts.values())
    search = {seed for seed, count in counts.items() if count == most}
    if SEARCH_SEED in counts:
        search = {SEARCH_SEED}
    candidates = [key for key, seeds in table.items() if search <= seeds.keys()]
    if not candidates:  # disjoint sets of rates per seed: compare within the lowest seed
        search = {min(search)}
        candidates = [key for key, seeds in table.items() if search <= seeds.keys()]

    def mean(key: Key) -> float:
        scores = [sum(table[key][seed]) / len(table[key][seed]) for seed in search]
        return sum(scores) / len(scores)

    return min(candidates, key=lambda key: (-mean(key), key))


def best_trial(
    records: Iterable[Record], dataset: str, fusion: str, strategy: str, budget: str
) -> int:
    """Number of the best trial of one cell. Raises UserError where no ordinary run has finished."""
    found = study((r for r in records if r["strategy"] == strategy), dataset, budget)
    cell = found and found.cells.get((fusion, strategy))
    if not cell:
        raise UserError(
            f"no finished run of dataset={dataset} fusion={fusion} strategy={strategy} "
            f"budget={budget} to choose the best trial from: run its trials first"
        )
    return cell.trial


def best_unimodal_lr(
    records: Iterable[Record], dataset: str, budget: str, modality: str
) -> tuple[float, list[str]]:
    """Learning rate of the best unimodal model of `modality`, and the ids of the runs behind it.
    Raises UserError where no unimodal run has finished."""
    strategy = f"unimodal_{modality}"
    found = study((r for r in records if r["strategy"] == strategy), dataset, budget)
    if found is None:
        raise UserError(
            f"no finished run of dataset={dataset} strategy={strategy} budget={budget} to take a "
            "learning rate from: run it first, or set the rates in the strategy's configuration"
        )
    rates = {r["run_id"]: float(setting(r, "optimizer", "lr")) for r in found.records}
    best = _best((rates[r["run_id"]], r["seed"], _validation(r)) for r in found.records)
    return best, sorted(run_id for run_id, rate in rates.items() if rate == best)
