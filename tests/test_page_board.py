"""The page's leaderboard, drawer and heat map in a real browser: numbers and controls."""

from __future__ import annotations

import pytest
from browser_kit import TABLE, board, choose, click, settle, signed
from devtools import Browser
from page_kit import Made

from miles_repro.report.table import fixed

pytestmark = pytest.mark.slow


def test_every_number_on_the_leaderboards_is_that_of_the_csv(browser: Browser, made: Made) -> None:
    seen = 0
    for study in made.data["studies"]:
        levels = made.csv(f"comparison__{study['key']}", "fusion", "quantity", "strategy")
        pairs = made.csv(
            f"contrasts__{study['key']}", "fusion", "quantity", "rival", "strategy"
        )  # the key ends with whose row it is
        for each in study["boards"]:
            fusion, reference = each["fusion"], each["reference"]
            for measure in study["measures"]:
                shown = board(browser, made, data=study["key"], fusion=fusion, measure=measure)
                quantity = "gap" if measure == "abs_gap" else measure
                for strategy in each["ran"]:
                    row, line = shown[strategy], levels[fusion, quantity, strategy]
                    half = (line["ci_high"] - line["ci_low"]) / 2
                    expected = f"{fixed(line['mean'])} ± {fixed(half)}"
                    assert row["mean"] == expected.replace("-", "−")
                    assert row["n"] == str(line["n_seeds"])
                    if strategy == reference:
                        assert row["verdict"] == "reference"
                        continue
                    pair = pairs[fusion, measure, reference, strategy]
                    ends = [signed(pair[key]) for key in ("difference", "ci_low", "ci_high")]
                    assert row["difference"] == f"{ends[0]} [{ends[1]}, {ends[2]}]"
                    assert pair["verdict"] in row["verdict"]
                    if pair["more_seeds"]:
                        assert f"about {pair['more_seeds']:.0f} more seed" in row["verdict"]
                    seen += 1
    assert seen > 50


def test_the_paper_s_value_has_a_column_where_there_is_one(browser: Browser, made: Made) -> None:
    shown = board(browser, made, data="luma__paper", fusion="concat")
    table = made.csv("table2", "dataset", "quantity", "strategy")
    line = table["luma", "fused", "miles"]
    assert shown["miles"]["paper"] == f"{line['paper']:.1f} {line['paper_in_pi']}"
    assert shown["vanilla_aux"]["paper"] == "–"
    assert "paper" not in board(browser, made, data="birds__mini")["mine"]


def test_only_decided_differences_are_coloured(browser: Browser, made: Made) -> None:
    for study in made.data["studies"]:
        board(browser, made, data=study["key"])
        found = browser.run(
            """[...document.querySelectorAll("tr[data-row] .difference")].map(cell => [
              cell.querySelector("circle").getAttribute("class").replace("dot", "").trim(),
              cell.closest("tr").querySelector(".badge").textContent])"""
        )
        colours = {"better": "good", "worse": "bad", "equal": "even", "undecided": ""}
        assert found
        for colour, badge in found:
            assert colour == next(c for word, c in colours.items() if word in badge)


def test_sort_filter_and_reference(browser: Browser, made: Made) -> None:
    shown = board(browser, made, data="luma__paper", fusion="concat")
    means = [float(row["mean"].split()[0]) for row in shown.values()]
    assert means == sorted(means, reverse=True)
    click(browser, "#sort-mean")
    assert [float(row["mean"].split()[0]) for row in browser.run(TABLE)] == sorted(means)
    assert browser.run("document.activeElement.id") in ("", "sort-mean")
    click(browser, "#sort-name")
    order = [row["s"] for row in browser.run(TABLE)]
    assert order == ["miles", "ogm", "vanilla", "vanilla_aux"]
    choose(browser, "family", "controls")
    assert [row["s"] for row in browser.run(TABLE)] == ["vanilla"]
    choose(browser, "family", "")
    choose(browser, "ref", "miles")
    row = next(row for row in browser.run(TABLE) if row["s"] == "vanilla")
    pair = made.csv("contrasts__luma__paper", "fusion", "quantity", "strategy", "rival")[
        "concat", "fused", "miles", "vanilla"
    ]
    ends = (-pair["difference"], -pair["ci_high"], -pair["ci_low"])
    assert row["difference"] == "{} [{}, {}]".format(*map(signed, ends))
    assert "exploratory" in browser.run("document.querySelector('main').textContent")
    state = browser.run("location.hash")
    assert "ref=miles" in state
    assert "sort=name" in state
    browser.open(made.file, state[1:])  # the address alone brings it back
    again = next(one for one in browser.run(TABLE) if one["s"] == "vanilla")
    assert again == row


def test_drawer_opens_from_the_row_and_from_the_address(browser: Browser, made: Made) -> None:
    board(browser, made, data="luma__paper", fusion="concat")
    browser.run("document.getElementById('row-miles').focus()")
    browser.key("Enter")
    settle(browser)
    drawer = "document.getElementById('drawer')"
    assert browser.run(f"{drawer}.open")
    assert "row=miles" in browser.run("location.hash")
    text = browser.run(f"{drawer}.textContent")
    line = made.csv("comparison__luma__paper", "fusion", "quantity", "strategy")[
        "concat", "fused", "miles"
    ]
    for run_id in line["run_ids"].split():
        assert run_id in text
    assert line["command"].partition(" && ")[0] in text
    assert "strategy.tau" in text  # how its configuration differs from the reference
    assert "MILES: the modality-informed learning-rate scheduler" in text
    links = browser.run(f"[...{drawer}.querySelectorAll('a')].map(a => a.href)")
    assert links[0] == f"https://wandb.ai/me/mine/runs/{line['run_ids'].split()[0]}"
    assert browser.run(f"{drawer}.querySelectorAll('svg.plot').length") == 3
    browser.key("Escape")
    settle(browser)
    assert not browser.run(f"{drawer}.open")
    assert "row=" not in browser.run("location.hash")
    assert browser.run("document.activeElement.id") == "row-miles"
    browser.open(made.file, "view=board&data=luma__paper&fusion=sum&row=vanilla")
    assert browser.run(f"{drawer}.open")


def test_heat_map_and_average_ranks(browser: Browser, made: Made) -> None:
    browser.open(made.file, "view=heat")
    cells = browser.run(
        "[...document.querySelectorAll('[data-heat]')].map(c => [c.dataset.heat, c.textContent])"
    )
    assert cells
    for name, text in cells:
        strategy, key, fusion = name.split(" ")
        lines = made.csv(f"comparison__{key}", "fusion", "quantity", "strategy")
        line = lines.get((fusion, "fused", strategy))
        assert text == (fixed(line["mean"]) if line else "–")
    ranks = made.csv("ranks", "group", "strategy")
    shown = browser.run(
        "[...document.querySelectorAll('[data-rank]')].map(c => [c.dataset.rank, c.textContent])"
    )
    known = {f"{line['average_rank']:.2f}" for line in ranks.values()}
    assert any(text in known for _, text in shown)
    assert {text for _, text in shown} <= known | {"–"}
