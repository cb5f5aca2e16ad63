"""The tests behind the claims: each looks at one study and fusion and returns a finding.

Every part of a claim is one paired contrast over decision seeds with two anytime-valid p values:
that the part does not hold, and that it is not contradicted. ``verdicts.decide`` joins them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from miles_repro.paper import NEAR, PAPER_ROWS
from miles_repro.report.ablations import curves, source_cells
from miles_repro.report.contrasts import differences, show_verdict
from miles_repro.report.measures import SIGN, Values, interval, paired, values
from miles_repro.report.names import NOT_RUN, strategy_label
from miles_repro.report.table import show
from miles_repro.selection import Study
from miles_repro.verdicts import ALPHA, decide, p_above, p_below, verdict

YES, NOT, OPEN, UNRUN = "supported", "not supported", "undecided", NOT_RUN
RIVALS = tuple(name for name in PAPER_ROWS if name != "miles")


@dataclass(frozen=True)
class Part:
    """One condition of a claim, on one contrast.

    support: p of "the condition does not hold"; against: p of "it is not contradicted".
    """

    name: str
    differences: Sequence[float]
    support: float
    against: float

    @property
    def text(self) -> str:
        if not self.differences:
            return f"{self.name}: no shared seed"
        return f"{self.name} {show_verdict(verdict(self.differences, 1.0))}"


@dataclass(frozen=True)
class Finding:
    """The parts that have run, what has not, and the numbers in words."""

    parts: Sequence[Part]
    missing: Sequence[str]
    numbers: str

    @property
    def verdict(self) -> str:
        return combined([self])


def combined(findings: Iterable[Finding]) -> str:
    """One verdict over several cells: all parts of all cells together, so that both error rates
    hold for the whole claim. A part that has not run prevents support, not contradiction."""
    findings = list(findings)
    parts = [part for finding in findings for part in finding.parts]
    word = decide([part.support for part in parts], [part.against for part in parts])
    if word == NOT:
        return NOT
    ran = all(part.differences for part in parts) and not any(f.missing for f in findings)
    return word if parts and ran else UNRUN


def above(
    name: str, found: Sequence[float], border: float = 0.0, worst: float | None = None
) -> Part:
    """The mean difference is above `border`; contradicted where it is below `worst` (border)."""
    if not found:
        return Part(name, found, 1.0, 1.0)
    against = p_below(found, border if worst is None else worst)
    return Part(name, found, p_above(found, border), against)


def below(name: str, found: Sequence[float], border: float = 0.0) -> Part:
    """The mean difference is below `border`; contradicted where it is above."""
    if not found:
        return Part(name, found, 1.0, 1.0)
    return Part(name, found, p_below(found, border), p_above(found, border))


def best(
    study: Study,
    fusion: str,
    *,
    measure: str,
    subject: str = "miles",
    rivals: Sequence[str] = RIVALS,
    border: float = 0.0,
) -> Finding:
    """Is `subject` better than each rival on `measure`, by more than `border`? With a border below
    zero: is it at most so much worse?"""
    sign = SIGN.get(measure, 1)
    ran = [name for name in rivals if (fusion, name) in study.cells]
    missing = [strategy_label(study, name) for name in rivals if name not in ran]
    if (fusion, subject) not in study.cells or not ran:
        return Finding([], [NOT_RUN], NOT_RUN)
    parts = []
    for rival in ran:
        found = [sign * d for d in differences(study, fusion, measure, subject, rival)]
        parts.append(above(strategy_label(study, rival), found, border))
    own = values(study, study.cells[fusion, subject], measure)
    won = [part for part in parts if part.support <= ALPHA]
    lost = [part for part in parts if len(parts) * part.against <= ALPHA]
    closest = min(parts, key=lambda part: np.mean(part.differences) if part.differences else np.inf)
    texts = [
        f"{strategy_label(study, subject)} {show(interval(own))}, n {len(own)}",
        f"minus the closest, {closest.text}"
        if sign > 0
        else f"closest, smaller by: {closest.text}",
        f"condition met against {len(won)} of {len(parts)}, contradicted by {len(lost)}"
        + (f" ({', '.join(part.name for part in lost)})" if lost else ""),
    ]
    if missing:
        texts.append(f"{NOT_RUN}: {', '.join(missing)}")
    return Finding(parts, missing, "; ".join(texts))


def stronger_encoders(study: Study, fusion: str) -> Finding:
    """Probe of the weakest modality better than every rival's, the others' not worse."""
    limit = -study.margin("strong")
    found = [
        best(study, fusion, measure=m, border=0.0 if m == study.weak else limit)
        for m in study.modalities[::-1]
    ]
    names = study.modalities[::-1]
    return joined(found, [f"{m}: {f.numbers}" for m, f in zip(names, found, strict=True)])


def joined(findings: Sequence[Finding], numbers: Sequence[str]) -> Finding:
    return Finding(
        [part for finding in findings for part in finding.parts],
        [name for finding in findings for name in finding.missing],
        ". ".join(dict.fromkeys(numbers)),
    )


def near_unimodal(study: Study, fusion: str) -> Finding:
    """Shortfall of MILES' encoders from the unimodal models, each modality by itself (probes)."""
    miles = study.cells.get((fusion, "miles"))
    parts, missing = [], []
    for m in study.modalities:
        alone = study.cells.get(("concat", f"unimodal_{m}"))
        if miles is None or alone is None:
            missing.append(m)
            continue
        found = paired(values(study, alone, m), values(study, miles, m))
        parts.append(below(f"{m} short by", found, NEAR[fusion]))
    if not parts:
        return Finding([], missing, NOT_RUN)
    texts = [part.text for part in parts]
    return Finding(parts, missing, f"{'; '.join(texts)}; bound {NEAR[fusion]:g} points each")


