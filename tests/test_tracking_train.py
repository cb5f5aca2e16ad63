"""The W&B mirror under train.py: same numbers, same time, killed runs, sweeps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import lasting, rows_without_time
from wandb_client import REPO, environment, kill_after_rows, offline_file, python, read_offline
from wandb_server import KEY, WandbServer

from miles_repro import records
from miles_repro.tracking import mirror
from miles_repro.tracking.connection import FINISH_SECONDS, INIT_SECONDS, PROBE_SECONDS

pytestmark = pytest.mark.slow
ALLOWED_SECONDS = PROBE_SECONDS + INIT_SECONDS + FINISH_SECONDS + 5


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as running:
        yield running


def overrides(data_dir: Path, runs_dir: Path, *more: str) -> list[str]:
    return [
        f"hydra.searchpath=[file://{REPO / 'tests' / 'conf'}]",
        "dataset=tiny",
        f"runtime.data_dir={data_dir}",
        f"runtime.runs_dir={runs_dir}",
        "runtime.device=cpu",
        "tracker.project=demo",
        *more,
    ]


def train(env: dict[str, str], *args: str) -> tuple[str, float]:
    begin = time.monotonic()
    done = python("train.py", *args, env=env, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr, time.monotonic() - begin


def only_run(runs_dir: Path) -> tuple[Path, dict[str, Any]]:
    (run_dir,) = records.run_folders(runs_dir)
    summary = records.read_summary(run_dir)
    assert summary is not None
    return run_dir, summary


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("time/")}


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return [mirror.history_row(row, "accuracy") for row in records.load_rows(run_dir)]


@pytest.mark.parametrize(
    "behaviour", [{}, {"delay": 5.0}, {"status": 500}, {"good": 4, "status": 500}], ids=str
)
def test_numbers_and_time_do_not_depend_on_wandb(
    server: WandbServer, tiny_data: Path, tmp_path: Path, behaviour: dict[str, Any]
) -> None:
    plain_args = overrides(tiny_data, tmp_path / "plain", "epochs=3", "tracker.mode=disabled")
    _, plain_seconds = train(environment(None), *plain_args)
    server.behave(**behaviour)
    args = overrides(tiny_data, tmp_path / "tracked", "epochs=3")
    output, seconds = train(environment(server), *args)
    plain_dir, plain = only_run(tmp_path / "plain")
    tracked_dir, tracked = only_run(tmp_path / "tracked")
    assert lasting(tracked) == lasting(plain)
    assert rows_without_time(tracked_dir) == rows_without_time(plain_dir)
    assert seconds < 1.1 * plain_seconds + ALLOWED_SECONDS
    assert KEY not in output
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert KEY.encode() not in path.read_bytes(), path
    if not behaviour:
        (run,) = server.runs.values()
        assert run.name == tracked["run_id"]
        assert run.history == rows_of(tracked_dir)
        assert server.record(run) == tracked
        assert run.values["strategy/tau"] == tracked["config"]["strategy"]["tau"]


def test_a_multirun_makes_one_wandb_run_per_job(tiny_data: Path, tmp_path: Path) -> None:
    """20 jobs in one process, offline, without a terminal or a home directory."""
    args = overrides(
        tiny_data, tmp_path, "epochs=1", "seed=range(0,20)", "hydra/launcher=in_process"
    )
    output, _ = train(environment(None), "-m", *args)
    folders = list(records.run_folders(tmp_path))
    assert len(folders) == 20
    assert output.count("tracker:") == 1
    for run_dir in folders:
        summary = records.read_summary(run_dir)
        assert summary is not None
        read = read_offline(offline_file(run_dir))
        assert read["run"].run_id == summary["run_id"] == run_dir.name
        assert read["config"]["seed"] == summary["seed"]
        assert read["records"] == [summary]


def test_a_killed_run_goes_on_in_the_same_wandb_run(
    server: WandbServer, tiny_data: Path, tmp_path: Path
) -> None:
    epochs = 4000  # more than a fast machine trains before the client first sends rows
    args = overrides(tiny_data, tmp_path, f"epochs={epochs}")
    command = [sys.executable, "train.py", *args]
    run = kill_after_rows(command, server, 4)
    assert 3 < len(run.lines) < epochs
    train(environment(server), *args)
    assert list(server.runs.values()) == [run]
    run_dir, summary = only_run(tmp_path)
    # epochs trained twice are the same but for the clock: W&B keeps the first
    assert list(map(without_time, run.history)) == list(map(without_time, rows_of(run_dir)))
    assert [row["epoch"] for row in run.history] == list(range(1, epochs + 1))
    assert server.record(run) == summary
    assert run.state == "finished"


def test_wandb_sweep_and_agent_drive_train_py(
    server: WandbServer, tiny_data: Path, tmp_path: Path
) -> None:
    sweep = yaml.safe_load((REPO / "scripts/wandb_sweep.yaml").read_text())
    hydra_overrides = overrides(tiny_data, tmp_path / "runs", "epochs=1")
    fixed = [a for a in sweep["command"] if not a.startswith(("dataset=", "${args"))]
    sweep["command"] = [*fixed, *hydra_overrides, "${args_no_hyphens}"]
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    server.trials = [dict.fromkeys(sweep["parameters"], value) for value in (0.1, 0.2)]
    env = environment(server) | {"WANDB_DIR": str(tmp_path)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    for args in (["sweep", "--project", "demo", str(path)], ["agent", "lab/demo/sweep1"]):
        done = subprocess.run(
            [sys.executable, "-m", "wandb", *args],
            env=env,
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert server.unknown == []
    summaries = {
        s["config"]["strategy"]["tau"]: s for s in records.load_summaries(tmp_path / "runs")
    }
    assert list(server.runs) == ["trial1", "trial0"]
    for run, value in zip(server.runs.values(), (0.1, 0.2), strict=True):
        summary = summaries[value]
        assert summary["config"]["optimizer"]["lr"] == summary["config"]["strategy"]["mu"] == value
        assert run.fields["sweep"] == "sweep1"
        assert run.values["run_id"] == summary["run_id"]
        assert run.summary["val/fused/accuracy"] == summary["val"]["fused"]["metric"]
        assert server.record(run) == summary


def test_tables_from_wandb_are_the_local_tables(
    server: WandbServer, tiny_data: Path, tmp_path: Path
) -> None:
    runs, env = tmp_path / "runs", environment(server)
    train(env, "-m", *overrides(tiny_data, runs, "epochs=2", "strategy=vanilla,miles"))
    for name, options in {
        "local": ["--runs-dir", str(runs), "--to-wandb", "lab/demo"],
        "wandb": ["--runs-dir", str(tmp_path / "nothing"), "--from-wandb", "lab/demo"],
    }.items():
        results = str(tmp_path / name)
        done = python("scripts/reproduce.py", "tables", "--results", results, *options, env=env)
        assert done.returncode == 0, done.stderr
    local = {p.name: p.read_text() for p in (tmp_path / "local/tables").glob("*.csv")}
    assert len(local) > 3
    assert local == {p.name: p.read_text() for p in (tmp_path / "wandb/tables").glob("*.csv")}
    (sent,) = [run for run in server.runs.values() if run.fields["jobType"] == "tables"]
    logged = {key.removeprefix("tables/") for key in sent.summary if key.startswith("tables/")}
    assert logged == {name.removesuffix(".csv") for name, text in local.items() if text.strip()}
    assert "report.html" in server.artifacts["report"]
    assert server.unknown == []
