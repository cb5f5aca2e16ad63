"""Run records: whole or absent, one writer at a time, and plain words when a disk fails."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from miles_repro import records
from miles_repro.errors import UserError
from miles_repro.records import RunRecord, load_rows, read_summary, run_folders, status_of

DONE = {"status": "done", "run_id": "a"}
HOLDER = """
import sys, time
from pathlib import Path
from miles_repro.records import RunRecord
with RunRecord(Path(sys.argv[1])).lease() as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tiny" / "concat" / "miles" / "abc"


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that has the run's lease."""
    repo = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=repo, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_lease_has_one_holder_and_a_kill_frees_it(folder: Path) -> None:
    holder = hold(folder)
    try:
        with RunRecord(folder).lease() as mine:
            assert not mine
        assert status_of(folder) == "running"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert status_of(folder) == "unfinished"
    with RunRecord(folder).lease() as mine:
        assert mine
        assert status_of(folder) == "running"


def _take(folder: str, results: Any, start: Any) -> None:
    start.wait()
    with RunRecord(Path(folder)).lease() as mine:
        results.put(mine)
        time.sleep(1.0)  # longer than any of them tries


def test_of_several_at_once_exactly_one_gets_the_lease(folder: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    results, start = spawn.Queue(), spawn.Event()
    takers = [spawn.Process(target=_take, args=(str(folder), results, start)) for _ in range(6)]
    for taker in takers:
        taker.start()
    start.set()
    got = [results.get(timeout=20) for _ in takers]
    for taker in takers:
        taker.join()
    assert sorted(got) == [False] * 5 + [True]


def test_looking_at_the_status_never_makes_a_run_busy(folder: Path) -> None:
    with RunRecord(folder).lease():
        pass
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            status_of(folder)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(50):
            with RunRecord(folder).lease() as mine:
                assert mine
    finally:
        over.set()
        watcher.join()


def test_a_new_try_clears_what_the_last_one_left(folder: Path) -> None:
    record = RunRecord(folder)
    record.fail("old trouble")
    (folder / "summary.json.123.tmp").write_text("{")
    assert status_of(folder) == "failed"
    with record.lease() as mine:
        assert mine
        assert sorted(p.name for p in folder.iterdir()) == [".lock"]


def test_states(folder: Path) -> None:
    record = RunRecord(folder)
    record.write_config({"seed": 0})
    assert status_of(folder) == "unfinished"
    assert record.fail("it broke") == folder / "error.txt"
    assert status_of(folder) == "failed"
    record.finish(DONE)
    assert status_of(folder) == "done"
    assert not (folder / "error.txt").exists()


@pytest.mark.parametrize("text", ["", '{"status": "done"', '{"status": "running"}', "[1]"])
def test_a_damaged_summary_is_no_result(folder: Path, text: str) -> None:
    RunRecord(folder).write_config({})
    (folder / "summary.json").write_text(text)
    assert read_summary(folder) is None
    assert status_of(folder) == "unfinished"


def test_a_row_cut_short_is_left_out(folder: Path) -> None:
    record = RunRecord(folder)
    record.append({"epoch": 1})
    record.append({"epoch": 2, "loss": math.nan})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert load_rows(folder) == [{"epoch": 1}, {"epoch": 2, "loss": None}]
    record.rewrite_rows(load_rows(folder))
    assert (folder / "metrics.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_a_truncated_state_starts_the_run_again(
    folder: Path, keep: int, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunRecord(folder)
    assert record.load_state() is None
    record.save_state({"x": torch.arange(100)})
    state = record.load_state()
    assert state is not None
    assert torch.equal(state["x"], torch.arange(100))
    path = folder / "last.pt"
    path.write_bytes(path.read_bytes()[:keep])
    assert record.load_state() is None
    assert "last.pt is damaged" in capsys.readouterr().out


def test_a_full_disk_is_one_line_and_keeps_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = RunRecord(folder)
    record.save_state({"epoch": 1})
    record.finish(DONE)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"summary\.json: the disk is full: free some space"):
        record.finish({"status": "done", "run_id": "b"})
    assert read_summary(folder) == DONE
    assert sorted(p.name for p in folder.iterdir()) == ["summary.json"]
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.pt: the disk is full"):
        record.save_state({"epoch": 2})


@pytest.mark.parametrize(
    "words",
    [
        "PytorchStreamWriter failed writing file data.pkl: file write failed",
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
    ],
)
def test_a_full_disk_keeps_the_last_whole_state(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    record = RunRecord(folder)
    record.save_state({"epoch": 1})

    def cut_short(state: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError(words)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut_short)
        with pytest.raises(UserError, match="finished runs are kept"):
            record.save_state({"epoch": 2})
    assert record.load_state() == {"epoch": 1}
    assert [p.name for p in folder.iterdir()] == ["last.pt"]


def test_a_failure_that_cannot_be_kept_is_no_second_failure(folder: Path) -> None:
    record = RunRecord(folder)
    (folder / "error.txt").mkdir()
    assert record.fail("it broke") is None


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "Input/output"),
    ],
)
def test_every_disk_error_names_path_and_reason(tmp_path: Path, number: int, words: str) -> None:
    with (
        pytest.raises(UserError, match=f"{tmp_path}.*{words}"),
        records.disk_errors(tmp_path),
    ):
        raise OSError(number, os.strerror(number))


def test_an_ordinary_runtime_error_is_not_taken_for_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), records.disk_errors(tmp_path):
        raise RuntimeError("shapes differ")


def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        records.require_writable(tmp_path / "file" / "runs")
    records.require_writable(tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_folders_come_in_a_fixed_order_and_hidden_ones_do_not(tmp_path: Path) -> None:
    for name in ("b/concat/miles/2", "b/concat/miles/1", "a/sum/ogm/3", ".sweeps/x"):
        RunRecord(tmp_path / name).write_config({})
    found = [str(p.relative_to(tmp_path)) for p in run_folders(tmp_path)]
    assert found == ["a/sum/ogm/3", "b/concat/miles/1", "b/concat/miles/2"]
    assert list(run_folders(tmp_path / "absent")) == []


def test_json_holds_no_nan(folder: Path) -> None:
    RunRecord(folder).finish({**DONE, "val": {"loss": math.inf, "rows": [math.nan, 1.0]}})
    text = (folder / "summary.json").read_text()
    assert json.loads(text)["val"] == {"loss": None, "rows": [None, 1.0]}
