"""The W&B mirror without a server: the client's offline files hold exactly the record."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tracked_runs import folder, header, row, summary
from wandb_client import REPO, environment, offline_file, python, read_offline, track

from miles_repro.tracking import connection, mirror

RUNS, EPOCHS = 20, 4


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """20 runs in one process without key, terminal, network or home directory."""
    root = tmp_path_factory.mktemp("runs")
    spent, stderr = track(environment(None), root=root, runs=RUNS, epochs=EPOCHS)
    return root, spent, stderr


def test_every_run_is_its_own_wandb_run_with_its_own_config(twenty: Any) -> None:
    root, _, _ = twenty
    for number in range(RUNS):
        read = read_offline(offline_file(folder(root, number)))
        run = read["run"]
        assert (run.run_id, run.project) == (header(number)["run_id"], "demo")
        assert (run.run_group, run.job_type) == ("toy/smoke/concat/miles", "search")
        assert list(run.tags) == ["smoke", "t"]
        assert read["config"] == mirror.flat_config(header(number))
        assert read["config"]["strategy/tau"] == header(number)["config"]["strategy"]["tau"]
        assert read["exit"] == 0


def test_every_value_equals_the_record(twenty: Any) -> None:
    root, _, _ = twenty
    for number in range(RUNS):
        run_dir = folder(root, number)
        read = read_offline(offline_file(run_dir))
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        assert read["rows"] == [mirror.history_row(row, "accuracy") for row in rows]
        record = json.loads((run_dir / "summary.json").read_text())
        expected = mirror.summary_values(record)
        assert {k: v for k, v in read["summary"].items() if k in expected} == expected
        assert read["records"] == [record]


def test_the_clients_own_reader_agrees(twenty: Any) -> None:
    root, _, _ = twenty
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
    done = subprocess.run(
        [*command, str(offline_file(folder(root, 7)))],
        env=environment(None),
        capture_output=True,
        text=True,
        check=True,
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    items = [r["history"]["item"] for r in records if r["type"] == "history"]
    rows = [{k: v for k, v in item.items() if not k.startswith("_")} for item in items]
    assert rows == [mirror.history_row(row(7, epoch), "accuracy") for epoch in range(1, EPOCHS + 1)]


def test_epoch_is_the_step_and_no_summary_is_more_than_a_number(twenty: Any) -> None:
    """A summary such as "max" would be ``{"max": x}`` while a run is live."""
    root, _, _ = twenty
    read = read_offline(offline_file(folder(root, 0)))
    assert read["metrics"]["*"].step_metric == "epoch"
    assert set(read["metrics"]) == {"*", "epoch"}
    assert all(isinstance(value, int | float | str) for value in read["summary"].values())


def test_one_line_says_how_to_sync(twenty: Any) -> None:
    root, _, stderr = twenty
    (line,) = stderr.splitlines()
    assert line.startswith("tracker: W&B is offline: no API key")
    assert line.endswith(f"python scripts/sync_wandb.py {os.path.relpath(root, REPO)}")


def test_later_runs_cost_little(twenty: Any) -> None:
    """An idle core needs 11 ms a start, 0.5 ms a log, 4 ms an end; a busy one gets some room."""
    _, spent, _ = twenty
    middle = {
        name: sorted(spent[name])[len(spent[name]) // 2] for name in ("start", "log", "finish")
    }
    assert middle["start"] < 0.4
    assert middle["log"] < 0.02
    assert middle["finish"] < 0.4


def test_resuming_replays_the_record_into_one_offline_run(tmp_path: Path) -> None:
    env = environment(None)
    track(env, root=tmp_path, epochs=6, kill_at=3)
    run_dir = folder(tmp_path, 0)
    assert not (run_dir / "summary.json").exists()
    track(env, root=tmp_path, epochs=6)
    read = read_offline(offline_file(run_dir))
    assert [row["epoch"] for row in read["rows"]] == [1, 2, 3, 4, 5, 6]
    assert read["run"].run_id == header(0)["run_id"]


@pytest.mark.parametrize(
    "config", [{"_target_": "miles_repro.tracking.NoTracker"}, {"mode": "disabled"}]
)
def test_without_a_tracker_nothing_is_written(tmp_path: Path, config: dict[str, str]) -> None:
    spent, stderr = track(environment(None), root=tmp_path, config=config)
    assert stderr == ""
    assert not list(tmp_path.rglob("wandb"))
    assert not spent["wandb"]


@pytest.mark.parametrize("tags", ["abc", [1], {"a": "b"}])
def test_tags_that_are_no_list_of_text_are_refused_in_one_line(tmp_path: Path, tags: Any) -> None:
    _, stderr = track(environment(None), root=tmp_path, config={"tags": tags})
    (line,) = stderr.splitlines()
    assert "no mirror of this run" in line
    assert f"tracker.tags={tags}: give a list of text" in line
    assert not list(tmp_path.rglob("wandb"))
    assert json.loads((folder(tmp_path, 0) / "summary.json").read_text()) == summary(0, 4)


def test_a_folder_that_cannot_be_written_costs_only_the_mirror(tmp_path: Path) -> None:
    run_dir = folder(tmp_path, 0)
    run_dir.mkdir(parents=True)
    (run_dir / "wandb").write_text("in the way")
    _, stderr = track(environment(None), root=tmp_path, epochs=3)
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 3
    assert json.loads((run_dir / "summary.json").read_text()) == summary(0, 3)
    assert stderr.count("\n") == 1
    assert "no mirror of this run" in stderr


def test_a_full_disk_costs_only_the_mirror(tmp_path: Path) -> None:
    """The run's own record must fit: the disk fills up behind it, under the client's files."""
    run_dir = folder(tmp_path, 0)
    (run_dir / "wandb").mkdir(parents=True)
    small = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(run_dir / "wandb")]
    if subprocess.run(small, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        spent, _ = track(environment(None), root=tmp_path, epochs=60)
    finally:
        subprocess.run(["umount", str(run_dir / "wandb")], check=True)
    assert json.loads((run_dir / "summary.json").read_text()) == summary(0, 60)
    assert max(spent["log"]) < 0.5
    assert spent["finish"][0] < 5


def test_sync_without_a_key_is_one_line(twenty: Any) -> None:
    done = python("scripts/sync_wandb.py", str(twenty[0]), env=environment(None))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no API key")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name, value", [("WANDB_BASE_URL", "not a url"), ("WANDB_MODE", "")])
@pytest.mark.parametrize("script", ["sync_wandb", "dashboards"])
def test_a_setting_that_the_client_does_not_take_is_one_line(
    twenty: Any, script: str, name: str, value: str
) -> None:
    env = environment(None) | {name: value}
    where = [str(twenty[0])] if script == "sync_wandb" else []
    done = python(f"scripts/{script}.py", *where, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: W&B cannot use its setting ")
    assert name in line


def test_unknown_values_are_left_out_and_keys_are_namespaced() -> None:
    flat = mirror.history_row(row(0, 1), "accuracy")
    assert "utilization/u_audio" not in flat
    assert {"train/fused/loss", "val/image/accuracy", "val/fused/accuracy"} < set(flat)
    assert {"utilization/u_image", "utilization/delta", "time/epoch_s"} < set(flat)
    assert {"lr/encoder.image", "lr/fusion", "strategy/tau"} < set(flat)
    end = mirror.summary_values(summary(0, 3))
    assert {"test/fused/accuracy", "test/gap", "test/missing/image+audio/zero/accuracy"} < set(end)
    assert {"test/noise/image/0.5/accuracy", "test/utilization/u_image", "best_epoch"} < set(end)
    assert {"utilization/u_image", "val/probe/image/accuracy", "test/split/image/loss"} < set(end)
    assert end["test/score"] == end["test/fused/accuracy"]
    assert not [key for key in end if "metric" in key.split("/")[1:]]
    assert None not in end.values()


def test_a_headline_of_several_metrics_keeps_its_own_name() -> None:
    scores = {"loss": 1.0, "metric": 0.7, "f1_micro": 0.7, "f1_macro": 0.6}
    flat = mirror.history_row({"epoch": 1, "val": {"fused": scores}}, "f1_micro")
    keys = [f"val/fused/{name}" for name in ("loss", "f1_micro", "f1_macro")]
    assert flat == dict(zip(keys, (1.0, 0.7, 0.6), strict=True)) | {"epoch": 1}


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"seed": 0}, "search"),
        ({"seed": 5}, "winner"),
        ({"seed": 6}, "decision"),
        ({"seed": 6, "seeds": None}, "winner"),
        ({"seed": 3, "pinned": ["strategy.tau"]}, "ablation"),
        ({"seed": 0, "config": {"strategy": {"source": "train"}}}, "ablation"),
    ],
)
def test_the_job_type_is_the_part_in_the_protocol(changes: dict[str, Any], expected: str) -> None:
    assert mirror.job_type(header(0) | changes) == expected


def test_a_name_says_what_differs_beyond_cell_trial_and_seed() -> None:
    command = (
        "python train.py dataset=toy strategy=miles seed=1 trial=best +optimizer.nesterov=true "
        "epochs=5 optimizer/schedule=cosine runtime.device=cpu hydra/launcher=in_process "
        "tracker=wandb"
    )
    name = mirror.run_fields({}, header(0) | {"command": command})["name"]
    own = "+optimizer.nesterov=true epochs=5 optimizer/schedule=cosine"
    assert name == f"miles t0 s0 toy/concat {own}"
    assert (
        len(mirror.run_fields({}, header(0) | {"command": f"{command} a={'b' * 200}"})["name"])
        == 128
    )


def test_a_key_is_found_in_the_environment_and_in_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    assert not connection.has_key("https://wandb.example.org")
    netrc.write_text("machine wandb.example.org\n  login user\n  password secret\n")
    netrc.chmod(0o600)
    assert connection.has_key("https://wandb.example.org")
    assert not connection.has_key("https://other.example.org")
    netrc.write_text("machine\n")
    assert not connection.has_key("https://wandb.example.org")
    monkeypatch.setenv("WANDB_API_KEY", "geheim")
    assert connection.has_key("https://other.example.org")
    assert connection.hide_key("key geheim refused") == "key [key] refused"
    for sent in (b"api:geheim", b"geheim", b"user:geheim"):  # as HTTP's basic authentication
        text = base64.b64encode(sent).decode()
        for form in (text, text.rstrip("=")):
            assert connection.hide_key(f"Basic {form} refused") == "Basic [key] refused"
    both = "machine a.example\n password secret\nmachine b.example\n password secret-2\n"
    netrc.write_text(both)
    assert connection.hide_key("secret-2, secret") == "[key], [key]"
    monkeypatch.setenv("WANDB_API_KEY", "g/heim")
    assert connection.hide_key("http://user:g%2Fheim@host") == "http://user:[key]@host"