def sensitivity(
    study: Study, fusion: str, *, parameter: str, peak: str, edges: Sequence[str]
) -> Finding:
    """Shape along a hyper-parameter: fused peaks in the middle, strong probe rises, weak falls."""
    ran = curves(study, fusion, parameter)
    if not ran:
        return Finding([], [parameter], NOT_RUN)
    asked = (peak, *edges)
    # A curve that has the settings asked for; the paper's other value first, where several have.
    found = max(
        ran,
        key=lambda one: (one.cells.keys() >= {*asked}, len(one.cells), one.at_papers_value),
    )
    missing = [name for name in asked if name not in found.cells]
    if missing:
        return Finding([], missing, f"{NOT_RUN}: {parameter} {', '.join(missing)}")
    fused = {name: values(study, cell, "fused") for name, cell in found.cells.items()}
    parts = [
        above(f"fused at {peak} minus {edge}", paired(fused[peak], fused[edge])) for edge in edges
    ]
    steps = [found.cells[name] for name in sorted(found.cells, key=float)]
    for side, test in (("strong", above), ("weak", below)):
        slopes = _slopes([values(study, cell, side) for cell in steps])
        parts.append(test(f"{side} per step of {parameter}", list(slopes.values())))
    texts = [part.text for part in parts]
    return Finding(parts, [], "; ".join([*texts, f"at {found.fixed}"]))


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
        return Finding([], [NOT_RUN], NOT_RUN)
    fused, epochs = (
        paired(*(values(study, cells[name], measure) for name in ("val", "train")))
        for measure in ("fused", "best_epoch")
    )
    limit = study.margin("fused")
    parts = [
        above("fused, validation minus training", fused, -limit),
        below("the same", fused, limit),
        below("best epoch", epochs),
    ]
    trials = f"trials {cells['val'].trials} and {cells['train'].trials}"
    texts = [parts[0].text, parts[2].text, f"n {len(fused)}", trials]
    return Finding(parts, [], "; ".join(texts))
