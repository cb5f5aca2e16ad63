"""What the report adds to the paper's tables: contrasts, three modalities, what must be named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from record_factory import population, record

from miles_repro.report.ablations import unimodal_sheet
from miles_repro.report.claims import claims_sheet, judge
from miles_repro.report.comparison import comparison_sheet
from miles_repro.report.contrasts import contrasts, contrasts_sheet, families
from miles_repro.report.names import strategy_label
from miles_repro.report.provenance import Origin, cell_data
from miles_repro.report.robustness import robustness_sheet
from miles_repro.selection import studies

ORIGIN = Origin("make tables", "abc1234")


def contrast_rows(records: list[dict[str, Any]], fusion: str = "concat") -> dict[Any, Any]:
    sheet = contrasts_sheet(studies(records)[0], ORIGIN)
    rows_of = [row for table in sheet.tables for row in table.data if row["fusion"] == fusion]
    return {(row["strategy"], row["rival"], row["quantity"]): row for row in rows_of}


@pytest.mark.parametrize(
    ("commands", "told"),
    [
        (
            ["python train.py seed=1 x=2", "python train.py seed=3 x=2"],
            "python train.py -m seed=1,3 x=2",
        ),
        (["miles-train -m seed=1,2", "miles-train -m seed=1,2"], "miles-train -m seed=1,2"),
        (["a seed=1", "b seed=1"], "a seed=1 && b seed=1"),
        (["train.py strategy=x"], "train.py strategy=x"),
    ],
)
def test_a_cells_runs_are_told_as_one_command(commands: list[str], told: str) -> None:
    runs = [record(seed=k) | {"command": text} for k, text in enumerate(commands)]
    (cell,) = studies(runs)[0].cells.values()
    assert cell_data(replace(cell, runs=tuple(runs)))["command"] == told


def test_contrasts_separate_losses_from_scheduling() -> None:
    found = contrast_rows(population(seeds=range(1, 9)))
    losses = found["vanilla", "vanilla_aux", "audio"]
    scheduling = found["miles", "vanilla_aux", "audio"]
    assert losses["difference"] == pytest.approx(-8.4, abs=0.5)
    assert (losses["verdict"], losses["n"]) == ("worse", 8)
    assert scheduling["difference"] == pytest.approx(0.2, abs=0.5)
    assert scheduling["verdict"] == "equal"
    assert found["miles", "static_lr", "fused"]["p_holm"] <= 1


def test_what_counts_as_equal_is_asked_for() -> None:
    """The same records by two margins: words, notes and claims follow."""
    runs = population(seeds=range(1, 9))
    words, notes = {}, {}
    for eps in (0.01, 1.0):
        (found,) = studies(runs, {"fused": eps, "heads": 30.0})
        pair = ("miles", "vanilla_aux")
        words[eps] = contrasts(found, "concat", "fused", [pair])[pair].word
        notes[eps] = " ".join(comparison_sheet(found, ORIGIN).tables[0].notes)
        pair = ("vanilla", "vanilla_aux")
        assert contrasts(found, "concat", "audio", [pair])[pair].word == "worse"  # and within 30
    assert words == {0.01: "undecided", 1.0: "equal"}
    assert "equal: within ±0.01." in notes[0.01]
    assert "equal: within ±1." in notes[1.0]
    assert any("> -30 points" in n for t in claims_sheet([found], ORIGIN).tables for n in t.notes)


def test_a_smaller_gap_is_the_better_one() -> None:
    near = [record("miles", seed=s, noise=1e-4, level=(0.9, 0.80, 0.81)) for s in range(1, 6)]
    far = [record("vanilla", seed=s, noise=1e-4, level=(0.9, 0.60, 0.81)) for s in range(1, 6)]
    row = contrast_rows(near + far)["miles", "vanilla", "abs_gap"]
    assert (row["verdict"], round(row["difference"])) == ("better", -20)


def test_one_comparison_has_one_number_everywhere() -> None:
    records = population(seeds=range(1, 9))
    found = contrast_rows(records)
    (claim,) = [j for j in judge(studies(records)) if j.claim.name == "auxiliary_losses"]
    row = found["vanilla", "vanilla_aux", "audio"]  # the claim is about the other sign
    shown = f"{-row['difference']:+.1f} [{-row['ci_high']:+.1f}, {-row['ci_low']:+.1f}]"
    assert shown in claim.findings["concat"].numbers


def test_three_modalities_have_a_column_each_and_their_largest_gap() -> None:
    same: dict[str, Any] = {"modalities": ["a", "b", "c"], "strong": None, "weak": None, "noise": 0}
    records = [
        record(name, dataset="own", seed=seed, level=(0.9, 0.5, 0.7, 0.6), **same)
        for name in ("miles", "vanilla")
        for seed in (1, 2, 3)
    ]
    one = studies(records)[0]
    table = comparison_sheet(one, ORIGIN).tables[0]
    assert table.heads()[3:6] == ["fused", "gain", "verdict"]
    assert table.heads()[6:10] == ["b (probe)", "c (probe)", "a (probe)", "gap (probe)"]
    assert table.rows[0]["", "gap (probe)"] == "+20.0 (no CI)"
    missing = robustness_sheet(one, ORIGIN).tables[0].heads()
    assert "without: a" in missing
    assert "without: a, b" in missing
    assert [row["", "model"] for row in unimodal_sheet([one], ORIGIN).tables[-1].rows] == [
        "b (strong)",
        "c",
        "a (weak)",
    ]


def test_other_machines_and_diverged_runs_are_named() -> None:
    records = population(strategies=["miles", "vanilla"], fusions=["concat"])
    records[0]["environment"]["threads"] = 2
    records[1]["status"] = "diverged"
    sheet = comparison_sheet(studies(records)[0], ORIGIN)
    notes = " ".join(sheet.notes)
    assert "Mixed machines: 9 runs on cpu with 1 threads, 1 run on cpu with 2 threads" in notes
    assert f"Diverged, counted with the rest: 1 run ({records[1]['run_id']})" in notes
    assert {row["", "n"] for row in sheet.tables[0].rows} == {"5", "5 (1 diverged)"}


def test_a_search_seed_alone_is_no_result() -> None:
    sheet = comparison_sheet(studies([record(seed=0), record("vanilla", seed=1)])[0], ORIGIN)
    cells = {row["", "strategy"]: row for row in sheet.tables[0].rows}
    assert cells["MILES"]["", "fused"] == "search only"
    assert cells["MILES"]["", "n"] == "0"


def test_the_comparison_says_what_the_contrasts_say_of_each_strategy() -> None:
    """Gain and verdict of a row are those of the family against the reference, fusion by fusion."""
    (one,) = studies(
        population(fusions=["concat"], seeds=range(1, 9))
        + population(strategies=["vanilla", "miles"], fusions=["sum"], seeds=range(1, 9))
    )
    table = comparison_sheet(one, ORIGIN).tables[0]
    shown = {
        (row["", "fusion"], row["", "strategy"]): (row.get(("", "gain")), row.get(("", "verdict")))
        for row in table.rows
    }
    seen = set()
    for fusion, reference in (("concat", "vanilla_aux"), ("sum", "vanilla")):
        assert shown.pop((fusion, strategy_label(one, reference))) == (None, "reference")
        pairs = families(one, fusion)[reference]
        for (name, _), v in contrasts(one, fusion, "fused", pairs).items():
            gain, word = shown.pop((fusion, strategy_label(one, name)))
            assert (gain, word) == (f"{v.mean:+.1f}", v.word)
            seen.add(word)
    assert len(seen) > 1
    assert set(shown.values()) == {(None, None)}  # unimodal models


def test_one_strategy_alone_has_no_verdict() -> None:
    (one,) = studies([record("miles", seed=seed) for seed in (1, 2)])
    sheet = comparison_sheet(one, ORIGIN)
    assert ("", "verdict") not in sheet.tables[0].columns
    assert not any("verdict" in note for note in sheet.tables[0].notes)
