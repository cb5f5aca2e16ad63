"""Strategies side by side: Tables II and III of the paper, and the same for any data set."""

from __future__ import annotations

from collections.abc import Sequence

from miles_repro.paper import DATASETS, FUSIONS, PAPER_ROWS, published
from miles_repro.report.contrasts import PRIMARY, contrasts, families, separated_best
from miles_repro.report.entry import Entry, Row, entry_table, result_notes
from miles_repro.report.measures import Instrument, values
from miles_repro.report.names import (
    NOT_RUN,
    STAND_IN,
    dataset_label,
    family,
    metric_label,
    place,
    stem,
    strategies,
    strategy_label,
    strategy_order,
)
from miles_repro.report.provenance import Origin, study_notes, study_tags
from miles_repro.report.table import NONE, Sheet, Table, fixed
from miles_repro.selection import Study, is_unimodal

Key = tuple[str, str]
"""(fusion, strategy)"""

BOLD_NOTE = "Bold: beats every other row of its fusion (each pair at 5 %; gaps by size)."
PROBE_NOTE = (
    "probe: linear classifier fitted after training on the frozen encoder, the same way for all."
)
OWN_NOTE = (
    "heads: what the paper most likely printed: trained: the strategy's own heads; split: the "
    "fusion's share of the logits; zero_mask: logits with the others zeroed; own: its own rule."
)
VERDICT_NOTE = (
    "gain: mean difference of fused, in points over paired seeds, to the row marked reference of "
    "its fusion. verdict: Holm over the fusion{exempt}; equal: within "
    "±{eps:g}. Intervals and seeds still needed: table of contrasts."
)
EXEMPT = ", MILES - its losses alone by itself"
GAIN, VERDICT = ("", "gain"), ("", "verdict")
PAIR_NOTE = "gap: largest difference between two modalities."


def paper_sheet(number: int, studies: Sequence[Study], origin: Origin) -> Sheet:
    """Table II (number 2, concatenation) or III (3, summation), one part per data set."""
    fusion = {2: "concat", 3: "sum"}[number]
    tables = []
    for dataset, study in parts(studies, origin):
        if study and dataset not in DATASETS and fusion not in study.fusions:
            continue
        ran = strategies(study, fusion) if study else []
        names = [*PAPER_ROWS, *(name for name in ran if name not in PAPER_ROWS)]
        tables.append(_paper_table(dataset, study, fusion, names, origin, number))
    title = f"Table {'I' * number}: strategies, {FUSIONS[fusion]}"
    return Sheet(f"table{number}", title, tables, [origin.note()])


def comparison_sheet(study: Study, origin: Origin) -> Sheet:
    """Every strategy and fusion that has run in one study, unimodal models included: the fused
    metric and its gain over the reference, a probe of every modality, and their gap."""
    keys = sorted(study.cells, key=lambda k: (is_unimodal(k[1]), k[0], strategy_order(study, k[1])))
    rows = {key: _row(study, key) for key in keys}
    title = heading(study.dataset, study, origin.in_paper(study.dataset))
    tags = {"table": "comparison", **study_tags(study.dataset, study)}
    table = entry_table(title, list(rows.values()), tags, paper=False)
    _mark_best(table, study, rows)
    notes = [PROBE_NOTE + f" {PAIR_NOTE}" * (len(study.modalities) > 2), BOLD_NOTE]
    pairs = _judge(table, study, list(rows))
    if pairs:
        exempt = EXEMPT if PRIMARY in pairs else ""
        notes.insert(0, VERDICT_NOTE.format(eps=study.margin("fused"), exempt=exempt))
    table.notes = result_notes(list(rows.values()), *notes)
    notes = [origin.note(), *study_notes(study)]
    return Sheet(
        f"comparison__{stem(study)}", f"Strategies compared: {place(study)}", [table], notes
    )


def instruments_sheet(study: Study, origin: Origin) -> Sheet:
    """Each modality by each instrument: what the measurement itself does to the numbers."""
    keys = sorted(study.cells, key=lambda k: (k[0], strategy_order(study, k[1])))
    kinds: tuple[Instrument, ...] = ("own", "split", "probe")
    rows = []
    for key in keys:
        cell = study.cells[key]
        entries = [
            Entry(f"{m}.{kind}", f"{m}: {kind}", values(study, cell, m, kind), cell=cell)
            for m in study.modalities
            for kind in kinds
        ]
        labels = {**_labels(study, key), "own is": _unimodal_source(study, key)}
        rows.append(Row(labels, {"fusion": key[0], "strategy": key[1]}, cell, entries))
    tags = {"table": "instruments", **study_tags(study.dataset, study)}
    table = entry_table(f"Instruments, {place(study)}", rows, tags, paper=False)
    table.notes = result_notes(rows, PROBE_NOTE, OWN_NOTE.replace("heads:", "own:", 1))
    notes = [origin.note(), *study_notes(study)]
    return Sheet(f"instruments__{stem(study)}", f"Instruments: {place(study)}", [table], notes)


