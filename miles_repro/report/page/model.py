"""All that the page shows, as one JSON: each number as it stands in a CSV table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from miles_repro.paper import DATASETS
from miles_repro.report.claims import CLAIMS
from miles_repro.report.contrasts import measure_label, measures_of
from miles_repro.report.figures import clock
from miles_repro.report.names import metric_label, place, stem
from miles_repro.report.page.boards import Lines, board, row
from miles_repro.report.page.cards import cards
from miles_repro.report.page.curves import POINTS, curves
from miles_repro.report.provenance import Origin, commits, cost_text, plural, study_notes
from miles_repro.report.table import Sheet, Table, fixed
from miles_repro.selection import Cell, Study, is_unimodal, setting

SHIPPED = {*DATASETS, "smnist_mini", "mfeat"}
"""Data sets that come with the suite; others are the user's own."""
ROOM = 4000
"""Epochs shown of all cells together: many cells get coarser curves."""


def model(
    studies: Sequence[Study],
    sheets: Sequence[Sheet],
    origin: Origin,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    runs_url: str | None = None,
) -> dict[str, Any]:
    """The page's data; own data sets first. Arguments as `page.page`."""
    ordered = sorted(studies, key=lambda study: study.dataset in SHIPPED)
    cells = sum(len(study.cells) for study in studies)
    points = max(10, min(POINTS, ROOM // max(1, cells)))
    return {
        "note": origin.note(),
        "runsUrl": runs_url,
        "studies": [_study(one, sheets, origin, rows, points) for one in ordered],
        "claims": _claims(studies, sheets),
        "ranks": _ranks(sheets),
        "ablations": _ablations(sheets),
        "cards": cards(sorted({s for study in studies for s in study.names})),
    }


def _study(
    study: Study,
    sheets: Sequence[Sheet],
    origin: Origin,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    points: int,
) -> dict[str, Any]:
    key = stem(study)
    lines = _index(_lines(sheets, f"comparison__{key}"))
    where = (study.dataset, study.budget)
    printed = _index(
        line
        for number in (1, 2, 3)
        for line in _lines(sheets, f"table{number}")
        if (line["dataset"], line["budget"]) == where
    )
    spent = {"CPU": "cpu_s", "wall": "wall_s"}[clock(study)]
    base, differing = _configurations(study)
    alone = sorted(k for k in study.cells if is_unimodal(k[1]))
    return {
        "key": key,
        "place": place(study),
        "dataset": study.dataset,
        "budget": study.budget,
        "own": study.dataset not in SHIPPED,
        "metric": metric_label(study),
        "modalities": list(study.modalities),
        "measures": {m: measure_label(study, m) for m in measures_of(study)},
        "margins": {m: study.margin(m) for m in measures_of(study)},
        "clock": clock(study),
        "facts": _facts(study),
        "notes": study_notes(study),
        "names": {s: [label, family] for s, (family, label) in study.names.items()},
        "own_strategies": _own_strategies(study),
        "base": base,
        "boards": [board(study, f, lines, printed, spent, origin) for f in study.fusions],
        "alone": [row(study, k, lines, printed, spent) for k in alone],
        "configs": {" ".join(k): values for k, values in differing.items()},
        "curves": {
            " ".join(k): found
            for k, cell in study.cells.items()
            if (found := curves(study, cell, rows, points))
        },
        "robustness": [_robustness(t) for t in _tables(sheets, f"robustness__{key}")],
    }


def _facts(study: Study) -> list[str]:
    runs = study.records
    seeds = sorted({run["seed"] for cell in study.cells.values() for run in cell.runs})
    shown = ", ".join(map(str, seeds[:12])) + ", …" * (len(seeds) > 12)
    return [
        plural(len(runs)),
        f"decision seeds {shown or 'none'}",
        cost_text(runs),
        commits(runs),
    ]


def _own_strategies(study: Study) -> list[str]:
    """Those whose code is not the suite's."""
    found = {run["strategy"]: setting(run, "strategy", "_target_") for run in study.records}
    return sorted(s for s, t in found.items() if t and not str(t).startswith("miles_repro."))


def _configurations(
    study: Study,
) -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """What most cells share, and per cell what it has otherwise (None: has it not)."""
    flat = {key: _flat(_first(cell)["config"]) for key, cell in study.cells.items()}
    counts = Counter((k, v) for values in flat.values() for k, v in values.items())
    base: dict[str, Any] = {}
    for (name, value), count in counts.most_common():
        if count > len(flat) / 2:
            base.setdefault(name, value)
    return base, {
        key: {k: values.get(k) for k in {**base, **values} if values.get(k) != base.get(k)}
        for key, values in flat.items()
    }


def _first(cell: Cell) -> Mapping[str, Any]:
    return (cell.runs or cell.search or cell.searched)[0]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for key, inner in value.items():
            if prefix or key not in ("seed", "data_fingerprint", "numbers_version"):
                found |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: "null" if value is None else str(value)}


def _tables(sheets: Sequence[Sheet], name: str) -> list[Table]:
    return [table for sheet in sheets if sheet.name == name for table in sheet.tables]


def _lines(sheets: Sequence[Sheet], name: str) -> list[dict[str, Any]]:
    return [line for table in _tables(sheets, name) for line in table.data]


def _index(lines: Iterable[Mapping[str, Any]]) -> Lines:
    return {(line.get("fusion", ""), line["strategy"], line["quantity"]): line for line in lines}


def _claims(studies: Sequence[Study], sheets: Sequence[Sheet]) -> list[dict[str, Any]]:
    tables = _tables(sheets, "claims")
    verdicts, evidence = tables[0], {table.title: table for table in tables[1:]}
    found = []
    for claim, texts in zip(CLAIMS, verdicts.rows, strict=True):
        table = evidence.get(claim.statement)
        found.append(
            {
                "text": claim.statement,
                "by": claim.where,
                "test": claim.told(studies),
                "verdicts": [[name, texts[group, name]] for group, name in verdicts.columns[1:]],
                "findings": [list(line.values()) for line in table.rows] if table else [],
            }
        )
    return found


def _ranks(sheets: Sequence[Sheet]) -> list[dict[str, Any]]:
    return [
        {
            "title": table.title,
            "notes": table.notes,
            "rows": [
                [line["strategy"], float(f"{line['average_rank']:.2f}")] for line in table.data
            ],
        }
        for table in _tables(sheets, "ranks")
    ]


def _robustness(table: Table) -> dict[str, Any]:
    """columns: [group, name]; rows: fusion, strategy, then mean and half interval per column."""
    columns = table.columns[2:-1]
    digits = 2 if table.data and table.data[0]["section"] == "utilization" else 1
    found = []
    for start in range(0, len(table.data), len(columns)):
        lines = table.data[start : start + len(columns)]
        found.append(
            [lines[0]["fusion"], lines[0]["strategy"], [_point(line, digits) for line in lines]]
        )
    return {
        "title": table.title,
        "section": table.data[0]["section"] if table.data else "",
        "notes": table.notes,
        "columns": [list(column) for column in columns],
        "rows": found,
    }


def _ablations(sheets: Sequence[Sheet]) -> list[dict[str, Any]]:
    """Tables IV to VI where we have runs: per quantity ours and the paper's over the settings."""
    found = []
    for number, parameter in ((4, "tau"), (5, "mu"), (6, "source")):
        for table in _tables(sheets, f"table{number}"):
            if all(line["mean"] is None for line in table.data):
                continue
            lines: dict[str, list[Any]] = {}
            for line in table.data:
                ours = _point(line, 1)
                lines.setdefault(line["quantity"], []).append(
                    [line["setting"], *(ours or [None, None]), line["paper"]]
                )
            found.append(
                {
                    "title": table.title,
                    "parameter": parameter,
                    "lines": lines,
                    "notes": table.notes,
                }
            )
    return found


def _point(line: Mapping[str, Any], digits: int) -> list[float | None] | None:
    if line["mean"] is None:
        return None
    low, high = line["ci_low"], line["ci_high"]
    half = None if low is None else float(fixed((high - low) / 2, digits=digits))
    return [float(fixed(line["mean"], digits=digits)), half]
