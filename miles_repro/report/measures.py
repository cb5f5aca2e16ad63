"""Test numbers of a cell in percent per seed, by the instrument that measured them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from miles_repro.selection import Cell, Record, Study, is_unimodal, setting
from miles_repro.stats import Interval, mean_ci

Values = dict[int, float]
"""Seed -> percent (points for gaps, epochs for best_epoch)."""

Instrument = Literal["probe", "split", "own"]
"""How a modality alone is scored: "probe": a linear probe fitted after training on the frozen
encoder, the same way for every strategy; "split": the fusion's share of the logits (or zero-masked
logits); "own": the strategy's trained heads where it has some, else its ``unimodal_source``."""

SIGN = {"abs_gap": -1}
"""-1 where smaller is better. Gaps compare by size, so `gap` itself is only displayed."""


def measure(study: Study, record: Record, name: str, instrument: Instrument) -> float | None:
    """One test number of one run, None where it is not defined for that run.

    name: "fused", "best_epoch", a modality, "strong", "weak", "gap" (strong - weak; with three
    modalities or more the largest difference of a pair) or "abs_gap", its size.
    """
    if name == "best_epoch":
        return float(record["best_epoch"])
    if name == "fused":
        value = None if is_unimodal(record["strategy"]) else record["test"]["fused"]["metric"]
        return _percent(value)
    own = record["test"]
    if instrument != "own":
        own = record.get("instruments", {}).get(instrument, {"test": {}})["test"]
    heads = [_percent((own.get(m) or {}).get("metric")) for m in study.modalities]
    if name not in ("gap", "abs_gap"):
        name = {"strong": study.strong, "weak": study.weak}.get(name, name)
        return heads[study.modalities.index(name)]
    known = [value for value in heads if value is not None]
    if len(known) < len(heads) or len(known) < 2:
        return None
    gap = known[0] - known[1] if len(known) == 2 else max(known) - min(known)
    return abs(gap) if name == "abs_gap" else gap


def numeric(record: Record, section: str, key: str) -> float | None:
    """A value of the run's configuration, None where it is no finite number."""
    try:
        found = float(setting(record, section, key))
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _percent(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else 100 * value


def values(
    study: Study | None, cell: Cell | None, name: str, instrument: Instrument = "probe"
) -> Values:
    """The measure per decision seed; empty without a cell."""
    if study is None or cell is None:
        return {}
    found = {run["seed"]: measure(study, run, name, instrument) for run in cell.runs}
    return {seed: value for seed, value in found.items() if value is not None}


def interval(numbers: Values) -> Interval | None:
    return mean_ci(list(numbers.values())) if numbers else None


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> list[float]:
    """a - b over the seeds both have, in the order of the seeds."""
    return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
