"""Table I (unimodal models) and the paper's ablations on MILES: Tables IV, V and VI."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from miles_repro.paper import FUSIONS, MODALITIES, MUS, SOURCES, TAUS, published
from miles_repro.report.comparison import heading, parts, side_label
from miles_repro.report.entry import Entry, Row, entry_table, result_notes
from miles_repro.report.measures import values
from miles_repro.report.provenance import Origin, study_tags
from miles_repro.report.table import Sheet, Table
from miles_repro.selection import (
    SEARCH_SEED,
    Cell,
    Record,
    Study,
    same_but,
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
    def fixed(self) -> str:
        """The strategy's other values and the learning rate, equal along the curve."""
        run = next(iter(self.cells.values())).searched[0]
        names = {"tau", "mu"} - {self.parameter}
        parts = [f"{name} {setting(run, 'strategy', name)}" for name in sorted(names)]
        return ", ".join([*parts, f"lr {setting(run, 'optimizer', 'lr')}"])


def curve(study: Study | None, fusion: str, parameter: str) -> Curve | None:
    """MILES runs equal in all but the seed and `parameter` (tau, mu), at two values or more.

    Of several such families the one with most values counts, then the one with most runs.
    """
    families: defaultdict[str, list[Record]] = defaultdict(list)
    for run in study.records if study else ():
        if run["strategy"] == "miles" and run["fusion"] == fusion and source(run) == "val":
            key = same_but(run, "seed", "trial", "pinned", f"strategy.{parameter}")
            families[key].append(run)
    best: dict[str, dict[int, Record]] = {}
    for key in sorted(families):
        settings: defaultdict[str, dict[int, Record]] = defaultdict(dict)
        for run in families[key]:
            settings[str(float(setting(run, "strategy", parameter)))][run["seed"]] = run
        if _size(settings) > _size(best):
            best = settings
    if len(best) < 2:
        return None
    # The setting is the trial here: one configuration per value, nothing to select.
    cells = {name: _as_cell(list(best[name].values())) for name in sorted(best, key=float)}
    return Curve(parameter, cells)


def _size(settings: dict[str, dict[int, Record]]) -> tuple[int, int]:
    return len(settings), sum(map(len, settings.values()))


def _as_cell(runs: list[Record]) -> Cell:
    first = runs[0]
    ordered = tuple(sorted(runs, key=lambda run: run["seed"]))
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
            side = {names[0]: "strong", names[-1]: "weak"}.get(modality, "")
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
            cells, notes = _ablation_cells(study, fusion, parameter)
            paper = published(number, dataset, fusion, "miles", "fused", settings[0])
            if not cells and not (paper and origin.in_paper(dataset)):
                continue
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


def _ablation_cells(
    study: Study | None, fusion: str, parameter: str
) -> tuple[dict[str, Cell], list[str]]:
    if parameter == "source":
        cells = source_cells(study, fusion)
        # The ordinary row alone is no ablation.
        return (cells, [SOURCE_NOTE]) if "train" in cells else ({}, [])
    found = curve(study, fusion, parameter)
    return (found.cells, [CURVE_NOTE.format(parameter, found.fixed)]) if found else ({}, [])


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
    for quantity in ["fused", "strong", "weak"] + ["best_epoch"] * (number == 6):
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
