"""The report page as a file: what it holds, how large it is, what cannot get into it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from page_kit import Made, html, make, mixed
from record_factory import ablation, epoch_rows, population, record

from miles_repro import report
from miles_repro.records import Epochs
from miles_repro.report.claims import claims_sheet
from miles_repro.report.page import FOLDER, SCRIPTS
from miles_repro.report.page.cards import cards
from miles_repro.report.provenance import Origin
from miles_repro.selection import studies
from miles_repro.tracking import connection

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)> & \u2028 `c`"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("report"), mixed())


def test_it_fetches_nothing_and_runs_only_its_own_script(made: Made) -> None:
    text = made.text
    assert not re.findall(r"<link|<img|<iframe|@import|url\(|\ssrc=| on\w+=\"", text)
    assert set(re.findall(r'href="([^"]*)"', text)) == {"#main"}
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert "default-src 'none'" in policy[1]
    for tag in ("script", "style"):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert 'style="' not in text  # the policy would refuse it


def test_the_script_is_small_and_none_of_it_is_left_out() -> None:
    files = {file.stem for file in FOLDER.glob("*.js")}
    assert files == set(SCRIPTS)
    assert sum(file.stat().st_size for file in FOLDER.glob("*.js")) <= 60_000
    everything = "".join((FOLDER / f"{name}.js").read_text() for name in SCRIPTS)
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", everything
    )


def test_everything_the_page_is_made_of_travels_in_the_wheel() -> None:
    project = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text())
    globs = project["tool"]["setuptools"]["package-data"]["miles_repro.report.page"]
    packed = {file for glob in globs for file in FOLDER.glob(glob)}
    assert packed == {file for file in FOLDER.iterdir() if file.is_file()} - {*FOLDER.glob("*.py")}


def test_sizes_at_mini_and_at_6000_runs() -> None:
    mini = population() + ablation("tau", [0.0, 0.1, 0.2, 0.3, 0.5])
    assert len(html(mini).encode()) <= 400_000
    paper = ("cremad", "smnist", "luma", "mmimdb")
    large = population(paper, trials=48, seeds=range(1, 6), budget="paper")
    assert len(large) > 6000
    assert len(html(large).encode()) <= 1_500_000


def test_size_with_42_strategies_on_all_data_sets_of_the_paper() -> None:
    records = [
        record(f"s{i}", dataset=dataset, fusion=fusion, seed=seed, level=(0.9 + i / 1000, 0.8, 0.7))
        for dataset in ("cremad", "smnist", "luma", "mmimdb")
        for fusion in ("concat", "sum")
        for i in range(42)
        for seed in (1, 2, 3, 4, 5)
    ]
    assert len(html(records).encode()) <= 1_500_000


def test_what_a_record_says_stays_text() -> None:
    run = {"label": EVIL, "family": EVIL, "command": EVIL}
    text = html([record(s, seed=s_, **run) for s in ("miles", "vanilla") for s_ in range(1, 5)])
    assert "alert(1)" in text
    assert "<img" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "\u2028" not in re.sub(r"<details.*?</details>", "", text, flags=re.DOTALL)


def test_levels_costs_and_the_paper_s_values_are_those_of_the_csv(made: Made) -> None:
    seen = 0
    for study in made.data["studies"]:
        lines = made.csv(f"comparison__{study['key']}", "fusion", "strategy", "quantity")
        printed = {
            (line["dataset"], line["budget"], *key): line["paper"]
            for number in (2, 3)
            for key, line in made.csv(
                f"table{number}", "fusion", "strategy", "quantity", "dataset"
            ).items()
        }
        clock = {"CPU": "cpu_s", "wall": "wall_s"}[study["clock"]]
        for board in study["boards"]:
            for row in board["rows"]:
                for quantity, (mean, half) in row["v"].items():
                    line = lines[board["fusion"], row["s"], quantity]
                    assert mean == pytest.approx(line["mean"], abs=0.0501)
                    if half is None:
                        assert line["ci_low"] is None
                    else:
                        spread = (line["ci_high"] - line["ci_low"]) / 2
                        assert half == pytest.approx(spread, abs=0.0501)
                    assert row["n"] == line["n_seeds"]
                    assert row["cost"] == pytest.approx(line[clock] / line["n_seeds"], abs=0.006)
                    seen += 1
                value = printed.get((study["dataset"], study["budget"], board["fusion"],
                                     row["s"], "fused", study["dataset"]))  # fmt: skip
                assert (row["paper"].get("fused") or [None])[0] == value
    assert seen > 50


def test_differences_are_those_of_the_csv_whatever_the_reference(made: Made) -> None:
    seen = 0
    for study in made.data["studies"]:
        lines = made.csv(f"contrasts__{study['key']}", "fusion", "quantity", "strategy", "rival")
        for (fusion, quantity, strategy, rival), line in lines.items():
            board = next(b for b in study["boards"] if b["fusion"] == fusion)
            ran, pairs = board["ran"], board["pairs"][quantity]
            first, second = sorted((ran.index(strategy), ran.index(rival)))
            place = [(a, b) for a in range(len(ran)) for b in range(a + 1, len(ran))]
            at = place.index((first, second))
            mean, low, high = (
                None if x is None else x / 100 for x in pairs["d"][3 * at : 3 * at + 3]
            )
            sign = 1 if ran.index(strategy) < ran.index(rival) else -1
            ends = sorted(sign * end for end in (low, high) if end is not None)
            assert sign * mean == pytest.approx(line["difference"], abs=0.00501)
            expected = [end for end in (line["ci_low"], line["ci_high"]) if end is not None]
            assert ends == pytest.approx(expected, abs=0.00501)
            assert (pairs["n"][at] if isinstance(pairs["n"], list) else pairs["n"]) == line["n"]
            if rival == board["reference"]:  # the family of the table
                judged, i = pairs["by"][rival], ran.index(strategy)
                assert judged["word"][i] == line["verdict"][0]
                assert judged["more"][i] == (line["more_seeds"] or 0)
                assert judged["p"][i] == pytest.approx(line["p_holm"], abs=0.001)
            seen += 1
    assert seen > 30


def test_ranks_robustness_and_ablations_are_those_of_the_csv(made: Made) -> None:
    data = made.data
    ranks = made.csv("ranks", "group", "strategy")
    for group in data["ranks"]:
        for strategy, rank in group["rows"]:
            assert rank == pytest.approx(
                ranks[group["title"], strategy]["average_rank"], abs=0.0051
            )
    for study in data["studies"]:
        lines = list(made.csv(f"robustness__{study['key']}", "fusion", "strategy", "section",
                              "condition").values())  # fmt: skip
        shown = [
            (part["section"], fusion, strategy, point)
            for part in study["robustness"]
            for fusion, strategy, points in part["rows"]
            for point in points
        ]
        assert len(shown) == len(lines) > 0
        for (section, fusion, strategy, point), line in zip(shown, lines, strict=True):
            assert (section, fusion, strategy) == tuple(
                line[key] for key in ("section", "fusion", "strategy")
            )
            assert (point is None) == (line["mean"] is None)
            assert point is None or point[0] == pytest.approx(line["mean"], abs=0.0501)
    numbers = {"tau": 4, "mu": 5, "source": 6}
    assert [one["parameter"] for one in data["ablations"]] == ["tau"] * 2 + ["mu"] * 2 + [
        "source"
    ] * 2
    for ablated in data["ablations"]:
        lines = made.csv(f"table{numbers[ablated['parameter']]}", "fusion", "quantity", "setting")
        fusion = "concat" if ablated["title"].endswith("concatenation") else "sum"
        for quantity, points in ablated["lines"].items():
            for setting, mean, half, paper in points:
                line = lines[fusion, quantity, setting]
                assert paper == line["paper"]
                assert (mean is None) == (line["mean"] is None)
                if mean is not None:
                    spread = (line["ci_high"] - line["ci_low"]) / 2
                    assert (mean, half) == (
                        pytest.approx(line["mean"], abs=0.0501),
                        pytest.approx(spread, abs=0.0501),
                    )


def test_own_data_and_strategies_come_first_and_stand_ins_are_called_so(made: Made) -> None:
    first, *others = made.data["studies"]
    assert {first["dataset"], others[0]["dataset"]} == {"birds", "three"}
    birds = next(study for study in made.data["studies"] if study["dataset"] == "birds")
    assert birds["own"]
    assert birds["own_strategies"] == ["mine"]
    head = birds["boards"][0]["answer"]
    assert head["word"] == "better"
    assert head["head"].startswith("My own, accuracy 99.")
    stand_in = next(study for study in others if study["dataset"] == "smnist")
    assert stand_in["place"] == "S-MNIST (stand-in), budget mini"
    assert "Stand-in" in stand_in["boards"][0]["paper"]
    assert not any(row["paper"] for row in stand_in["boards"][0]["rows"])


def test_without_script_the_tables_are_there(made: Made) -> None:
    plain = re.search(r"<noscript>(.*?)</noscript>", made.text, re.DOTALL)
    assert plain
    assert "LUMA, budget paper" in plain[1]
    assert plain[1].count("<table") == 1 + len(made.data["studies"])
    for number in range(1, 7):
        assert f'<details id="table{number}">' in made.text


def test_curves_are_means_over_the_decision_seeds() -> None:
    records = [record("miles", seed=seed) for seed in (1, 2, 3)]
    rows = {run["run_id"]: epoch_rows(run, epochs=40) for run in records}
    rows[records[0]["run_id"]] = rows[records[0]["run_id"]][:35]  # stopped early
    found, origin = studies(records), Origin("", "")
    from miles_repro.report.page.model import model

    data = model(found, report.all_sheets(found, origin), origin, rows)
    curve = data["studies"][0]["curves"]["concat miles"]
    assert curve["n"] == 3
    assert len(curve["epochs"]) == 32
    assert curve["epochs"][-1] == 35
    ends = [100 * lines[34]["val"]["fused"]["metric"] for lines in rows.values()]
    assert curve["heads"]["fused"][0][-1] == pytest.approx(sum(ends) / 3, abs=0.0501)
    assert set(curve["used"]) == {"image", "audio", "delta"}
    assert min(curve["rates"]["image"]) < 1


def test_cards_come_from_the_menu_alone_and_import_no_strategy() -> None:
    code = (
        "import sys; from miles_repro.report.page.cards import cards; "
        "assert cards(['miles'])['miles'].startswith('MILES'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    assert cards(["no_such_strategy", "unimodal"]).keys() == {"unimodal"}


def test_a_page_of_nothing_says_so(tmp_path: Path) -> None:
    made = make(tmp_path, [])
    assert made.data["studies"] == []
    assert "not yet run" in made.text


def test_epochs_are_read_where_they_lie(tmp_path: Path) -> None:
    records = [record("miles", seed=seed) for seed in (1, 2)]
    folder = tmp_path / "smnist_mini" / "concat" / "miles" / records[0]["run_id"]
    folder.mkdir(parents=True)
    lines = epoch_rows(records[0], epochs=3)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = Epochs(tmp_path, records)
    assert [line["epoch"] for line in rows[records[0]["run_id"]]] == [1, 2, 3]
    assert rows[records[1]["run_id"]] == []  # as of records that came from W&B
    assert rows.get("another") is None
    assert len(rows) == len(list(rows)) == 2


def test_the_address_of_a_wandb_project_needs_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://localhost:8080")
    assert str(connection.project_url("me/my set")).endswith("/me/my%20set")
    assert connection.project_url("mine") is None
    assert connection.project_url(None) is None


def test_claims_say_their_tests_with_the_margins_that_were_asked_for(made: Made) -> None:
    told = {claim["text"]: claim["test"] for claim in made.data["claims"]}
    notes = {
        table.title: table.notes[1]
        for table in claims_sheet(studies(mixed()), Origin("", "")).tables[1:]
    }
    assert notes
    assert {text: told[text] for text in notes} == notes
    assert not [text for text in told.values() if "{" in text]
