"""Records read back from W&B, tables sent there, dashboards as code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from record_factory import population
from tracked_runs import summary
from wandb_client import environment, python, track
from wandb_server import KEY, WandbServer

from miles_repro import records
from miles_repro.errors import UserError
from miles_repro.report import write_tables
from miles_repro.tracking import dashboards, intervals, mirror
from miles_repro.tracking.exchange import read_table
from miles_repro.tracking.pages import pages
from miles_repro.verdicts import Word

READ = """
import json, sys
from miles_repro.tracking.exchange import records_from_wandb
print(json.dumps(records_from_wandb(sys.argv[1])))
records_from_wandb(sys.argv[2])
"""
SEND = """
import sys
from pathlib import Path
from miles_repro.tracking.exchange import log_tables, read_table
out = Path(sys.argv[1])
out.with_suffix(".csv").write_text(
    "strategy,score,ci,run_ids\\nvanilla,0.5,±1,000000000012\\nmiles,0.6666666666666666,,12e4\\n"
)
table = read_table(out.with_suffix(".csv"))
names = ["table2", "claims", "contrasts__toy-stand-in__smoke"]
tables = {name: table for name in names} | {"empty": table[:0]}
figures = [Path(name) for name in sys.argv[2:]]
print(log_tables(tables, figures, "demo", folder=out))
"""


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as running:
        yield running


def code(text: str, *args: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", text, *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_records_read_back_equal_the_local_ones(server: WandbServer, tmp_path: Path) -> None:
    env = environment(server)
    track(env, root=tmp_path, runs=3)
    track(env, root=tmp_path, first=3, fail_at=1)
    failed = server.runs["000000000003"]
    assert (failed.state, failed.summary["error"]) == ("failed", "ValueError: made up")
    done = code(READ, "lab/demo", "lab/nothing", env=env)
    assert "UserError: W&B project lab/nothing holds no finished runs" in done.stderr
    local = records.load_summaries(tmp_path)
    assert local == [summary(number, 4) for number in range(3)]
    assert json.loads(done.stdout) == local


def test_tables_and_figures_are_sent(server: WandbServer, tmp_path: Path) -> None:
    import matplotlib.image
    import numpy as np

    png, pdf = tmp_path / "gap.png", tmp_path / "gap.pdf"
    matplotlib.image.imsave(png, np.zeros((4, 4, 3)))
    pdf.write_bytes(b"%PDF-")
    args = (str(tmp_path / "out"), str(png), str(pdf))
    first = code(SEND, *args, env=environment(server))
    assert first.returncode == 0, first.stderr
    assert server.unknown == []
    (run,) = server.runs.values()
    assert "tables/empty" not in run.summary
    assert first.stdout.strip() == f"{server.url}/lab/demo/runs/{run.name}"
    (name,) = [name for name in run.files if name.startswith("media/table/tables/table2")]
    table = json.loads(run.files[name])
    assert table["columns"] == ["strategy", "score", "ci", "run_ids"]
    rows = [["vanilla", 0.5, "±1", "000000000012"], ["miles", 2 / 3, None, "12e4"]]
    assert table["data"] == rows
    assert run.summary["tables/table2"]["_type"] == "table-file"
    assert run.summary["figures/gap"]["_type"] == "image-file"
    report = server.artifacts["report"]
    assert report["gap.pdf"] == b"%PDF-"
    assert report["gap.png"] == png.read_bytes()
    second = code(SEND, *args, env=environment(server))
    assert second.stdout == first.stdout
    assert list(server.runs) == [run.name]


@pytest.mark.slow
def test_tables_without_a_key_wait_in_a_folder(tmp_path: Path) -> None:
    done = code(SEND, str(tmp_path / "out"), env=environment(None))
    assert done.returncode == 0, done.stderr
    assert "offline; upload with: wandb sync" in done.stdout
    assert len(list((tmp_path / "out/wandb").glob("offline-run-*/*.wandb"))) == 1


def test_every_table_of_the_report_is_on_one_page(tmp_path: Path) -> None:
    """Whatever ``tables`` writes, as the dry run finds it there."""
    runs = population(datasets=("smnist_mini", "luma"), seeds=(1, 2, 3), stand_in=True)
    write_tables(runs, tmp_path, command="c", commit="abc1234")
    written = [path.stem for path in (tmp_path / "tables").glob("*.csv") if path.stat().st_size > 1]
    assert len(written) > 10
    shown = [name for page in pages(written) for name in page.tables]
    assert sorted(shown) == sorted(written)
    path = tmp_path / "spec.json"
    options = ("--dry-run", str(path), "--results", str(tmp_path))
    done = python("scripts/dashboards.py", *options, env=environment(None))
    assert done.returncode == 0, done.stderr
    texts = list(map(json.dumps, json.loads(path.read_text())["reports"]))
    for name in written:
        assert sum(f'"tables/{name}"' in text for text in texts) == 1, name


def test_pages_are_the_papers_tables_each_study_and_the_rest() -> None:
    found = pages(["claims", "contrasts__smnist-stand-in__mini", "robustness__my__set__mini"])
    assert [page.tables for page in found if page.tables] == [
        ("claims",),
        ("contrasts__smnist-stand-in__mini",),
        ("robustness__my__set__mini",),
    ]
    assert [page.where for page in found[1:3]] == [
        {"dataset": ["smnist"], "budget": ["mini"]},
        {"dataset": ["my__set"], "budget": ["mini"]},
    ]
    assert len(found) == 3 + 6
    ablations = [page for page in found if page.jobs == ("ablation",)]
    assert [page.title[:7] for page in ablations] == ["Table 4", "Table 5", "Table 6"]


def test_workspaces_keep_the_search_apart() -> None:
    views = dashboards.spec("lab", "demo", [])["workspaces"]
    assert [view["displayName"] for view in views] == ["Balancing strategies", "Search"]
    for view, jobs in zip(views, (["winner", "decision"], ["search"]), strict=True):
        runset = view["spec"]["section"]["runSets"][0]
        keys = [group["name"] for group in runset["grouping"]]
        assert keys == [f"{key}.value" for key in ("dataset", "budget", "fusion", "strategy")]
        text = json.dumps(runset["filters"])
        assert "jobType" in text
        assert json.dumps(jobs) in text
        bars = [p for p in all_panels(view) if p["viewType"] == "Bar Chart"]
        assert not [p for p in bars if p["config"].get("groupBy")]  # groups of their own mix data


def all_panels(view: dict[str, Any]) -> list[dict[str, Any]]:
    bank = view["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel for section in bank for panel in section["panels"]]


@pytest.mark.slow
def test_saving_dashboards_twice_replaces_them(server: WandbServer, tmp_path: Path) -> None:
    env = environment(server)
    track(env, root=tmp_path, epochs=1)  # makes the project
    code(SEND, str(tmp_path / "out"), env=env)
    first = python("scripts/dashboards.py", "--project=demo", env=env)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert server.unknown == []
    ids = list(server.views)
    views = list(server.views.values())
    kinds = [view["type"] for view in views]
    assert kinds == [*["project-view"] * 2, *["runs"] * 8]
    for name in ("table2", "claims", "contrasts__toy-stand-in__smoke"):
        assert sum(f"tables/{name}" in view["spec"] for view in views) == 1
    (study,) = [view for view in views if "contrasts__toy" in view["spec"]]
    assert f"lab/{intervals.name()}" in study["spec"]
    (source,) = [name for name in server.runs if name.startswith("tables-")]
    assert source in study["spec"]
    assert server.charts == {intervals.name(): intervals.SPEC}
    second = python("scripts/dashboards.py", "--project=demo", env=env)
    assert second.stdout == first.stdout
    assert list(server.views) == ids
    assert KEY not in first.stdout + first.stderr + json.dumps(server.views)


def test_the_interval_plot_reads_columns_that_contrasts_have(tmp_path: Path) -> None:
    """A renamed column would leave an empty plot, and so would a field without a column."""
    runs = population(strategies=("vanilla", "vanilla_aux", "miles"), seeds=(1, 2, 3))
    write_tables(runs, tmp_path, command="c", commit="abc1234")
    table = read_table(tmp_path / "tables" / "contrasts__smnist_mini__mini.csv")
    assert set(intervals.FIELDS.values()) <= set(table.columns)
    assert "fused" in set(table["quantity"])
    used = set(re.findall(r"\$\{field:(\w+)\}", json.dumps(intervals.SPEC)))
    assert used == set(intervals.FIELDS)
    assert set(intervals.SPEC["encoding"]["color"]["scale"]["domain"]) == set(get_args(Word))


def test_dashboards_without_the_extra_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"pip install 'miles-repro\[dashboards\]'"):
        dashboards.spec("lab", "demo", [])


def test_panels_show_keys_that_runs_have() -> None:
    """A renamed key would leave an empty panel."""
    keys = set(mirror.summary_values(summary(0, 3)))
    assert {dashboards.SCORE, dashboards.GAP, dashboards.VAL, "cost/wall_s", "status"} <= keys
