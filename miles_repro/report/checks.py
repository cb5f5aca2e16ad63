"""The tests behind the claims: each looks at one study and fusion and returns a finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miles_repro.report.ablations import curve, source_cells
from miles_repro.report.effects import show_difference
from miles_repro.report.measures import ALPHA, SIGN, Values, comparisons, interval, values
from miles_repro.report.names import NOT_RUN, PAPER_ROWS, strategy_label
from miles_repro.report.table import show, show_p
from miles_repro.selection import Study
from miles_repro.stats import Paired, holm, mean_ci, paired

YES, NOT, OPEN, UNRUN = "supported", "not supported", "undecided", NOT_RUN
MARGIN = 1.0
"""Points within which two methods count as equal."""

RIVALS = tuple(name for name in PAPER_ROWS if name != "miles")
NEAR = {"concat": 1.8 + 1.6, "sum": 2.0 + 2.0}
"""The paper's distance of MILES' heads from unimodal models: mean plus spread, in points."""


@dataclass(frozen=True)
class Finding:
    verdict: str
    numbers: str


def best(
    study: Study,
    fusion: str,
    *,
    measure: str,
    subject: str = "miles",
    rivals: Sequence[str] = RIVALS,
) -> Finding:
    """Is `subject` better than each rival on `measure`?"""
    own = values(study.cells.get((fusion, subject)), measure)
    others = {r: values(study.cells.get((fusion, r)), measure) for r in rivals}
    run = {name: numbers for name, numbers in others.items() if numbers}
    if not own or not run:
        return Finding(UNRUN, NOT_RUN)
    sign = SIGN[measure]
    tests = comparisons(own, run)
    won = [name for name, test in tests.items() if _significant(*test, sign)]
    lost = [name for name, test in tests.items() if _significant(*test, -sign)]
    missing = [name for name in rivals if name not in run]
    means = {
        name: sign * mean_ci(list(v.values())).mean for name, v in {**run, subject: own}.items()
    }
    rank = 1 + sum(mean > means[subject] for mean in means.values())
    rival = max(run, key=lambda name: means[name])
    test, p = tests[rival]
    parts = [
        f"{strategy_label(subject)} {show(interval(own))}, rank {rank} of {len(means)}",
        f"best rival {strategy_label(rival)} {show(interval(run[rival]))}",
        f"difference {show_difference(test)}, p {show_p(p)}, n {test.n}"
        if test
        else "no shared seed",
        f"better than {len(won)} of {len(run)}, worse than {len(lost)}",
    ]
    if lost:
        parts.append(f"beaten by {_labels(lost)}")
    if missing:
        parts.append(f"{NOT_RUN}: {_labels(missing)}")
    if lost:
        verdict = NOT
    elif missing:
        verdict = UNRUN
    else:
        verdict = YES if len(won) == len(rivals) else OPEN
    return Finding(verdict, "; ".join(parts))


def _significant(test: Paired | None, p: float | None, sign: int) -> bool:
    """Whether the difference is significant and of that sign."""
    return test is not None and p is not None and p < ALPHA and sign * test.difference.mean > 0


def _labels(names: Sequence[str]) -> str:
    return ", ".join(strategy_label(name) for name in names)


def stronger_encoders(study: Study, fusion: str) -> Finding:
    """Weak head better than every rival's, strong head not worse than any by MARGIN."""
    weak = best(study, fusion, measure="weak")
    strong = best(study, fusion, measure="strong")
    if weak.verdict == UNRUN:
        return weak
    numbers = f"weak head: {weak.numbers}. Strong head: {strong.numbers}"
    if NOT in (weak.verdict, strong.verdict):
        return Finding(NOT, numbers)
    own = values(study.cells[fusion, "miles"], "strong")
    level = all(
        test is not None and test.difference.low is not None and test.difference.low > -MARGIN
        for test, _ in comparisons(
            own, {r: values(study.cells.get((fusion, r)), "strong") for r in RIVALS}
        ).values()
    )
    return Finding(YES if weak.verdict == YES and level else OPEN, numbers)


