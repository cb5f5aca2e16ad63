"""Table I (unimodal models) and the paper's ablations on MILES: Tables IV, V and VI."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from miles_repro.alike import same_but
from miles_repro.paper import DEFAULTS, FUSIONS, MODALITIES, MUS, SOURCES, TAUS, published
from miles_repro.report.comparison import heading, parts, side_label, sides
from miles_repro.report.entry import Entry, Row, entry_table, result_notes
from miles_repro.report.measures import numeric, values
from miles_repro.report.provenance import Origin, study_tags
from miles_repro.report.table import Sheet, Table
from miles_repro.selection import (
    SEARCH_SEED,
    Cell,
    Record,
    Study,
    select,
    setting,
    source,
)

CURVE_NOTE = "Runs that differ in nothing but the seed and {}; its other values: {}."
SOURCE_NOTE = (
    "Each source with the best of its own trials; with unequal numbers of trials the comparison "
    "favours the source that was searched more."
)


@dataclass(frozen=True)
class Curve:
    """MILES along one hyper-parameter: setting as text (`0.2`) -> its runs as a cell."""

    parameter: str
    cells: dict[str, Cell]

    @property
    def at_papers_value(self) -> bool:
        """Whether the other of tau and mu is the paper's default."""
        run = next(iter(self.cells.values())).searched[0]
        (name,) = {"tau", "mu"} - {self.parameter}
        return setting(run, "strategy", name) == DEFAULTS[name]

    @property
    def fixed(self) -> str:
        """The strategy's other values and the learning rate, equal along the curve."""
        run = next(iter(self.cells.values())).searched[0]
        names = {"tau", "mu"} - {self.parameter}
        parts = [f"{name} {setting(run, 'strategy', name)}" for name in sorted(names)]
        return ", ".join([*parts, f"lr {setting(run, 'optimizer', 'lr')}"])


