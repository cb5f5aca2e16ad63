"""Records read back from W&B, tables sent there, dashboards as code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tracked_runs import summary
from wandb_client import environment, python, track
from wandb_server import KEY, WandbServer

from miles_repro import records
from miles_repro.errors import UserError
from miles_repro.tracking import dashboards, mirror

READ = """
import json, sys
from miles_repro.tracking.exchange import records_from_wandb
print(json.dumps(records_from_wandb(sys.argv[1])))
records_from_wandb(sys.argv[2])
"""
SEND = """
import sys
from pathlib import Path
import pandas as pd
from miles_repro.tracking.exchange import log_tables
columns = pd.MultiIndex.from_tuples([("score", "mean"), ("score", "ci"), ("n", "")])
table = pd.DataFrame([[0.5, "±1", 3], [2 / 3, None, 4]], columns=columns,
                     index=pd.Index(["vanilla", "miles"], name="strategy"))
figures = [Path(name) for name in sys.argv[2:]]
print(log_tables({"table2": table}, figures, "demo", folder=Path(sys.argv[1])))
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
    assert first.stdout.strip() == f"{server.url}/lab/demo/runs/{run.name}"
    (name,) = [name for name in run.files if name.startswith("media/table/tables/table2")]
    table = json.loads(run.files[name])
    assert table["columns"] == ["strategy", "score mean", "score ci", "n"]
    assert table["data"] == [["vanilla", 0.5, "±1", 3], ["miles", 2 / 3, None, 4]]
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


def panels(view: dict[str, Any]) -> dict[str, list[str]]:
    bank = view["spec"]["section"]["panelBankConfig"]["sections"]
    return {s["name"]: [p["config"]["chartTitle"] for p in s["panels"]] for s in bank}


def test_dry_run_writes_the_dashboards(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    done = python("scripts/dashboards.py", "--dry-run", str(path), env=environment(None))
    assert done.returncode == 0, done.stderr
    spec = json.loads(path.read_text())
    found = panels(spec["workspace"])
    assert list(found) == ["Strategy x fusion", "Utilization", "Learning rates", "Learning", "Cost"]
    assert "Gap against accuracy (test)" in found["Strategy x fusion"]
    runset = spec["workspace"]["spec"]["section"]["runSets"][0]
    assert [g["name"] for g in runset["grouping"]] == [
        "dataset.value",
        "fusion.value",
        "strategy.value",
    ]
    titles = [report["displayName"] for report in spec["reports"]]
    assert len(titles) == len(set(titles)) == 6
    for report in spec["reports"][:3]:
        assert "tables/smnist_mini_mini" in json.dumps(report)


@pytest.mark.slow
def test_saving_dashboards_twice_replaces_them(server: WandbServer, tmp_path: Path) -> None:
    env = environment(server)
    track(env, root=tmp_path, epochs=1)  # makes the project
    code(SEND, str(tmp_path / "out"), env=env)
    first = python("scripts/dashboards.py", "--project=demo", env=env)
    assert first.returncode == 0, first.stderr
    assert server.unknown == []
    ids = list(server.views)
    shows = [
        view["displayName"] for view in server.views.values() if "tables/table2" in view["spec"]
    ]
    assert shows == ["MILES reproduction, Table 2: balancing strategies, concatenation"]
    assert [view["type"] for view in server.views.values()] == ["project-view", *["runs"] * 6]
    second = python("scripts/dashboards.py", "--project=demo", env=env)
    assert second.stdout == first.stdout
    assert list(server.views) == ids
    assert KEY not in first.stdout + first.stderr + json.dumps(server.views)


def test_dashboards_without_the_extra_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"pip install 'miles-repro\[dashboards\]'"):
        dashboards.spec("lab", "demo")


def test_panels_show_keys_that_runs_have() -> None:
    """A renamed key would leave an empty panel."""
    keys = set(mirror.summary_values(summary(0, 3)))
    assert {dashboards.SCORE, dashboards.GAP, "cost/wall_s", "val/fused/metric"} <= keys
