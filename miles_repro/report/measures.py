"""Test numbers of a cell: percent per seed, intervals, and the separated best of a column."""

from __future__ import annotations

import math
from collections.abc import Mapping

from miles_repro.selection import Cell, Record, is_unimodal
from miles_repro.stats import LEVEL, Interval, Paired, holm, mean_ci, paired

Values = dict[int, float]
"""Seed -> percent (points for gaps, epochs for best_epoch)."""

ALPHA = 1 - LEVEL
MEASURES = ("fused", "strong", "weak", "gap")
SIGN = {"fused": 1, "strong": 1, "weak": 1, "gap": -1, "abs_gap": -1}
"""+1 where larger is better. Gaps compare by size, so `gap` itself is only displayed."""


def measure(record: Record, name: str) -> float | None:
    """One test number of one run, None where it is not defined for that run."""
    test = record["test"]
    if name == "best_epoch":
        return float(record["best_epoch"])
    if name in ("gap", "abs_gap"):
        value = record["gap"]
        if value is not None and name == "abs_gap":
            value = abs(value)
    elif name == "fused":
        value = None if is_unimodal(record["strategy"]) else test["fused"]["metric"]
    else:
        value = (test.get(record[name]) or {}).get("metric")
    return 100 * value if value is not None and math.isfinite(value) else None


def values(cell: Cell | None, name: str) -> Values:
    """The measure per seed over the cell's selected runs; empty for None."""
    runs = cell.runs if cell else ()
    found = {run["seed"]: measure(run, name) for run in runs}
    return {seed: value for seed, value in found.items() if value is not None}


def interval(numbers: Values) -> Interval | None:
    return mean_ci(list(numbers.values())) if numbers else None


def comparisons(
    subject: Values, rivals: Mapping[str, Values]
) -> dict[str, tuple[Paired | None, float | None]]:
    """Rival -> (subject - rival paired over seeds, p after Holm over all rivals)."""
    tests = {name: paired(subject, rival) for name, rival in rivals.items()}
    adjusted = holm([test.p if test else None for test in tests.values()])
    return dict(zip(tests, zip(tests.values(), adjusted, strict=True), strict=True))


def separated_best(rows: Mapping[str, Values], sign: int) -> str | None:
    """The row with the best mean, if it beats every other row significantly; else None."""
    means = {name: sign * sum(v.values()) / len(v) for name, v in rows.items() if v}
    if len(means) < 2:
        return None
    best = max(means, key=lambda name: means[name])
    tests = comparisons(rows[best], {name: rows[name] for name in means if name != best})
    clear = (
        test is not None and p is not None and p < ALPHA and sign * test.difference.mean > 0
        for test, p in tests.values()
    )
    return best if all(clear) else None
