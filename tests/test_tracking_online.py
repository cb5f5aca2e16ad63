"""The W&B mirror against a server on the loopback address: what is uploaded, and bad servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tracked_runs import WANDB, folder, header, row, summary
from wandb_client import REPO, environment, kill_after_rows, python, track
from wandb_server import KEY, Run, WandbServer

from miles_repro.tracking import mirror
from miles_repro.tracking.connection import FINISH_SECONDS, INIT_SECONDS, PROBE_SECONDS

# What a bad server may cost one process, once, on top of the client's own start.
CONSTANT_SECONDS = PROBE_SECONDS + INIT_SECONDS + FINISH_SECONDS + 5


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as running:
        yield running


def assert_complete(run: Run, number: int, epochs: int) -> None:
    """Each row once, in order, and the summary: as in the record."""
    assert run.history == [
        mirror.history_row(row(number, epoch), "accuracy") for epoch in range(1, epochs + 1)
    ]
    expected = mirror.summary_values(summary(number, epochs))
    assert {key: run.summary.get(key) for key in expected} == expected
    assert run.values == mirror.flat_config(header(number))
    assert run.state == "finished"


def test_what_is_uploaded_is_the_record(server: WandbServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    _, stderr = track(environment(server, home), root=tmp_path / "runs", runs=3)
    assert stderr == f"tracker: W&B: {server.url}/lab/demo\n"
    assert server.unknown == []
    assert set(server.runs) == {header(number)["run_id"] for number in range(3)}
    for number in range(3):
        run = server.runs[header(number)["run_id"]]
        assert_complete(run, number, 4)
        assert run.fields["groupName"] == "toy/smoke/concat/miles"
        assert run.fields["jobType"] == "search"
        assert run.fields["tags"] == ["smoke", "t"]
        assert run.fields["displayName"] == f"miles t{number} s0 toy/concat"
    assert list(home.iterdir()) == []
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(written) > 10
    assert not [p for p in written if KEY.encode() in p.read_bytes()]


def test_a_run_continued_after_a_failure_is_the_same_wandb_run(
    server: WandbServer, tmp_path: Path
) -> None:
    track(environment(server), root=tmp_path, fail_at=3)
    (run,) = server.runs.values()
    assert (run.state, len(run.history)) == ("failed", 3)
    assert run.summary["error"] == "ValueError: made up"
    live = {k: v for k, v in run.summary.items() if not k.startswith("_")}  # as it was while it ran
    assert "val/fused/accuracy" in live
    assert all(isinstance(value, int | float | str) for value in live.values()), live
    _, stderr = track(environment(server), root=tmp_path, epochs=6, forget=1)
    assert stderr == f"tracker: W&B: {server.url}/lab/demo\n"
    assert list(server.runs.values()) == [run]
    assert_complete(run, 0, 6)
    assert "error" not in run.summary


@pytest.mark.slow
def test_a_run_killed_and_resumed_is_the_same_wandb_run(
    server: WandbServer, tmp_path: Path
) -> None:
    options = {"root": str(tmp_path), "epochs": 10_000, "pause": 0.05}
    script = str(REPO / "tests" / "tracked_runs.py")
    run = kill_after_rows([sys.executable, script, json.dumps(options)], server, 3)
    epochs = len(run.history) + 5
    _, stderr = track(environment(server), root=tmp_path, epochs=epochs, forget=4)
    assert stderr == f"tracker: W&B: {server.url}/lab/demo\n"
    assert list(server.runs.values()) == [run]
    assert_complete(run, 0, epochs)


def test_a_repeated_run_is_not_doubled(server: WandbServer, tmp_path: Path) -> None:
    for root in (tmp_path / "first", tmp_path / "second"):
        track(environment(server), root=root)
    (run,) = server.runs.values()
    assert_complete(run, 0, 4)


@pytest.mark.parametrize(
    "behaviour",
    [
        {"delay": 5.0},
        {"status": 500},
        pytest.param({"status": 401}, marks=pytest.mark.slow),
        pytest.param({"good": 3, "delay": 5.0}, marks=pytest.mark.slow),
        pytest.param({"good": 3, "status": 500}, marks=pytest.mark.slow),
        pytest.param({"good": 6, "status": 401}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_bad_server_costs_a_constant_once(
    server: WandbServer, tmp_path: Path, behaviour: dict[str, Any]
) -> None:
    """Slow or failing from the start, or after the run was opened."""
    server.behave(**behaviour)
    begin = time.monotonic()
    spent, stderr = track(environment(server), root=tmp_path, runs=3, epochs=4, pause=0.05)
    assert time.monotonic() - begin < CONSTANT_SECONDS
    assert max(spent["log"]) < 0.5
    assert spent["start"][2] + spent["finish"][2] < 0.5  # the server is not asked a second time
    assert sum("sync_wandb.py" in line for line in stderr.splitlines()) == 1
    assert KEY not in stderr
    for number in range(3):
        record = json.loads((folder(tmp_path, number) / "summary.json").read_text())
        assert record == summary(number, 4)
    server.behave()
    done = python("scripts/sync_wandb.py", str(tmp_path), "--jobs=1", env=environment(server))
    assert done.returncode == 0, done.stderr
    for number in range(3):
        assert_complete(server.runs[header(number)["run_id"]], number, 4)


def test_no_server_at_all(tmp_path: Path) -> None:
    spent, stderr = track(environment("http://127.0.0.1:9"), root=tmp_path, runs=2)
    assert spent["all"] < 10
    assert stderr.startswith("tracker: W&B is offline: http://127.0.0.1:9 does not answer")
    assert stderr.count("\n") == 1


@pytest.mark.slow
def test_sync_uploads_what_is_missing_and_nothing_twice(
    server: WandbServer, tmp_path: Path
) -> None:
    offline, env = environment(None), environment(server)
    track(offline, root=tmp_path, runs=2, epochs=4)
    track(offline, root=tmp_path, first=2, fail_at=2)
    track(env, root=tmp_path, first=3, epochs=5, kill_at=3)  # partly on the server ...
    track(offline, root=tmp_path, first=3, epochs=5)  # ... and ended without it
    track(offline, root=tmp_path, first=4, kill_at=1)  # not ended: left out

    listed = python("scripts/sync_wandb.py", str(tmp_path), "--dry-run", env=env)
    assert "4 runs, 0 on the server, 4 to upload" in listed.stdout
    assert "1 runs have not ended" in listed.stdout
    done = python("scripts/sync_wandb.py", str(tmp_path), "--jobs=2", env=env)
    assert done.returncode == 0, done.stderr
    assert "[4/4]" in done.stdout
    assert_complete(server.runs[header(0)["run_id"]], 0, 4)
    assert_complete(server.runs[header(1)["run_id"]], 1, 4)
    assert server.runs[header(2)["run_id"]].state == "failed"
    assert_complete(server.runs[header(3)["run_id"]], 3, 5)
    before = len(server.operations)
    last = python("scripts/sync_wandb.py", str(tmp_path), env=env)
    assert "4 runs, 4 on the server, 0 to upload" in last.stdout
    assert "UpsertBucket" not in server.operations[before:]


def test_sync_goes_on_where_it_was_killed(server: WandbServer, tmp_path: Path) -> None:
    track(environment(None), root=tmp_path, runs=3)
    env = environment(server)
    command = [sys.executable, str(REPO / "scripts/sync_wandb.py"), str(tmp_path), "--jobs=1"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.kill()
    assert lines[1].startswith("[1/3]")
    done = python("scripts/sync_wandb.py", str(tmp_path), "--jobs=1", env=env)
    assert done.returncode == 0, done.stderr
    assert "0 on the server" not in done.stdout
    for number in range(3):
        assert_complete(server.runs[header(number)["run_id"]], number, 4)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_sync_is_one_line(jobs: int, server: WandbServer, tmp_path: Path) -> None:
    track(environment(None), root=tmp_path, runs=8)
    script = str(REPO / "scripts/sync_wandb.py")
    with subprocess.Popen(
        [sys.executable, script, str(tmp_path), f"--jobs={jobs}"],
        env=environment(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # whoever started the tests in the background ignores it
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("8 to upload\n")
        assert process.stdout.readline().startswith("[1/8]")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == "interrupted: run the same command again\n"


@pytest.mark.slow
def test_sync_stops_when_the_server_does(server: WandbServer, tmp_path: Path) -> None:
    track(environment(None), root=tmp_path, runs=3)
    server.behave(good=6, status=500)
    done = python("scripts/sync_wandb.py", str(tmp_path), "--jobs=1", env=environment(server))
    assert done.returncode == 2
    assert "[1/3]" in done.stdout
    assert "[2/3]" not in done.stdout
    assert done.stderr == f"error: the W&B server {server.url} answers with error 500: " + (
        "repeat the command later\n"
    )


@pytest.mark.slow
def test_sync_can_take_runs_that_had_no_tracker(server: WandbServer, tmp_path: Path) -> None:
    track(environment(None), root=tmp_path, config={"_target_": "miles_repro.tracking.NoTracker"})
    env = environment(server)
    assert "no mirrored runs" in python("scripts/sync_wandb.py", str(tmp_path), env=env).stdout
    done = python("scripts/sync_wandb.py", str(tmp_path), "--all", "--project=late", env=env)
    assert done.returncode == 0, done.stderr
    (run,) = server.runs.values()
    assert run.project == "late"
    assert_complete(run, 0, 4)


REPEAT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from miles_repro import tracking
run_dir = Path(sys.argv[1])
summary = json.loads((run_dir / "summary.json").read_text())
node = {"_target_": sys.argv[2], "project": "demo", "mode": "auto"}
budget = SimpleNamespace(seeds=5)
tracking.repeat(SimpleNamespace(tracker=node, run_dir=run_dir, budget=budget), summary)
"""


def test_a_sweep_that_meets_a_finished_record_gets_its_result(
    server: WandbServer, tmp_path: Path
) -> None:
    track(environment(None), root=tmp_path, config={"_target_": "miles_repro.tracking.NoTracker"})
    command = [sys.executable, "-c", REPEAT, str(folder(tmp_path, 0)), WANDB]
    subprocess.run(command, env=environment(server), check=True)
    assert server.runs == {}
    agent = {"WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "trial7"}
    subprocess.run(command, env=environment(server) | agent, check=True)
    (run,) = server.runs.values()
    assert (run.name, run.fields["sweep"]) == ("trial7", "sweep1")
    assert_complete(run, 0, 4)
