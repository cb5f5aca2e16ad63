"""Tables, claims, figures and one HTML page from run records.

Rooms: `entry` and `table` (how a number and a table look); `measures` and `contrasts` (what is
measured, and the paired comparisons, judged once); `comparison`, `ablations`, `ranks`,
`robustness`, `claims` and `figures` (what is shown); `page/` (the HTML report); `provenance` (where
numbers come from).
Pandas, scipy and matplotlib load when a function here is called, not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miles_repro.selection import Record, Study, studies
from miles_repro.verdicts import EPS

if TYPE_CHECKING:
    from rich.console import Console

    from miles_repro.report.provenance import Origin
    from miles_repro.report.table import Sheet

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def print_comparison(
    records: Iterable[Record],
    *,
    command: str,
    commit: str,
    eps: Mapping[str, float] = EPS,
    console: Console | None = None,
) -> None:
    """Show the comparison of every data set and budget in the terminal."""
    from rich.console import Console

    from miles_repro.report.comparison import comparison_sheet
    from miles_repro.report.provenance import Origin

    console = console or Console()
    for found in studies(records, eps):
        if not found.cells:
            values = ", ".join(sorted({value for run in found.records for value in run["pinned"]}))
            console.print(
                f"{found.dataset}, budget {found.budget}: every run has a searched value set by "
                f"hand ({values}), so none takes part in a comparison",
                markup=False,
                highlight=False,
            )
            continue
        sheet = comparison_sheet(found, Origin(command, commit))
        for table in sheet.tables:
            table.notes += sheet.notes
            console.print(table.rich())


def stand_ins(records: Iterable[Record]) -> frozenset[str]:
    """Data sets that bear a name of the paper but hold other data: no paper values there."""
    return frozenset(r["dataset"] for r in records if r.get("stand_in"))


def dynamics_runs(records: Iterable[Record]) -> list[Record]:
    """The runs whose metrics.jsonl `write_all` wants in `dynamics`: the page shows the epochs of
    every cell over its decision seeds."""
    from miles_repro.report.figures import shown_runs

    found = studies(records)
    decided = [run for one in found for cell in one.cells.values() for run in cell.runs]
    return list({run["run_id"]: run for run in (*shown_runs(found), *decided)}.values())


def write_all(
    records: Iterable[Record],
    out_dir: Path,
    *,
    command: str,
    commit: str,
    eps: Mapping[str, float] = EPS,
    dynamics: Rows | None = None,
    runs_url: str | None = None,
) -> list[Path]:
    """Write <out_dir>/tables/*, figures/*, results.json and report.html; returns the paths.

    eps: what counts as equal, as ``verdicts.EPS``; dynamics: run id -> lines of metrics.jsonl, for
    the runs of `dynamics_runs`; runs_url: address of the W&B project that holds these runs.
    """
    from miles_repro.records import to_json
    from miles_repro.report.figures import pictures
    from miles_repro.report.page import page
    from miles_repro.report.provenance import Origin
    from miles_repro.report.table import write_text

    records = list(records)
    origin = Origin(command, commit, stand_ins(records))
    found = studies(records, eps)
    sheets = all_sheets(found, origin)
    paths = _write_sheets(sheets, out_dir)
    for picture in pictures(found, dynamics or {}, origin):
        paths += picture.write(out_dir / "figures")
    text = page(found, sheets, origin, dynamics or {}, runs_url)
    lines = {sheet.name: [line for t in sheet.tables for line in t.data] for sheet in sheets}
    paths.append(write_text(out_dir / "results.json", to_json({"made": origin.note(), **lines})))
    return [*paths, write_text(out_dir / "report.html", text)]


def write_tables(
    records: Iterable[Record],
    out_dir: Path,
    *,
    command: str,
    commit: str,
    eps: Mapping[str, float] = EPS,
) -> list[Path]:
    """As `write_all`, the tables only: no figure is drawn, no page written."""
    from miles_repro.report.provenance import Origin

    records = list(records)
    origin = Origin(command, commit, stand_ins(records))
    return _write_sheets(all_sheets(studies(records, eps), origin), out_dir)


def _write_sheets(sheets: Sequence[Sheet], out_dir: Path) -> list[Path]:
    return [path for sheet in sheets if sheet.tables for path in sheet.write(out_dir / "tables")]


def all_sheets(found: Sequence[Study], origin: Origin) -> list[Sheet]:
    """Every table of the report, in its order."""
    from miles_repro.report.ablations import ablation_sheet, unimodal_sheet
    from miles_repro.report.claims import claims_sheet
    from miles_repro.report.comparison import comparison_sheet, instruments_sheet, paper_sheet
    from miles_repro.report.contrasts import contrasts_sheet
    from miles_repro.report.ranks import ranks_sheet
    from miles_repro.report.robustness import robustness_sheet

    selected = [one for one in found if one.cells]  # others hold nothing but ablations
    fused = [one for one in found if one.fusions]  # others hold unimodal models at most
    return [
        claims_sheet(found, origin),
        *(comparison_sheet(one, origin) for one in selected),
        *(contrasts_sheet(one, origin) for one in fused),
        unimodal_sheet(found, origin),
        *(paper_sheet(number, found, origin) for number in (2, 3)),
        *(ablation_sheet(number, found, origin) for number in (4, 5, 6)),
        ranks_sheet(found, origin),
        *(instruments_sheet(one, origin) for one in selected),
        *(robustness_sheet(one, origin) for one in fused),
    ]