def near_unimodal(study: Study, fusion: str) -> Finding:
    """Mean shortfall of MILES' heads from the unimodal models, against the paper's."""
    miles = study.cells.get((fusion, "miles"))
    shortfalls: list[Values] = []
    for side in ("strong", "weak"):
        alone = study.cells.get(("concat", f"unimodal_{getattr(study, side)}"))
        single, head = values(alone, side), values(miles, side)
        shortfalls.append({seed: single[seed] - head[seed] for seed in single.keys() & head.keys()})
    seeds = sorted(shortfalls[0].keys() & shortfalls[1].keys())
    if not seeds:
        return Finding(UNRUN, NOT_RUN)
    found = mean_ci([(shortfalls[0][seed] + shortfalls[1][seed]) / 2 for seed in seeds])
    sides = [
        f"{getattr(study, s)} {show(interval(v))}"
        for s, v in zip(("strong", "weak"), shortfalls, strict=True)
    ]
    bound = NEAR[fusion]
    numbers = f"{show(found)} points below ({'; '.join(sides)}); bound {bound:g}, n {found.n}"
    if found.low is None or found.high is None:
        return Finding(OPEN, numbers)
    return Finding(YES if found.high <= bound else NOT if found.low > bound else OPEN, numbers)


def sensitivity(
    study: Study, fusion: str, *, parameter: str, peak: str, edges: Sequence[str]
) -> Finding:
    """Shape along a hyper-parameter: fused peaks in the middle, strong head rises, weak falls."""
    found = curve(study, fusion, parameter)
    if found is None:
        return Finding(UNRUN, NOT_RUN)
    missing = [name for name in (peak, *edges) if name not in found.cells]
    if missing:
        return Finding(UNRUN, f"{NOT_RUN}: {parameter} {', '.join(missing)}")
    fused = {name: values(cell, "fused") for name, cell in found.cells.items()}
    parts: dict[str, tuple[Paired | None, int]] = {
        f"fused at {peak} minus {edge}": (paired(fused[peak], fused[edge]), 1) for edge in edges
    }
    for side, sign in (("strong", 1), ("weak", -1)):
        slopes = _slopes([values(found.cells[k], side) for k in sorted(found.cells, key=float)])
        parts[f"{side} head per step of {parameter}"] = (
            paired(slopes, dict.fromkeys(slopes, 0.0)),
            sign,
        )
    adjusted = holm([test.p if test else None for test, _ in parts.values()])
    numbers, verdicts = [], []
    for (name, (test, sign)), p in zip(parts.items(), adjusted, strict=True):
        if test is None:
            numbers.append(f"{name}: no shared seed")
            verdicts.append(OPEN)
            continue
        numbers.append(f"{name}: {show_difference(test)}, p {show_p(p)}")
        if _significant(test, p, sign):
            verdicts.append(YES)
        else:
            verdicts.append(NOT if _significant(test, p, -sign) else OPEN)
    verdict = NOT if NOT in verdicts else OPEN if OPEN in verdicts else YES
    return Finding(verdict, "; ".join([*numbers, f"at {found.fixed}"]))


def _slopes(steps: Sequence[Values]) -> Values:
    """Per seed with every step: least-squares slope of the values over 0, 1, 2, ..."""
    seeds = set.intersection(*(set(step) for step in steps))
    x = np.arange(len(steps))
    return {
        seed: float(np.polyfit(x, [step[seed] for step in steps], 1)[0]) for seed in sorted(seeds)
    }


def source(study: Study, fusion: str) -> Finding:
    """Training against validation metrics: equal fused metric, later best epoch."""
    cells = source_cells(study, fusion)
    if len(cells) < 2:
        return Finding(UNRUN, NOT_RUN)
    fused, epoch = (
        paired(values(cells["val"], name), values(cells["train"], name))
        for name in ("fused", "best_epoch")
    )
    if fused is None or epoch is None:
        return Finding(OPEN, "no shared seed")
    numbers = (
        f"fused, validation minus training: {show_difference(fused)}; best epoch: "
        f"{show_difference(epoch)}, p {show_p(epoch.p)}; n {fused.n}; trials "
        f"{cells['val'].trials} and {cells['train'].trials}"
    )
    low, high = fused.difference.low, fused.difference.high
    if low is None or high is None:
        return Finding(OPEN, numbers)
    if low > MARGIN or high < -MARGIN or _significant(epoch, epoch.p, 1):
        return Finding(NOT, numbers)
    equal = low > -MARGIN and high < MARGIN
    return Finding(YES if equal and _significant(epoch, epoch.p, -1) else OPEN, numbers)