def curves(study: Study | None, fusion: str, parameter: str) -> list[Curve]:
    """MILES runs equal in all but the seed and `parameter` (tau, mu): one curve per choice of the
    other values that has run at three settings or more, the fullest first."""
    found: defaultdict[str, defaultdict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for run in study.records if study else ():
        if run["strategy"] == "miles" and run["fusion"] == fusion and source(run) == "val":
            value = numeric(run, "strategy", parameter)
            if value is not None:
                key = same_but(run, "seed", "trial", f"strategy.{parameter}")
                found[key][str(value)].append(run)
    full = [settings for _, settings in sorted(found.items()) if len(settings) >= 3]
    full.sort(key=lambda settings: (len(settings), sum(map(len, settings.values()))), reverse=True)
    # The setting is the trial here: one configuration per value, nothing to select.
    return [
        Curve(parameter, {name: _as_cell(settings[name]) for name in sorted(settings, key=float)})
        for settings in full
    ]


def _as_cell(runs: list[Record]) -> Cell:
    first = runs[0]
    ordered = tuple({run["seed"]: run for run in sorted(runs, key=lambda r: r["seed"])}.values())
    names = {key: first[key] for key in ("dataset", "budget", "fusion", "strategy", "trial")}
    return Cell(
        **names,
        trials=1,
        runs=tuple(run for run in ordered if run["seed"] != SEARCH_SEED),
        search=tuple(run for run in ordered if run["seed"] == SEARCH_SEED),
        searched=ordered,
    )


def source_cells(study: Study | None, fusion: str) -> dict[str, Cell]:
    """Table VI: MILES scheduled by training metrics and by validation metrics, each re-tuned."""
    if study is None:
        return {}
    trained = [
        run
        for run in study.records
        if run["strategy"] == "miles"
        and run["fusion"] == fusion
        and source(run) == "train"
        and all(name.rpartition(".")[2] == "source" for name in run["pinned"])
    ]
    cells = {"train": select(trained)[0]} if trained else {}
    if (fusion, "miles") in study.cells:
        cells["val"] = study.cells[fusion, "miles"]
    return cells


def unimodal_sheet(studies: Sequence[Study], origin: Origin) -> Sheet:
    """Table I: each modality alone."""
    tables = []
    for dataset, study in parts(studies, origin):
        paper = origin.in_paper(dataset)
        rows = []
        names = study.modalities if study else MODALITIES[dataset]
        for modality in names:
            side = {names[0]: "strong", names[-1]: "weak"}.get(modality, "") if names[1:] else ""
            strategy = f"unimodal_{modality}"
            cell = study.cells.get(("concat", strategy)) if study else None
            printed = published(1, dataset, "", strategy, side) if paper else None
            entry = Entry(
                modality, "test metric", values(study, cell, modality, "own"), printed, cell
            )
            label = {"model": f"{modality} ({side})" if side else modality}
            rows.append(Row(label, {"strategy": strategy}, cell, [entry]))
        tables.append(_table(1, heading(dataset, study, paper), dataset, study, rows))
    return Sheet("table1", "Table I: unimodal models", tables, [origin.note()])


def ablation_sheet(number: int, studies: Sequence[Study], origin: Origin) -> Sheet:
    """Table IV (tau), V (mu) or VI (source of metrics): LUMA, and any data set that has one."""
    parameter, title, settings = {
        4: ("tau", "Table IV: sensitivity to tau", TAUS),
        5: ("mu", "Table V: sensitivity to mu", MUS),
        6: ("source", "Table VI: source of the scheduling metrics", SOURCES),
    }[number]
    tables = []
    for dataset, study in parts(studies, origin):
        for fusion in FUSIONS:
            ablations = _ablations(study, fusion, parameter)
            paper = published(number, dataset, fusion, "miles", "fused", settings[0])
            if not ablations and paper and origin.in_paper(dataset):
                ablations = [({}, [])]
            for cells, notes in ablations:
                names = list(settings)
                if parameter != "source":
                    names = sorted({*settings, *cells}, key=float, reverse=True)
                rows = []
                for name in names:
                    cell = cells.get(name)
                    entries = _ablation_entries(number, dataset, study, fusion, name, cell, origin)
                    tags = {"fusion": fusion, "strategy": "miles", "setting": name}
                    rows.append(Row({parameter: name}, tags, cell, entries))
                head = heading(dataset, study, origin.in_paper(dataset), fusion)
                tables.append(_table(number, head, dataset, study, rows, *notes))
    return Sheet(f"table{number}", title, tables, [origin.note()])


def _ablations(
    study: Study | None, fusion: str, parameter: str
) -> list[tuple[dict[str, Cell], list[str]]]:
    """Setting -> its cell, and the note that belongs under it: a table each."""
    if parameter == "source":
        cells = source_cells(study, fusion)
        # The ordinary row alone is no ablation.
        return [(cells, [SOURCE_NOTE])] if "train" in cells else []
    found = curves(study, fusion, parameter)
    return [(one.cells, [CURVE_NOTE.format(parameter, one.fixed)]) for one in found]


def _ablation_entries(
    number: int,
    dataset: str,
    study: Study | None,
    fusion: str,
    name: str,
    cell: Cell | None,
    origin: Origin,
) -> list[Entry]:
    found = []
    for quantity in ["fused", *sides(study), *["best_epoch"] * (number == 6)]:
        printed = None
        if origin.in_paper(dataset):
            printed = published(number, dataset, fusion, "miles", quantity, name)
        numbers = values(study, cell, quantity, "own")
        found.append(Entry(quantity, side_label(quantity, study), numbers, printed, cell))
    return found


def _table(
    number: int,
    title: str,
    dataset: str,
    study: Study | None,
    rows: Sequence[Row],
    *notes: str,
) -> Table:
    paper = any(entry.printed for row in rows for entry in row.entries)
    tags = {"table": number, **study_tags(dataset, study)}
    table = entry_table(title, rows, tags, paper=paper)
    table.notes = result_notes(rows, *notes, paper=paper)
    return table
