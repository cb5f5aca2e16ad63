"""Strategies side by side: Tables II and III of the paper, and the same for any data set."""

from __future__ import annotations

from collections.abc import Sequence

from miles_repro.report.entry import Entry, Row, entry_table, result_notes
from miles_repro.report.measures import MEASURES, SIGN, separated_best, values
from miles_repro.report.names import (
    DATASETS,
    FUSIONS,
    NOT_RUN,
    PAPER_ROWS,
    dataset_label,
    metric_label,
    strategy_label,
    strategy_order,
)
from miles_repro.report.provenance import Origin, left_out_notes
from miles_repro.report.published import published
from miles_repro.report.table import NONE, Sheet, Table
from miles_repro.selection import Study, is_unimodal

Key = tuple[str, str]
"""(fusion, strategy)"""

BOLD_NOTE = (
    "Bold: best mean of its fusion, where it beats every other row in a paired t test over shared "
    "seeds (Holm, 5 %; gaps compared by size). No bold: the best is not separated from the rest."
)
HEADS_NOTE = (
    "Heads are trained where the strategy trains unimodal heads, otherwise they are the fusion "
    "layer's share of the logits; the two are not the same measurement."
)


def paper_sheet(number: int, studies: Sequence[Study], origin: Origin) -> Sheet:
    """Table II (number 2, concatenation) or III (3, summation), one part per data set."""
    fusion = {2: "concat", 3: "sum"}[number]
    tables = []
    for dataset, study in parts(studies, origin):
        if study and dataset not in DATASETS and fusion not in study.fusions:
            continue
        ran = {s for f, s in study.cells if f == fusion and not is_unimodal(s)} if study else set()
        keys = [(fusion, s) for s in sorted({*ran, *PAPER_ROWS}, key=strategy_order)]
        tables.append(strategy_table(dataset, study, keys, origin, number))
    title = f"Table {'I' * number}: strategies, {FUSIONS[fusion]}"
    return Sheet(f"table{number}", title, tables, [origin.note()])


def comparison_sheet(study: Study, origin: Origin) -> Sheet:
    """Every strategy and fusion that has run in one study, unimodal models included."""
    keys = sorted(study.cells, key=lambda k: (is_unimodal(k[1]), k[0], strategy_order(k[1])))
    table = strategy_table(study.dataset, study, keys, origin)
    table.notes.append(origin.note())
    name = f"comparison_{study.dataset}_{study.budget}"
    return Sheet(name, f"Strategies compared: {place(study)}", [table])


def parts(studies: Sequence[Study], origin: Origin) -> list[tuple[str, Study | None]]:
    """What a published table consists of: the paper's data sets in its order, run or not, then
    the others."""
    found: list[tuple[str, Study | None]] = []
    for dataset in DATASETS:
        own = [study for study in studies if study.dataset == dataset]
        if own or origin.in_paper(dataset):
            found += [(dataset, study) for study in own] or [(dataset, None)]
    return found + [(s.dataset, s) for s in studies if s.dataset not in DATASETS]


def place(study: Study) -> str:
    return f"{dataset_label(study.dataset)}, budget {study.budget}"


def heading(dataset: str, study: Study | None, paper: bool, fusion: str = "") -> str:
    """Data set, budget, metric; says where there is nothing of the paper to compare with."""
    end = f", {FUSIONS[fusion]}" if fusion else ""
    if study is None:
        return f"{dataset_label(dataset)}{end}: {NOT_RUN}"
    remark = "" if paper else " (not the paper's data: no paper value)"
    return f"{place(study)}, {metric_label(study)}{end}{remark}"


def measure_head(name: str, study: Study | None) -> str:
    """Column head of a measure, with the modality behind strong and weak."""
    if name not in ("strong", "weak"):
        return name
    return f"{getattr(study, name)} ({name})" if study else f"{name} head"


def strategy_table(
    dataset: str, study: Study | None, keys: Sequence[Key], origin: Origin, number: int = 0
) -> Table:
    """One row per key. With `number` (2, 3): that table of the paper, its values beside ours."""
    paper = bool(number) and origin.in_paper(dataset)
    rows = {key: _row(dataset, study, key, number if paper else 0) for key in keys}
    if number:
        for row in rows.values():
            del row.labels["fusion"]
    title = heading(dataset, study, origin.in_paper(dataset))
    tags = {"table": number or "comparison", **study_tags(dataset, study)}
    table = entry_table(title, list(rows.values()), tags, paper=paper)
    if study:
        _mark_best(table, study, rows, paper)
    notes = result_notes(table, list(rows.values()), BOLD_NOTE, HEADS_NOTE, paper=paper)
    table.notes = [*notes, *(left_out_notes(study) if study else [])]
    return table


def study_tags(dataset: str, study: Study | None) -> dict[str, str]:
    """Leading columns of every CSV file."""
    return {
        "dataset": dataset,
        "budget": study.budget if study else "",
        "metric": study.metric if study else "",
    }


def _row(dataset: str, study: Study | None, key: Key, number: int) -> Row:
    fusion, strategy = key
    cell = study.cells.get(key) if study else None
    entries = [
        Entry(
            quantity=name,
            head=measure_head(name, study),
            numbers=values(cell, name),
            printed=published(number, dataset, fusion, strategy, name) if number else None,
            ran=cell is not None,
        )
        for name in MEASURES
    ]
    # A unimodal model has no fusion; its records carry a placeholder.
    fusion = NONE if is_unimodal(strategy) else fusion
    labels = {"strategy": strategy_label(strategy), "fusion": fusion}
    return Row(labels, {"fusion": fusion, "strategy": strategy}, cell, entries)


def _mark_best(table: Table, study: Study, rows: dict[Key, Row], paper: bool) -> None:
    """Bold the separated best of each fusion and measure."""
    places = list(rows)
    for fusion in study.fusions:
        cells = {k[1]: study.cells.get(k) for k in rows if k[0] == fusion and not is_unimodal(k[1])}
        for entry in rows[places[0]].entries:
            measured = "abs_gap" if entry.quantity == "gap" else entry.quantity
            numbers = {strategy: values(cell, measured) for strategy, cell in cells.items()}
            best = separated_best(numbers, SIGN[measured])
            if best:
                table.bold.add((places.index((fusion, best)), entry.ours(paper)))
