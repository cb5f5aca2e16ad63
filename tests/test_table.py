"""The files of the report: every format, any width, nothing half-written."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pandas as pd
import pytest
from record_factory import ablation, epoch_rows, population, record

from miles_repro import report
from miles_repro.errors import UserError
from miles_repro.report.comparison import comparison_sheet
from miles_repro.report.provenance import Origin
from miles_repro.report.table import Table
from miles_repro.selection import studies


def test_every_sheet_in_three_formats_with_the_same_rows(tmp_path: Path) -> None:
    records = population(seeds=[1, 2]) + ablation("mu", [1.0, 0.5, 0.1], seeds=[1, 2])
    paths = report.write_tables(records, tmp_path, command="make tables", commit="abc1234")
    names = {path.stem for path in paths}
    assert {f"table{n}" for n in range(1, 7)} < names
    assert {
        "claims",
        "ranks",
        "comparison__smnist_mini__mini",
        "contrasts__smnist_mini__mini",
    } < names
    for name in names:
        latex = (tmp_path / "tables" / f"{name}.tex").read_text()
        markdown = (tmp_path / "tables" / f"{name}.md").read_text()
        assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == markdown.count("###")
        assert latex.count(r"\toprule") == latex.count(r"\bottomrule")
        assert r"\usepackage{booktabs}" in latex
        data = pd.read_csv(tmp_path / "tables" / f"{name}.csv")
        assert len(data)
    table2 = pd.read_csv(tmp_path / "tables" / "table2.csv")
    assert (table2[table2.n_seeds > 0].run_ids.str.split().str.len() == 2).all()


def test_latex_is_escaped_and_its_columns_add_up() -> None:
    table = Table("50 % of a_b & <c>", [("", "x"), ("g_1", "a"), ("g_1", "b")])
    table.rows.append({("", "x"): "p_q", ("g_1", "a"): "-1.0 ± 2", ("g_1", "b"): "5 %"})
    table.bold.add((0, ("g_1", "a")))
    text = table.latex("t")
    assert r"50 \% of a\_b \& $<$c$>$." in text
    assert r"p\_q & \textbf{$-$1.0 $\pm$ 2} & 5 \% \\" in text
    assert r"\multicolumn{2}{c}{g\_1}" in text
    assert r"\begin{tabular}{lrr}" in text


def test_html_is_escaped() -> None:
    table = Table("a < b", [("", "x")], rows=[{("", "x"): "<script>"}], notes=["`c` & d"])
    text = table.html()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "<code>c</code> &amp; d" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_print_comparison_loses_nothing_at_any_width(width: int) -> None:
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None)
    records = population()
    report.print_comparison(records, command="make demo", commit="abc1234", console=console)
    text = out.getvalue()
    means = [
        row["mean"] for row in comparison_sheet(studies(records)[0], Origin("", "")).tables[0].data
    ]
    for mean in filter(None, means):
        assert f"{mean:.1f}" in text
    assert "…" not in text
    assert "Made by make demo at commit abc1234." in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        assert re.search(
            r"MILES +concat +\d\d\.\d ± .*[+-]\d\.\d (undecided|equal|better|worse)", text
        )


def test_everything_from_nothing(tmp_path: Path) -> None:
    paths = report.write_all([], tmp_path, command="make tables", commit="abc1234")
    assert (tmp_path / "report.html") in paths
    assert "CREMA-D: not yet run" in (tmp_path / "tables" / "table2.md").read_text()
    assert "supported" not in (tmp_path / "tables" / "claims.csv").read_text()


def test_write_all_writes_tables_figures_page_and_one_json(tmp_path: Path) -> None:
    strategies = ["vanilla", "vanilla_aux", "miles", "unimodal_image"]
    records = population(strategies=strategies, fusions=["concat"])
    rows_of = {run["run_id"]: epoch_rows(run) for run in report.dynamics_runs(records)}
    paths = report.write_all(records, tmp_path, command="x", commit="y", dynamics=rows_of)
    names = {str(path.relative_to(tmp_path)) for path in paths}
    place = "smnist_mini__mini"
    stems = [f"{name}__{place}" for name in ("dynamics", "curves", "cost", "ranks")]
    figures = [
        *stems,
        *(f"contrasts__{place}__concat__{name}" for name in ("miles", "vanilla_aux")),
    ]
    assert {f"figures/{name}{end}" for name in figures for end in (".svg", ".png")} < names
    assert {"report.html", "results.json"} < names
    lines = json.loads((tmp_path / "results.json").read_text())
    for sheet in ("claims", "table2", f"comparison__{place}", "ranks"):
        assert len(lines[sheet]) == len(pd.read_csv(tmp_path / "tables" / f"{sheet}.csv"))


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot write"):
        report.write_tables([record(seed=1)], tmp_path, command="", commit="")


def test_tables_of_6000_records_in_under_ten_seconds(tmp_path: Path) -> None:
    records = population(
        ("cremad", "smnist", "luma", "mmimdb"), trials=48, seeds=range(1, 6), budget="paper"
    )
    assert len(records) > 6000
    # Processor time, so that other work on the machine does not count.
    started = time.process_time()
    report.write_tables(records, tmp_path, command="", commit="")
    assert time.process_time() - started < 10


def test_latex_splits_wide_tables_and_repeats_the_names() -> None:
    columns = [("", "strategy"), *[(f"group {g}", n) for g in range(6) for n in ("paper", "ours")]]
    table = Table("Wide", columns)
    table.rows.append(
        {column: "MILES" if not i else "97.0 ± 0.4" for i, column in enumerate(columns)}
    )
    text = table.latex("t")
    parts = text.split(r"\begin{tabular}")[1:]
    assert len(parts) > 1
    assert all("MILES &" in part for part in parts)
    assert "resizebox" not in text


def test_latex_sets_options_and_sizes_as_they_are() -> None:
    table = Table("run --budget mini", [("", "|x|")], rows=[{("", "|x|"): "1"}])
    assert r"run -{}-budget mini" in table.latex("t")
    assert r"\textbar{}x\textbar{}" in table.latex("t")


def test_latex_captions_are_short_and_commands_stand_beside() -> None:
    notes = ["what it is.", "more."]
    text = Table("T", [("", "x")], rows=[{("", "x"): "1"}], notes=notes).latex("t")
    assert r"\caption{T. what it is.}" in text
    assert "% more." in text


def test_stand_ins_are_called_so_in_headings_and_files(tmp_path: Path) -> None:
    records = population(("smnist",), ["miles", "vanilla"], stand_in=True)
    paths = report.write_tables(records, tmp_path, command="", commit="")
    own = [path for path in paths if "smnist" in path.name]
    assert own
    assert all("smnist-stand-in__mini" in path.name for path in own)
    for path in own:
        if path.suffix == ".md":
            assert "S-MNIST (stand-in), budget mini" in path.read_text()
