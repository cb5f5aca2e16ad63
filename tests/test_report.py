"""Tables from records: exact text, honest cells, all formats."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from record_factory import ablation, population, record
from scipy import stats as scipy_stats

from miles_repro import report
from miles_repro.report.ablations import ablation_sheet, curves
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
    lead = heads.index("strategy") if "strategy" in heads else 0
    return {cells[lead]: dict(zip(heads, cells, strict=True)) for cells in table.cells()}


def numbers(records: list[dict[str, Any]]) -> pd.DataFrame:
    """What comparison.csv says: one row per (fusion, strategy, quantity)."""
    found = study(records, "smnist_mini", "mini")
    assert found
    return pd.DataFrame(comparison_sheet(found, ORIGIN).tables[0].data)


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
        and r["seed"] != 0
        and not r["pinned"]
        and r["config"]["strategy"]["source"] == "val"
    ]
    fused = 100 * np.array([r["test"]["fused"]["metric"] for r in runs])
    half = scipy_stats.t.ppf(0.975, len(fused) - 1) * scipy_stats.sem(fused)
    text = (GOLDEN / "expected" / "comparison__smnist_mini__mini.md").read_text()
    (line,) = [t for t in text.splitlines() if "| MILES" in t and "| concat" in t]
    assert line.split("|")[4].strip() == f"{fused.mean():.1f} ± {half:.1f}"


def test_the_golden_search_reports_the_trial_chosen_by_validation(
    golden_records: list[dict[str, Any]],
) -> None:
    frame = numbers(golden_records)
    ogm = frame[(frame.strategy == "ogm") & (frame.quantity == "fused")].iloc[0]
    best_on_test = max(
        100 * r["test"]["fused"]["metric"] for r in golden_records if r["strategy"] == "ogm"
    )
    assert (ogm.trial, ogm.n_trials, ogm.n_seeds) == (1, 3, 5)
    assert ogm["mean"] == pytest.approx(96.36)  # seeds 1 to 5, not the search seed
    assert best_on_test == pytest.approx(96.9)


def test_a_comparison_is_numeric_and_traces_to_runs() -> None:
    records = population(strategies=["vanilla", "miles", "unimodal_image"])
    frame = numbers(records)
    assert set(frame.quantity) == {"fused", "image", "audio", "gap"}
    miles = frame[(frame.strategy == "miles") & (frame.fusion == "sum")]
    fused = miles[miles.quantity == "fused"].iloc[0]
    own = [r for r in records if (r["strategy"], r["fusion"]) == ("miles", "sum")]
    expected = [100 * r["test"]["fused"]["metric"] for r in own]
    low, high = scipy_stats.t.interval(0.95, 4, np.mean(expected), scipy_stats.sem(expected))
    assert fused[["mean", "ci_low", "ci_high"]].tolist() == pytest.approx(
        [np.mean(expected), low, high], abs=1e-4
    )
    assert fused.run_ids.split() == [r["run_id"] for r in own]
    assert fused.command == "python train.py dataset=smnist_mini fusion=sum strategy=miles"
    assert fused.wall_s == pytest.approx(sum(r["cost"]["wall_s"] for r in own))
    alone = frame[frame.strategy == "unimodal_image"].set_index("quantity")["mean"]
    assert alone.notna().to_dict() == {"fused": False, "image": True, "audio": False, "gap": False}


def test_one_seed_has_no_interval() -> None:
    sheet = comparison_sheet(studies([record(seed=1), record("vanilla", seed=1)])[0], ORIGIN)
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
            for seed, value in enumerate(fused, start=1)
        ]

    def checked(records: list[dict[str, Any]], number: int = 2) -> str:
        table = part(paper_sheet(number, studies(records), ORIGIN), "S-MNIST")
        return rows(table)["MILES"]["fused: in PI"]

    assert checked(miles(0.999, 0.996, 0.998)) == "inside"  # the paper prints 99.8
    # Mean 99.3, sd 0.1, n 3: one run reaches 99.3 + 0.50, the largest of 80 may go beyond.
    assert checked(miles(0.992, 0.993, 0.994)) == "luckiest"
    assert checked(miles(0.971, 0.972, 0.970, 0.971, 0.972)) == "outside"
    assert checked(miles(0.998, 0.997)) == "no PI"
    assert checked(miles(0.998), number=3) == "–"
    assert checked(miles(0.999, 0.996, 0.998, fusion="sum"), number=3) == "inside"


def test_what_has_not_run_says_so_beside_the_papers_value() -> None:
    table = part(paper_sheet(2, studies([record(seed=1)]), ORIGIN), "LUMA")
    cells = rows(table)["MILES"]
    assert table.title == "LUMA: not yet run"
    assert cells["gap: paper"] == "+20.0†"
    assert {cells[f"{m}: ours"] for m in ("fused", "strong", "gap")} == {"not yet run"}
    assert cells["n"] == "–"


def test_other_data_has_no_paper_column() -> None:
    sheet = paper_sheet(2, studies(population(seeds=[0, 1])), ORIGIN)
    table = part(sheet, "smnist_mini")
    assert "no paper value" in table.title
    assert not [head for head in table.heads() if "paper" in head or "PI" in head]
    assert [head for head in part(sheet, "LUMA").heads() if "paper" in head]


def test_a_stand_in_under_a_paper_name_has_no_paper_column() -> None:
    found = studies(population(("smnist",), seeds=[0, 1]))
    origin = Origin("", "", frozenset({"smnist"}))
    for sheet in (paper_sheet(2, found, origin), ablation_sheet(4, found, origin)):
        for table in sheet.tables:
            if table.title.startswith("S-MNIST"):
                assert not [head for head in table.heads() if "paper" in head]
    assert "S-MNIST" in " ".join(table.title for table in paper_sheet(2, found, origin).tables)


def levels(strategy: str, *fused: float, **same: Any) -> list[dict[str, Any]]:
    return [
        record(strategy, seed=seed, noise=0, level=(value, 0.9, 0.8), **same)
        for seed, value in enumerate(fused, start=1)
    ]


@pytest.mark.parametrize(
    "miles, vanilla, bold",
    [
        ((0.97, 0.98, 0.975, 0.974, 0.976), (0.90, 0.915, 0.905, 0.91, 0.902), True),
        ((0.97, 0.98, 0.90, 0.97, 0.98), (0.90, 0.88, 0.97, 0.90, 0.99), False),
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
    miles = levels("miles", 0.900, 0.902, 0.901, 0.900, 0.99, 0.99, 0.99)
    vanilla = levels("vanilla", 0.910, 0.9121, 0.9112, 0.9101)  # better on every shared seed
    table = comparison_sheet(studies(miles + vanilla)[0], ORIGIN).tables[0]
    assert ("", "fused") not in {column for _, column in table.bold}


def test_gaps_compare_by_size() -> None:
    near = [record("miles", seed=s, noise=1e-4, level=(0.9, 0.80, 0.81)) for s in range(1, 6)]
    far = [record("vanilla", seed=s, noise=1e-4, level=(0.9, 0.60, 0.81)) for s in range(1, 6)]
    table = comparison_sheet(studies(near + far)[0], ORIGIN).tables[0]
    marked = {table.rows[i]["", "strategy"] for i, column in table.bold if "gap" in column[1]}
    assert marked == {"MILES"}


def test_captions_name_command_commit_seeds_and_what_was_left_out() -> None:
    stranger = record(seed=9)
    stranger["config"]["epochs"] = 1
    records = [*population(strategies=["miles", "vanilla"]), stranger]
    sheet = comparison_sheet(studies(records)[0], ORIGIN)
    text = sheet.tables[0].markdown() + " ".join(sheet.notes)
    assert "Made by `make tables` at commit abc1234." in text
    assert "20 runs, seeds 1, 2, 3, 4, 5; code at commit abc1234" in text
    assert "Left out: 1 run (other data, split, encoders or recipe)." in text


def test_curve_joins_runs_that_differ_in_tau_alone() -> None:
    records = [
        *ablation("tau", [0.0, 0.2, 0.5]),
        record(trial=0, seed=1, strategy_values={"tau": 0.3}),  # ordinary, same otherwise: belongs
        record(trial=4, seed=7, strategy_values={"tau": 0.3}, lr=0.0005),  # another rate: does not
        record(strategy_values={"tau": 0.1, "mu": 0.1}),
        *[
            record(seed=seed, strategy_values={"tau": tau, "source": "train"})
            for seed in range(4)
            for tau in (0.0, 0.1, 0.2, 0.3, 0.5)
        ],
    ]
    found = curves(study(records, "smnist_mini", "mini"), "concat", "tau")
    assert [{name: len(cell.runs) for name, cell in one.cells.items()} for one in found] == [
        {"0.0": 5, "0.2": 5, "0.3": 1, "0.5": 5}
    ]
    assert (found[0].fixed, found[0].at_papers_value) == ("mu 0.5, lr 0.001", True)
    assert curves(study([record()], "smnist_mini", "mini"), "concat", "tau") == []


def test_an_ablation_at_another_value_is_a_table_of_its_own() -> None:
    records = [
        run
        for mu in (0.5, 0.1)
        for seed in (1, 2, 3)
        for tau in (0.0, 0.2, 0.5)
        for run in [record(seed=seed, strategy_values={"tau": tau, "mu": mu})]
    ]
    for run in records:
        run["pinned"] = ["strategy.tau"]
    tables = [t for t in ablation_sheet(4, studies(records), ORIGIN).tables if "mini" in t.title]
    assert sorted(table.notes[1].split(": ")[1] for table in tables) == [
        "mu 0.1, lr 0.001.",
        "mu 0.5, lr 0.001.",
    ]


def test_table_4_shows_every_setting_in_order() -> None:
    found = studies(ablation("tau", [0.0, 0.05, 0.5]))
    table = part(ablation_sheet(4, found, ORIGIN), "smnist_mini, budget mini, accuracy, concat")
    assert list(rows(table)) == ["0.5", "0.3", "0.2", "0.1", "0.05", "0.0"]
    assert rows(table)["0.2"]["fused"] == "not yet run"


def test_table_6_compares_sources_and_their_best_epochs() -> None:
    records = population(strategies=["miles"]) + [
        record(seed=seed, strategy_values={"source": "train"}, pinned=["strategy.source"])
        for seed in range(1, 4)
    ]
    table = part(ablation_sheet(6, studies(records), ORIGIN), "smnist_mini, budget mini, accuracy")
    assert list(rows(table)) == ["train", "val"]
    assert rows(table)["train"]["n"] == "3"
    assert "best epoch" in table.heads()
