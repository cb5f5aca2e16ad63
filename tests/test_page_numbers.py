"""Every number of the page's claims, paper tables and drawers is that of the CSV files."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest
from browser_kit import level, rows, signed
from devtools import Browser
from page_kit import Made

from miles_repro.report.claims import CLAIMS
from miles_repro.report.table import fixed, show_p

pytestmark = pytest.mark.slow
SECONDS = {"s": 1, "min": 60, "h": 3600}


def lines_of(made: Made, name: str) -> list[dict[str, Any]]:
    """A CSV file's lines in order; nothing for an empty field."""
    frame = pd.read_csv(made.folder / "tables" / f"{name}.csv", dtype={"setting": str})
    return [dict(one) for one in frame.astype(object).where(frame.notna(), None).to_dict("records")]


def test_claims_are_those_of_the_csv(browser: Browser, made: Made) -> None:
    browser.open(made.file, "view=answer")
    places = {(study["dataset"], study["budget"]): study["place"] for study in made.data["studies"]}
    expected: dict[str, list[list[str]]] = {claim.statement: [] for claim in CLAIMS}
    statements = {claim.name: claim.statement for claim in CLAIMS}
    for line in lines_of(made, "claims"):
        where = f"{places[line['dataset'], line['budget']]}, {line['fusion']}"
        expected[statements[line["claim"]]].append([where, line["verdict"], line["numbers"]])
    shown = browser.run(
        """[...document.querySelectorAll(".claims details")].filter(
          one => !one.querySelector("details")).map(one => [
            one.querySelector("summary").textContent,
            [...one.querySelectorAll("tbody tr")].map(row => [...row.children].map(
              cell => (cell.querySelector(".badge")?.lastChild || cell).textContent))])"""
    )
    assert len(shown) == len(CLAIMS)
    for title, found in shown:
        (statement,) = [text for text in expected if title.startswith(text)]
        assert found == expected.pop(statement)
    assert not expected


@pytest.mark.parametrize("number", [4, 5, 6])
def test_tables_of_ablations_are_those_of_the_csv(
    browser: Browser, made: Made, number: int
) -> None:
    browser.open(made.file, "view=answer")
    lines = lines_of(made, f"table{number}")
    measured = [line for line in lines if line["mean"] is not None]
    assert {line["fusion"] for line in measured} == {"concat", "sum"}
    for setting, *texts, n, trials in rows(browser, f"#table{number}"):
        while texts:
            paper, ours, inside, *texts = texts
            line = lines.pop(0)
            assert setting == line["setting"]
            printed = "–" if line["paper"] is None else fixed(line["paper"])
            assert paper.removesuffix("†") == printed
            assert ours == level(line, "not yet run")
            assert inside == (line["paper_in_pi"] or "–")
            counted = (str(line["n_seeds"]), str(line["n_trials"]))
            assert (n, trials) == (("–", "–") if line["mean"] is None else counted)
    assert not lines


def test_the_drawer_s_numbers_are_those_of_the_csv(browser: Browser, made: Made) -> None:
    seen = 0
    for study in made.data["studies"]:
        levels = made.csv(f"comparison__{study['key']}", "strategy", "fusion", "quantity")
        pairs = made.csv(f"contrasts__{study['key']}", "fusion", "quantity", "rival", "strategy")
        for board in study["boards"]:
            fusion, reference = board["fusion"], board["reference"]
            for row in [*board["rows"], *study["alone"]]:
                strategy = row["s"]
                place = "–" if strategy.startswith("unimodal_") else fusion
                line = levels[strategy, place, "fused"]
                check_facts(browser, made, study, fusion, line)
                found = {
                    measure: texts for measure, *texts in rows(browser, "#drawer h3 + .scroll")
                }
                for measure, label in study["measures"].items():
                    pair = pairs.get((fusion, measure, reference, strategy))
                    assert (label in found) == (pair is not None)
                    if pair:
                        ends = [signed(pair[k]) for k in ("difference", "ci_low", "ci_high")]
                        difference, word, p, n = found[label]
                        assert difference == f"{ends[0]} [{ends[1]}, {ends[2]}]"
                        assert pair["verdict"] in word
                        if pair["more_seeds"]:
                            assert f"about {pair['more_seeds']:.0f} more seed" in word
                        assert (p, n) == (show_p(pair["p_holm"]), str(pair["n"]))
                        seen += 1
                check_seeds(browser, study, place, strategy, levels)
    assert seen > 20


def check_facts(
    browser: Browser, made: Made, study: dict[str, Any], fusion: str, line: dict[str, Any]
) -> None:
    """The drawer's first sentence: mean, interval, n, trial, trials and cost of a run."""
    where = f"view=board&data={study['key']}&fusion={fusion}&row={line['strategy']}"
    browser.open(made.file, where)
    text = browser.run("document.querySelector('#drawer .top + p').textContent")
    found = re.fullmatch(
        r"fused .*: (.*) %, n (\d+), trial (.*) \(of (\d+) that ran\), (.*) (CPU|wall) time a run",
        text,
    )
    assert found, text
    mean, n, trial, trials, cost, clock = found.groups()
    assert mean == level(line, "–")
    assert (n, trials) == (str(line["n_seeds"]), str(line["n_trials"]))
    assert float(trial) == line["trial"]
    if not line["n_seeds"]:
        assert cost == "–"
        return
    value, unit = cost.split()
    spent = line[{"CPU": "cpu_s", "wall": "wall_s"}[clock]] / line["n_seeds"]
    assert float(value) * SECONDS[unit] == pytest.approx(spent, abs=0.06 * SECONDS[unit])


def check_seeds(
    browser: Browser, study: dict[str, Any], fusion: str, strategy: str, levels: dict[Any, Any]
) -> None:
    """The drawer's table of seeds: the runs of the CSV line, whose numbers have its means."""
    line = levels[strategy, fusion, "fused"]
    tables = [
        found
        for found in rows(browser, "#drawer h3 + .scroll")
        if len(found) == 5 + len(study["modalities"]) and found[-2] in str(line["run_ids"]).split()
    ]
    assert [found[-2] for found in tables] == (line["run_ids"] or "").split()
    for column, quantity in enumerate(("fused", *study["modalities"]), start=1):
        numbers = [float(found[column]) for found in tables if found[column] != "–"]
        mean = levels[strategy, fusion, quantity]["mean"]
        assert bool(numbers) == (mean is not None)
        if numbers:
            assert sum(numbers) / len(numbers) == pytest.approx(mean, abs=0.0501)
