"""Reports of records that lack something, repeat something or name two things alike."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from record_factory import epoch_rows, population, record

from miles_repro import report
from miles_repro.plots import comparison
from miles_repro.records import parse_summary
from miles_repro.report import ablations, checks, figures, provenance
from miles_repro.report.claims import CLAIMS
from miles_repro.report.comparison import comparison_sheet
from miles_repro.report.measures import values
from miles_repro.report.page.boards import row
from miles_repro.report.provenance import Origin
from miles_repro.report.table import Table
from miles_repro.selection import Study, studies

ORIGIN = Origin("make tables", "abc", frozenset())
NAMES = ("vanilla", "vanilla_aux", "ogm", "miles")


def runs(*names: str, seeds: range = range(1, 6), **changes: Any) -> list[dict[str, Any]]:
    return [record(name, seed=k, **changes) for name in names or NAMES for k in seeds]


def study(records: list[dict[str, Any]]) -> Study:
    (found,) = studies(records)
    return found


ASKED: dict[str, Any] = {"parameter": "tau", "peak": "0.2", "edges": ("0.0", "0.5")}


def along_tau(taus: tuple[float, ...], mu: float) -> list[dict[str, Any]]:
    pinned = ["strategy.tau", "strategy.mu"]
    return [
        record("miles", seed=k, pinned=pinned, strategy_values={"tau": tau, "mu": mu})
        for tau in taus
        for k in range(1, 6)
    ]


@pytest.mark.parametrize("old_first", [True, False])
def test_a_seed_with_two_teachers_counts_once(old_first: bool) -> None:
    new = runs("ume", "vanilla_aux", level=(0.97, 0.9, 0.8))
    old = runs("ume", level=(0.5, 0.5, 0.5), lr=0.001)
    for run in old:
        run["run_id"] = f"old{run['run_id'][:9]}"
        run["config"] = {**run["config"], "teachers": {"image": "deadbeef"}}
        run["finished"] = "2020-01-01T00:00:00Z"
    one = study(old + new if old_first else new + old)
    cell = one.cells["concat", "ume"]
    assert len(cell.runs) == 5
    assert min(values(one, cell, "fused").values()) > 90
    assert Counter(one.left_out.values()) == {"other configuration of the same trial": 5}


def test_a_curve_that_has_the_settings_is_preferred_to_a_longer_one() -> None:
    longer = along_tau((0.1, 0.3, 0.4, 0.6), mu=0.25)
    whole = along_tau((0.0, 0.2, 0.5), mu=0.5)
    found = checks.sensitivity(study(longer + whole), "concat", **ASKED)
    assert not found.missing
    assert "mu 0.5" in found.numbers


def test_one_of_two_equally_long_curves_may_lack_a_setting() -> None:
    """Neither has what the claim asks for: it is not run, and nothing breaks."""
    one = study(along_tau((0.0, 0.2, 0.4), mu=0.25) + along_tau((0.1, 0.3, 0.5), mu=0.5))
    found = checks.sensitivity(one, "concat", **ASKED)
    assert found.verdict == checks.UNRUN
    assert found.missing


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": {}, "strategy_values": {"tau": [1, 2], "mu": None}},
        {"environment": {"commit": 7}, "strategy_values": {"tau": "x", "mu": {}}},
        {"strategy_values": {"tau": 10**400}},
    ],
)
def test_what_a_foreign_record_may_hold_breaks_no_report(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    odd = [parse_summary(json.dumps(run)) for run in runs("miles", **changes)]
    records = [*odd, *runs("vanilla"), *along_tau((0.0, 0.2, 0.5), 0.5)]
    rows = {run["run_id"]: epoch_rows(run, 2) for run in report.dynamics_runs(records)}
    assert report.write_all(records, tmp_path, command="x", commit="y", dynamics=rows)


def test_a_search_alone_is_no_evidence() -> None:
    one = study(population(seeds=(0,)))
    for claim in CLAIMS:
        assert claim.check(one, "concat").verdict == checks.UNRUN, claim.name


def test_a_row_that_a_panel_lacks_leaves_the_others_in_their_places() -> None:
    records = runs()
    for run in records:
        if run["strategy"] == "ogm":
            run["test"]["fused"]["metric"] = None
    (picture,) = [p for p in figures._forests(study(records)) if p.name.endswith("vanilla_aux")]
    axes = picture.figure.axes
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert sorted(names) == ["MILES", "OGM", "Vanilla"]
    at = names.index("OGM")
    dots = [[line for line in ax.lines if line.get_marker() not in ("None", "")] for ax in axes]
    marks = [{float(y) for line in found for y in line.get_ydata()} for found in dots]
    assert at not in marks[0]
    assert all(at in found for found in marks[1:])


def test_the_bar_is_the_median() -> None:
    figure = comparison.dots({"x": {"a": [1.0, 3.0]}}, title="t", xlabel="s")
    bars = [line for line in figure.axes[0].lines if line.get_marker() == "None"]
    assert list(bars[0].get_xdata()) == [2.0, 2.0]


def test_epochs_without_what_is_drawn_are_left_out() -> None:
    one = study(runs())
    rows = {run["run_id"]: [{"epoch": 1}] for run in one.records}
    assert figures._dynamics(one, rows) == []
    scores = {"fused": {"metric": 0.5, "loss": 1.0}}
    whole = [{"epoch": k, "val": scores, "lr": {"fusion": 0.1}} for k in (2, 3)]
    rows = {
        run["run_id"]: [{"epoch": 1}, *whole, {**whole[0], "lr": {"fusion": None}}]
        for run in one.records
    }
    assert len(figures._dynamics(one, rows)) == 2


def test_two_strategies_of_one_label_stay_two() -> None:
    records = runs()
    for run in records:
        if run["strategy"] == "ogm":
            run["label"] = "MILES"
    labels = {label for _, label in study(records).names.values()}
    assert {"MILES (miles)", "MILES (ogm)", "Vanilla"} < labels


def test_a_mean_cost_is_that_of_the_runs_that_measured_it() -> None:
    records = runs()
    for run in records:
        lost = run["seed"] > 2
        run["cost"] = dict.fromkeys(run["cost"], None if lost else 10.0)
    one = study(records)
    lines: dict[tuple[str, ...], Any] = {
        ("concat", "miles", "fused"): {
            "n_seeds": 5, "n_trials": 1, "mean": 1.0, "ci_low": None, "ci_high": None
        }
    }  # fmt: skip
    assert row(one, ("concat", "miles"), lines, {}, "cpu_s")["cost"] == 10.0
    assert "CPU (of 8 runs)" in provenance.cost_text(one.records)


def test_the_exemption_is_told_where_it_was_made() -> None:
    def notes(*names: str) -> str:
        return " ".join(comparison_sheet(study(runs(*names)), ORIGIN).tables[0].notes)

    assert "MILES - its losses alone by itself" in notes(*NAMES)
    assert "verdict: Holm over the fusion; equal" in notes("vanilla", "ogm", "miles")


def test_one_modality_has_no_weak_side() -> None:
    records = runs("unimodal_image", modalities=("image",), level=(0.9, 0.9), dataset="mine")
    sheet = ablations.unimodal_sheet([study(records)], ORIGIN)
    names = [line[("", "model")] for table in sheet.tables for line in table.rows]
    assert "image" in names


@pytest.mark.parametrize("columns", [2, 3, 6, 9, 12])
def test_columns_of_prose_have_a_width(columns: int) -> None:
    names = [("", str(i)) for i in range(columns)]
    table = Table("t", names, [dict.fromkeys(names, "x")], prose=True)
    widths = [float(w) for w in table.latex("t").split("p{")[1:] for w in [w.split("\\")[0]]]
    assert len(widths) == columns
    assert min(widths) > 0
    assert sum(widths) <= 1


def test_whole_numbers_stay_whole_beside_gaps(tmp_path: Path) -> None:
    report.write_tables(runs(), tmp_path, command="c", commit="d")
    (path,) = tmp_path.rglob("comparison__*.csv")
    with path.with_name("table2.csv").open(newline="") as file:
        trials = {line["trial"] for line in csv.DictReader(file)}
    assert trials == {"", "0"}