def parts(studies: Sequence[Study], origin: Origin) -> list[tuple[str, Study | None]]:
    """What a published table consists of: the paper's data sets in its order, run or not, then
    the others."""
    found: list[tuple[str, Study | None]] = []
    for dataset in DATASETS:
        own = [study for study in studies if study.dataset == dataset]
        if own or origin.in_paper(dataset):
            found += [(dataset, study) for study in own] or [(dataset, None)]
    return found + [(s.dataset, s) for s in studies if s.dataset not in DATASETS]


def heading(dataset: str, study: Study | None, paper: bool, fusion: str = "") -> str:
    """Data set, budget, metric; says where there is nothing of the paper to compare with."""
    end = f", {FUSIONS[fusion]}" if fusion else ""
    if study is None:
        return f"{dataset_label(dataset)}{end}: {NOT_RUN}"
    named = paper or STAND_IN in place(study)
    remark = "" if named else " (not the paper's data: no paper value)"
    return f"{place(study)}, {metric_label(study)}{end}{remark}"


def sides(study: Study | None) -> tuple[str, ...]:
    """The paper's two modalities; of other data all, strongest to weakest."""
    return ("strong", "weak") if study is None or len(study.modalities) == 2 else study.modalities


def side_label(side: str, study: Study | None) -> str:
    """Column head of strong and weak, with the modality behind them."""
    if side not in ("strong", "weak"):
        return side.replace("_", " ")
    return f"{getattr(study, side)} ({side})" if study else side


def _paper_table(
    dataset: str,
    study: Study | None,
    fusion: str,
    names: Sequence[str],
    origin: Origin,
    number: int,
) -> Table:
    """The paper's columns, measured as the paper most likely did, its values beside ours."""
    paper = origin.in_paper(dataset)
    rows = []
    for name in names:
        cell = study.cells.get((fusion, name)) if study else None
        entries = [
            Entry(
                quantity,
                side_label(quantity, study),
                values(study, cell, quantity, "own"),
                published(number, dataset, fusion, name, quantity) if paper else None,
                cell,
            )
            for quantity in ("fused", *sides(study), "gap")
        ]
        source = _unimodal_source(study, (fusion, name)) if study and cell else NONE
        labels = {"strategy": strategy_label(study, name), "heads": source}
        rows.append(Row(labels, {"fusion": fusion, "strategy": name}, cell, entries))
    title = heading(dataset, study, paper)
    tags = {"table": number, **study_tags(dataset, study)}
    table = entry_table(title, rows, tags, paper=paper)
    table.notes = result_notes(rows, OWN_NOTE, paper=paper)
    return table


def _labels(study: Study, key: Key) -> dict[str, str]:
    fusion, strategy = key
    # A unimodal model has no fusion; its records carry a placeholder.
    shown = NONE if is_unimodal(strategy) else fusion
    return {
        "family": family(study, strategy),
        "strategy": strategy_label(study, strategy),
        "fusion": shown,
    }


def _unimodal_source(study: Study, key: Key) -> str:
    cell = study.cells[key]
    return str((cell.runs or cell.search)[0].get("unimodal_source", NONE))


def _row(study: Study, key: Key) -> Row:
    cell = study.cells[key]
    names = [*study.modalities, *["gap"] * (len(study.modalities) > 1)]
    entries = [Entry("fused", "fused", values(study, cell, "fused"), cell=cell)]
    entries += [Entry(n, f"{n} (probe)", values(study, cell, n), cell=cell) for n in names]
    fusion = NONE if is_unimodal(key[1]) else key[0]
    return Row(_labels(study, key), {"fusion": fusion, "strategy": key[1]}, cell, entries)


def _judge(table: Table, study: Study, keys: Sequence[Key]) -> set[tuple[str, str]]:
    """Put each strategy's gain over the reference of its fusion, and the verdict on it, after
    the fused metric. Returns the pairs compared."""
    judged: set[tuple[str, str]] = set()
    for fusion in study.fusions:
        for reference, pairs in list(families(study, fusion).items())[:1]:
            judged |= {*pairs}
            table.rows[keys.index((fusion, reference))][VERDICT] = "reference"
            for (name, _), v in contrasts(study, fusion, "fused", pairs).items():
                gain = fixed(v.mean, sign=True)
                table.rows[keys.index((fusion, name))] |= {GAIN: gain, VERDICT: v.word}
    if judged:
        at = table.columns.index(("", "fused")) + 1
        table.columns[at:at] = [GAIN, VERDICT]
    return judged


def _mark_best(table: Table, study: Study, rows: dict[Key, Row]) -> None:
    """Bold the separated best of each fusion and measure."""
    places = list(rows)
    for fusion in study.fusions:
        for entry in rows[places[0]].entries:
            measured = "abs_gap" if entry.quantity == "gap" else entry.quantity
            best = separated_best(study, fusion, measured)
            if best:
                table.bold.add((places.index((fusion, best)), entry.ours(False)))
