"""What causes what: auxiliary losses against scheduling, every rival against MILES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from miles_repro.report.comparison import place, study_tags
from miles_repro.report.measures import Values, values
from miles_repro.report.names import FUSIONS, NOT_RUN, metric_label, strategy_label, strategy_order
from miles_repro.report.provenance import Origin, left_out_notes
from miles_repro.report.table import Column, Sheet, Table, fixed, show_p
from miles_repro.selection import Study, is_unimodal
from miles_repro.stats import (
    Paired,
    holm,
    paired,
)

CONTRASTS = (
    ("auxiliary losses", "vanilla_aux", "vanilla"),
    ("scheduling on top of them", "miles", "vanilla_aux"),
    ("adaptive instead of static", "miles", "static_lr"),
    ("utilization instead of chance", "miles", "random_lr"),
    ("losses and scheduling", "miles", "vanilla"),
)
"""(effect, strategy with it, strategy without it)"""

COMPARED = ("fused", "strong", "weak", "abs_gap")
HEADS = {"fused": "fused", "strong": "strong head", "weak": "weak head", "abs_gap": "size of gap"}
POOLED = "both"

EFFECT_NOTES = (
    "Difference in points, mean [95 % interval], paired over the seeds both strategies have run; "
    "p: paired t test, Holm over all lines of one measure. The t test decides because few seeds "
    "suffice for it; Wilcoxon's signed-rank p (uncorrected) stands beside it from six pairs on, "
    "below that it cannot reach 0.05.",
    f"{POOLED}: per seed, the mean over the fusions.",
    "Every strategy enters with its own best trial by validation.",
)


def effects_sheet(study: Study, origin: Origin) -> Sheet:
    """The contrasts that separate auxiliary losses from scheduling."""
    lines = [
        (effect, fusion, subject, rival)
        for effect, subject, rival in CONTRASTS
        for fusion in [*FUSIONS, POOLED]
    ]
    title = f"Effects in points of {metric_label(study)}, {place(study)}"
    table = _contrast_table(title, "effects", study, lines)
    table.notes = [*EFFECT_NOTES, *left_out_notes(study), origin.note()]
    name = f"effects_{study.dataset}_{study.budget}"
    return Sheet(name, f"Auxiliary losses or scheduling: {place(study)}", [table])


def rivals_sheet(study: Study, origin: Origin) -> Sheet:
    """MILES minus every other strategy."""
    lines = [
        (strategy_label(strategy), fusion, "miles", strategy)
        for fusion in study.fusions
        for strategy in _strategies(study, fusion)
        if strategy != "miles"
    ]
    title = f"MILES minus each strategy, points of {metric_label(study)}, {place(study)}"
    table = _contrast_table(title, "rivals", study, lines)
    table.notes = [EFFECT_NOTES[0], EFFECT_NOTES[2], *left_out_notes(study), origin.note()]
    name = f"tests_{study.dataset}_{study.budget}"
    return Sheet(name, f"Paired tests: {place(study)}", [table] if table.rows else [])


def _strategies(study: Study, fusion: str) -> list[str]:
    found = [s for f, s in study.cells if f == fusion and not is_unimodal(s)]
    return sorted(found, key=strategy_order)


def _contrast_table(
    title: str, name: str, study: Study, lines: Sequence[tuple[str, str, str, str]]
) -> Table:
    """One row per (label, fusion, subject, rival): subject - rival on every measure."""
    leads: list[Column] = [("", "effect" if name == "effects" else "rival"), ("", "fusion")]
    table = Table(title, leads, leads=2)
    table.rows = [{leads[0]: label, leads[1]: fusion} for label, fusion, _, _ in lines]
    for measure in COMPARED:
        tests = [_test(study, measure, *line[1:]) for line in lines]
        adjusted = holm([test.p if test else None for test in tests])
        shown = ["difference", "p"]
        if any(test and test.wilcoxon is not None for test in tests):
            shown.append("Wilcoxon p")
        table.columns += [(HEADS[measure], part) for part in shown]
        for row, line, test, p in zip(table.rows, lines, tests, adjusted, strict=True):
            row |= _contrast_texts(HEADS[measure], test, p)
            table.data.append(_contrast_data(name, study, line, measure, test, p))
    table.columns.append(("", "n"))
    return table


def _test(study: Study, measure: str, fusion: str, subject: str, rival: str) -> Paired | None:
    if fusion == POOLED:
        return paired(*(_pooled(study, measure, strategy) for strategy in (subject, rival)))
    return paired(*(values(study.cells.get((fusion, s)), measure) for s in (subject, rival)))


def _pooled(study: Study, measure: str, strategy: str) -> Values:
    """Seed -> mean over the paper's fusions, for seeds that have run with each."""
    found = [values(study.cells.get((fusion, strategy)), measure) for fusion in FUSIONS]
    seeds = set.intersection(*(set(numbers) for numbers in found))
    return {seed: sum(numbers[seed] for numbers in found) / len(found) for seed in seeds}


def _contrast_texts(head: str, test: Paired | None, p: float | None) -> dict[Column, str]:
    if test is None:
        return {(head, "difference"): NOT_RUN}
    return {
        (head, "difference"): show_difference(test),
        (head, "p"): show_p(p),
        (head, "Wilcoxon p"): show_p(test.wilcoxon),
        ("", "n"): str(test.n),
    }


def show_difference(test: Paired) -> str:
    """`+0.3 [-0.1, +0.7]`, or `+0.3 (no CI)`."""
    found = test.difference
    mean = fixed(found.mean, sign=True)
    if found.low is None or found.high is None:
        return f"{mean} (no CI)"
    return f"{mean} [{fixed(found.low, sign=True)}, {fixed(found.high, sign=True)}]"


def _contrast_data(
    table: str,
    study: Study,
    line: tuple[str, str, str, str],
    measure: str,
    test: Paired | None,
    p: float | None,
) -> dict[str, Any]:
    label, fusion, subject, rival = line
    found = test.difference if test else None
    return {
        "table": table,
        **study_tags(study.dataset, study),
        "fusion": fusion,
        "effect": label,
        "strategy": subject,
        "rival": rival,
        "quantity": measure,
        "difference": found.mean if found else None,
        "ci_low": found.low if found else None,
        "ci_high": found.high if found else None,
        "p_t": test.p if test else None,
        "p_holm": p,
        "p_wilcoxon": test.wilcoxon if test else None,
        "n": test.n if test else 0,
    }
