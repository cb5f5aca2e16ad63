"""Tables from records: exact text, honest cells, all formats."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from record_factory import ablation, epoch_rows, population, record
from scipy import stats as scipy_stats

from miles_repro import report
from miles_repro.errors import UserError
from miles_repro.report.ablations import ablation_sheet, curve
from miles_repro.report.comparison import comparison_sheet, paper_sheet
from miles_repro.report.provenance import Origin
from miles_repro.report.table import Sheet, Table
from miles_repro.selection import studies, study

GOLDEN = Path(__file__).parent / "golden" / "records"
EXPECTED = sorted(path.name for path in (GOLDEN / "expected").iterdir())
ORIGIN = Origin("make tables", "abc1234")


@pytest.fixture(scope="module")
def golden_records() -> list[dict[str, Any]]:
    return json.loads((GOLDEN / "records.json").read_text())


@pytest.fixture(scope="module")
def golden_tables(
    golden_records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    report.write_tables(golden_records, folder, command=ORIGIN.command, commit=ORIGIN.commit)
    return folder / "tables"


def rows(table: Table) -> dict[str, dict[str, str]]:
    """Cells of a table by column head, under the name in the first column."""
    heads = table.heads()
    return {cells[0]: dict(zip(heads, cells, strict=True)) for cells in table.cells()}


def part(sheet: Sheet, start: str) -> Table:
    (table,) = [table for table in sheet.tables if table.title.startswith(start)]
    return table


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_text(golden_tables: Path, name: str) -> None:
    made = (golden_tables / name).read_text(encoding="utf-8")
    if os.environ.get("MILES_WRITE_GOLDEN"):
        (GOLDEN / "expected" / name).write_text(made, encoding="utf-8")
    assert made == (GOLDEN / "expected" / name).read_text(encoding="utf-8")


def test_golden_cell_by_hand(golden_records: list[dict[str, Any]]) -> None:
    """The numbers behind one line of the golden table, without any code of the report."""
    runs = [
        r
        for r in golden_records
        if (r["dataset"], r["fusion"], r["strategy"]) == ("smnist_mini", "concat", "miles")
        and not r["pinned"]
        and r["config"]["strategy"]["source"] == "val"
    ]
    fused = 100 * np.array([r["test"]["fused"]["metric"] for r in runs])
    half = scipy_stats.t.ppf(0.975, len(fused) - 1) * scipy_stats.sem(fused)
    text = (GOLDEN / "expected" / "comparison_smnist_mini_mini.md").read_text()
    (line,) = [t for t in text.splitlines() if t.startswith("| MILES") and "| concat" in t]
    assert line.split("|")[3].strip() == f"{fused.mean():.1f} ± {half:.1f}"


def test_the_golden_search_reports_the_trial_chosen_by_validation(
    golden_records: list[dict[str, Any]],
) -> None:
    frame = report.comparison_table(golden_records, "smnist_mini", "mini")
    ogm = frame[(frame.strategy == "ogm") & (frame.quantity == "fused")].iloc[0]
    best_on_test = max(
        100 * r["test"]["fused"]["metric"] for r in golden_records if r["strategy"] == "ogm"
    )
    assert (ogm.trial, ogm.n_trials, ogm.n_seeds) == (1, 3, 2)
    assert ogm["mean"] == pytest.approx(96.3)
    assert best_on_test == pytest.approx(96.9)


def test_comparison_table_is_numeric_and_traces_to_runs() -> None:
    records = population(strategies=["vanilla", "miles", "unimodal_image"])
    frame = report.comparison_table(records, "smnist_mini", "mini")
    assert set(frame.quantity) == {"fused", "strong", "weak", "gap"}
    miles = frame[(frame.strategy == "miles") & (frame.fusion == "sum")]
    fused = miles[miles.quantity == "fused"].iloc[0]
    own = [r for r in records if (r["strategy"], r["fusion"]) == ("miles", "sum")]
    expected = [100 * r["test"]["fused"]["metric"] for r in own]
    low, high = scipy_stats.t.interval(0.95, 2, np.mean(expected), scipy_stats.sem(expected))
    assert fused[["mean", "ci_low", "ci_high"]].tolist() == pytest.approx(
        [np.mean(expected), low, high], abs=1e-4
    )
    assert fused.run_ids.split() == [r["run_id"] for r in own]
    assert fused.command == "python train.py dataset=smnist_mini fusion=sum strategy=miles"
    assert fused.wall_s == pytest.approx(sum(r["cost"]["wall_s"] for r in own))
    alone = frame[frame.strategy == "unimodal_image"].set_index("quantity")["mean"]
    assert alone.notna().to_dict() == {"fused": False, "strong": True, "weak": False, "gap": False}


def test_comparison_table_of_nothing_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="no finished run of dataset=luma budget=paper"):
        report.comparison_table(population(seeds=[0]), "luma", "paper")


def test_one_seed_has_no_interval() -> None:
    sheet = comparison_sheet(studies([record(), record("vanilla")])[0], ORIGIN)
    cells = rows(sheet.tables[0])["MILES"]
    assert re.fullmatch(r"\d\d\.\d \(no CI\)", cells["fused"])
    assert cells["n"] == "1"
    assert not sheet.tables[0].bold


def test_paper_value_inside_outside_and_without_interval() -> None:
    def miles(*fused: float, fusion: str = "concat") -> list[dict[str, Any]]:
        return [
            record(
                dataset="smnist",
                budget="paper",
                fusion=fusion,
                seed=seed,
                noise=0,
                level=(value, 0.9, 0.8),
            )
            for seed, value in enumerate(fused)
        ]

    def checked(records: list[dict[str, Any]], number: int = 2) -> str:
        table = part(paper_sheet(number, studies(records), ORIGIN), "S-MNIST")
        return rows(table)["MILES"]["fused: in CI"]

    assert checked(miles(0.999, 0.996, 0.998)) == "inside"  # the paper prints 99.8
    assert checked(miles(0.971, 0.972, 0.970)) == "outside"
    assert checked(miles(0.998)) == "no CI"
    assert checked(miles(0.998), number=3) == "–"
    assert checked(miles(0.999, 0.996, 0.998, fusion="sum"), number=3) == "inside"


def test_what_has_not_run_says_so_beside_the_papers_value() -> None:
    table = part(paper_sheet(2, studies([record()]), ORIGIN), "LUMA")
    cells = rows(table)["MILES"]
    assert table.title == "LUMA: not yet run"
    assert cells["gap: paper"] == "+20.0†"
    assert {cells[f"{m}: ours"] for m in ("fused", "strong head", "gap")} == {"not yet run"}
    assert cells["n"] == "–"


def test_other_data_has_no_paper_column() -> None:
    sheet = paper_sheet(2, studies(population(seeds=[0, 1])), ORIGIN)
    table = part(sheet, "smnist_mini")
    assert "no paper value" in table.title
    assert not [head for head in table.heads() if "paper" in head or "CI" in head]
    assert [head for head in part(sheet, "LUMA").heads() if "paper" in head]


def test_a_stand_in_under_a_paper_name_has_no_paper_column() -> None:
    found = studies(population(("smnist",), seeds=[0, 1]))
    origin = Origin("", "", frozenset({"smnist"}))
    for sheet in (paper_sheet(2, found, origin), ablation_sheet(4, found, origin)):
        for table in sheet.tables:
            if table.title.startswith("S-MNIST"):
                assert "no paper value" in table.title
                assert not [head for head in table.heads() if "paper" in head]
    assert "S-MNIST" in " ".join(table.title for table in paper_sheet(2, found, origin).tables)


def levels(strategy: str, *fused: float, **same: Any) -> list[dict[str, Any]]:
    return [
        record(strategy, seed=seed, noise=0, level=(value, 0.9, 0.8), **same)
        for seed, value in enumerate(fused)
    ]


@pytest.mark.parametrize(
    "miles, vanilla, bold",
    [
        ((0.97, 0.98, 0.975), (0.90, 0.915, 0.905), True),
        ((0.97, 0.98, 0.90), (0.90, 0.88, 0.97), False),
        ((0.97,), (0.50,), False),
    ],
)
def test_bold_only_where_the_best_is_separated(
    miles: tuple[float, ...], vanilla: tuple[float, ...], bold: bool
) -> None:
    records = levels("miles", *miles) + levels("vanilla", *vanilla)
    table = comparison_sheet(studies(records)[0], ORIGIN).tables[0]
    column = ("", "fused")
    marked = {table.rows[i]["", "strategy"] for i, c in table.bold if c == column}
    assert marked == ({"MILES"} if bold else set())
    text = table.markdown()
    assert ("**97.5" in text) == bold


def test_a_best_mean_from_other_seeds_is_not_a_better_method() -> None:
    miles = levels("miles", 0.900, 0.902, 0.901, 0.99, 0.99, 0.99)
    vanilla = levels("vanilla", 0.910, 0.9121, 0.9112)  # better on every shared seed
    table = comparison_sheet(studies(miles + vanilla)[0], ORIGIN).tables[0]
    assert ("", "fused") not in {column for _, column in table.bold}


def test_gaps_compare_by_size() -> None:
    near = [record("miles", seed=s, noise=1e-4, level=(0.9, 0.80, 0.81)) for s in range(3)]
    far = [record("vanilla", seed=s, noise=1e-4, level=(0.9, 0.60, 0.81)) for s in range(3)]
    table = comparison_sheet(studies(near + far)[0], ORIGIN).tables[0]
    marked = {table.rows[i]["", "strategy"] for i, column in table.bold if column[1] == "gap"}
    assert marked == {"MILES"}


def test_captions_name_command_commit_seeds_and_what_was_left_out() -> None:
    stranger = record(seed=9)
    stranger["config"]["epochs"] = 1
    records = [*population(strategies=["miles", "vanilla"]), stranger]
    text = comparison_sheet(studies(records)[0], ORIGIN).tables[0].markdown()
    assert "Made by `make tables` at commit abc1234." in text
    assert "12 runs, seeds 0, 1, 2; code at commit abc1234" in text
    assert "Left out: 1 run (other data, split, encoders or recipe)." in text


def test_curve_joins_runs_that_differ_in_tau_alone() -> None:
    records = [
        *ablation("tau", [0.0, 0.2, 0.5]),
        record(trial=0, strategy_values={"tau": 0.3}),  # ordinary, same otherwise: belongs
        record(trial=4, seed=7, strategy_values={"tau": 0.3}, lr=0.0005),  # another rate: does not
        record(strategy_values={"tau": 0.1, "mu": 0.1}),
        *[
            record(seed=seed, strategy_values={"tau": tau, "source": "train"})
            for seed in range(4)
            for tau in (0.0, 0.1, 0.2, 0.3, 0.5)
        ],
    ]
    found = curve(study(records, "smnist_mini", "mini"), "concat", "tau")
    assert found is not None
    assert {name: len(cell.runs) for name, cell in found.cells.items()} == {
        "0.0": 3,
        "0.2": 3,
        "0.3": 1,
        "0.5": 3,
    }
    assert found.fixed == "mu 0.5, lr 0.001"
    assert curve(study([record()], "smnist_mini", "mini"), "concat", "tau") is None


def test_table_4_shows_every_setting_in_order() -> None:
    found = studies(ablation("tau", [0.0, 0.05, 0.5]))
    table = part(ablation_sheet(4, found, ORIGIN), "smnist_mini, budget mini, accuracy, concat")
    assert list(rows(table)) == ["0.5", "0.3", "0.2", "0.1", "0.05", "0.0"]
    assert rows(table)["0.2"]["fused"] == "not yet run"


def test_table_6_compares_sources_and_their_best_epochs() -> None:
    records = population(strategies=["miles"]) + [
        record(seed=seed, strategy_values={"source": "train"}, pinned=["strategy.source"])
        for seed in range(3)
    ]
    table = part(ablation_sheet(6, studies(records), ORIGIN), "smnist_mini, budget mini, accuracy")
    assert list(rows(table)) == ["train", "val"]
    assert rows(table)["train"]["n"] == "3"
    assert "best epoch" in table.heads()


def test_every_sheet_in_three_formats_with_the_same_rows(tmp_path: Path) -> None:
    records = population(seeds=[0, 1]) + ablation("mu", [1.0, 0.5, 0.1], seeds=[0, 1])
    paths = report.write_tables(records, tmp_path, command="make tables", commit="abc1234")
    names = {path.stem for path in paths}
    assert {f"table{n}" for n in range(1, 7)} < names
    assert {"claims", "ranks", "comparison_smnist_mini_mini", "tests_smnist_mini_mini"} < names
    for name in names:
        latex = (tmp_path / "tables" / f"{name}.tex").read_text()
        markdown = (tmp_path / "tables" / f"{name}.md").read_text()
        assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == markdown.count("###")
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
    frame = report.comparison_table(records, "smnist_mini", "mini")
    for mean in frame["mean"].dropna():
        assert f"{mean:.1f}" in text
    assert "…" not in text
    assert "Made by make demo at commit abc1234." in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        assert re.search(r"MILES +concat +\d\d\.\d ± \d", text)


def test_effects_separate_losses_from_scheduling(tmp_path: Path) -> None:
    report.write_tables(population(), tmp_path, command="", commit="")
    with (tmp_path / "tables" / "effects_smnist_mini_mini.csv").open() as file:
        found = {
            (row["strategy"], row["rival"], row["fusion"], row["quantity"]): row
            for row in csv.DictReader(file)
        }
    losses = found["vanilla_aux", "vanilla", "both", "weak"]
    scheduling = found["miles", "vanilla_aux", "both", "weak"]
    assert float(losses["difference"]) == pytest.approx(8.4, abs=0.5)
    assert float(losses["p_holm"]) < 0.05
    assert float(scheduling["difference"]) == pytest.approx(0.2, abs=0.5)
    assert float(scheduling["p_holm"]) > 0.05
    assert {key[:2] for key in found} >= {("miles", "static_lr"), ("miles", "random_lr")}
    assert losses["n"] == "3"


def test_everything_from_nothing(tmp_path: Path) -> None:
    paths = report.write_all([], tmp_path, command="make tables", commit="abc1234")
    assert (tmp_path / "report.html") in paths
    assert "CREMA-D: not yet run" in (tmp_path / "tables" / "table2.md").read_text()
    assert "supported" not in (tmp_path / "tables" / "claims.csv").read_text()


def test_write_all_is_self_contained(tmp_path: Path) -> None:
    strategies = ["vanilla", "vanilla_aux", "miles", "unimodal_image"]
    records = population(strategies=strategies, fusions=["concat"], seeds=[0, 1])
    rows_of = {run["run_id"]: epoch_rows(run) for run in report.dynamics_runs(records)}
    paths = report.write_all(records, tmp_path, command="x", commit="y", dynamics=rows_of)
    names = {str(path.relative_to(tmp_path)) for path in paths}
    place = "smnist_mini_mini"
    figures = ("dynamics", "curves", "gap", "cost", "ranks")
    assert {f"figures/{name}_{place}{end}" for name in figures for end in (".svg", ".png")} < names
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    # Nothing to fetch and nothing to run: only embedded pictures and links within the page.
    assert not re.findall(r"<script|<link|@import|url\(|(?:src|href)=\"(?!data:image|#)", page)
    assert page.count("<img") == len(figures)
    for sheet in ("claims", "table2", f"comparison_{place}", "ranks"):
        assert f'<section id="{sheet}">' in page
        assert f'href="#{sheet}"' in page


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot write"):
        report.write_tables([record()], tmp_path, command="", commit="")


def test_tables_of_6000_records_in_under_ten_seconds(tmp_path: Path) -> None:
    records = population(
        ("cremad", "smnist", "luma", "mmimdb"), trials=48, seeds=range(5), budget="paper"
    )
    assert len(records) > 6000
    # Processor time, so that other work on the machine does not count.
    started = time.process_time()
    report.write_tables(records, tmp_path, command="", commit="")
    assert time.process_time() - started < 10
