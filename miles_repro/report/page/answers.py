"""The answer of a study in a sentence: which strategy leads, by how much, and is it real."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from miles_repro.paper import PAPER_ROWS, published
from miles_repro.report.contrasts import (
    SUBJECT,
    contrasts,
    separated_best,
    show_word,
)
from miles_repro.report.measures import interval, values
from miles_repro.report.names import metric_label, strategy_label
from miles_repro.report.provenance import Origin
from miles_repro.report.table import fixed, show
from miles_repro.selection import Study
from miles_repro.verdicts import Verdict


def answer(study: Study, fusion: str, ran: list[str], reference: str | None) -> dict[str, Any]:
    """word: the badge; head: the sentence; more: what stands behind it. `ran`: the strategies with
    decision seeds, best mean first."""
    if not ran:
        return {"word": "undecided", "head": "Search runs only: no decision seed yet.", "more": []}
    best = ran[0]
    label = strategy_label(study, best)
    level = show(interval(values(study, study.cells[fusion, best], "fused")))
    metric = metric_label(study)
    if len(ran) == 1:
        text = f"Only {label} has run: {metric} {level} %. Nothing to compare it with."
        return {"word": "undecided", "head": text, "more": []}
    judged = contrasts(study, fusion, "fused", [(best, name) for name in ran[1:]])
    word, text = _lead(study, fusion, f"{label}, {metric} {level} %", judged, len(ran) - 1)
    more = []
    if reference and reference != best:
        more.append(_against(study, fusion, best, reference, ran))
    if SUBJECT in ran and best != SUBJECT and reference not in (None, SUBJECT):
        more.append(_against(study, fusion, SUBJECT, str(reference), ran))
    return {"word": word, "head": text, "more": more}


def _lead(
    study: Study, fusion: str, label: str, judged: Mapping[tuple[str, str], Verdict], rivals: int
) -> tuple[str, str]:
    if separated_best(study, fusion, "fused"):
        return "better", f"{label}, is best: it beats every one of the {rivals} others."
    words: Counter[str] = Counter(v.word for v in judged.values())
    words["undecided"] += rivals - len(judged)
    texts = {
        "better": f"better than {words['better']}",
        "equal": f"equal to {words['equal']} (within {study.margin('fused'):g} point)",
        "undecided": f"undecided against {words['undecided']}",
        "worse": f"worse than {words['worse']}",
    }
    shown = ", ".join(text for word, text in texts.items() if words[word])
    tail = f"Highest mean: {label}; {shown} of the {rivals} others."
    if words["undecided"]:
        return "undecided", f"No single best yet. {tail}"
    return "equal", f"Several share the lead. {tail}"


def _against(study: Study, fusion: str, subject: str, reference: str, ran: list[str]) -> str:
    """As in the reference's table, so with its correction."""
    pairs = [(name, reference) for name in ran if name != reference]
    found = contrasts(study, fusion, "fused", pairs).get((subject, reference))
    names = f"{strategy_label(study, subject)} minus {strategy_label(study, reference)}"
    if found is None:
        return f"{names}: no shared seed."
    numbers = [
        fixed(x, sign=True, digits=2) for x in (found.mean, found.low, found.high) if x is not None
    ]
    shown = numbers[0] + (f" [{numbers[1]}, {numbers[2]}]" if len(numbers) > 1 else " (no CI)")
    shown = shown.replace("-", "−")
    return f"{names}: {shown} points, {show_word(found)} (n {found.n})."


def paper_best(study: Study, fusion: str, origin: Origin) -> tuple[str, float] | None:
    """The highest fused metric that the paper prints for this data set and fusion."""
    table = {"concat": 2, "sum": 3}.get(fusion)
    if not origin.in_paper(study.dataset) or table is None:
        return None
    return max(
        (
            (label, printed.value)
            for name, label in PAPER_ROWS.items()
            if (printed := published(table, study.dataset, fusion, name, "fused"))
        ),
        key=lambda found: found[1],
        default=None,
    )


def paper_says(study: Study, fusion: str, origin: Origin) -> str:
    """What the paper printed for this data set and fusion, or why nothing is beside it."""
    if study.stand_in:
        return "Stand-in data: no value of the paper applies."
    best = paper_best(study, fusion, origin)
    if best is None:
        return "The paper has no such experiment."
    return f"Paper: {best[0]} best of its rows with {fixed(best[1])} % (one run each)."
