"""One run's folder: whole or absent, one writer at a time, and plain words when a disk fails."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from record_factory import record_of

from miles_repro import records
from miles_repro.errors import UserError
from miles_repro.records import RunRecord, disk, read_summary, status_of

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
    record.finish(record_of(folder))
    assert status_of(folder) == "done"
    assert not (folder / "error.txt").exists()


def test_a_damaged_state_starts_the_run_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut short, and any one bit turned round."""
    record = RunRecord(folder)
    assert record.load_state() is None
    whole = {"x": torch.arange(100), "epoch": 3}
    path = folder / "last.pt"
    draw = random.Random(3)
    for keep in (0, 10, 400, *[None] * 60):
        record.save_state(whole)
        state = RunRecord(folder).load_state()
        assert state is not None
        assert torch.equal(state["x"], whole["x"])
        data = bytearray(path.read_bytes())[:keep]
        if keep is None:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        assert RunRecord(folder).load_state() is None
        assert "last.pt is damaged" in capsys.readouterr().out
        assert not path.exists()


def test_a_state_without_its_checksum_is_not_trusted(folder: Path) -> None:
    record = RunRecord(folder)
    record.save_state({"epoch": 1})
    (folder / "last.sha256").unlink()
    assert record.load_state() is None


@pytest.mark.parametrize("at", ["last.sha256", "last.pt"])
def test_a_kill_between_checksum_and_state_leaves_a_state_to_resume_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    record = RunRecord(folder)
    for epoch in (1, 2):
        record.save_state({"epoch": epoch})
    original = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name == at:
            raise KeyboardInterrupt
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            record.save_state({"epoch": 3})
    after = RunRecord(folder)
    assert after.load_state() == {"epoch": 2}
    after.save_state({"epoch": 3})
    assert RunRecord(folder).load_state() == {"epoch": 3}


def test_a_state_that_does_not_fit_is_forgotten_with_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunRecord(folder)
    record.save_state({"epoch": 1})
    record.discard_state("has another shape")
    assert "last.pt has another shape; this run starts again" in capsys.readouterr().out
    assert list(folder.iterdir()) == []


harmed: list[int] = []


class Harm:
    """Pickled, code that runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return harmed.append, (1,)


def test_what_is_kept_beside_the_summary(folder: Path) -> None:
    record = RunRecord(folder)
    with pytest.raises(UserError, match="train the run with keep=weights"):
        record.load_weights()
    record.save_weights({"w": torch.arange(3.0)})
    record.save_predictions({"fused": np.eye(2, dtype=np.float32), "rows": np.arange(2)})
    assert torch.equal(record.load_weights()["w"], torch.arange(3.0))
    assert np.array_equal(record.load_predictions()["fused"], np.eye(2))
    torch.save({"w": Harm()}, folder / "weights.pt")
    np.savez(folder / "predictions.npz", fused=np.array([Harm()], dtype=object))
    for load in (record.load_weights, record.load_predictions):
        with pytest.raises(UserError, match="is damaged"):
            load()
    assert harmed == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No lock of another kind takes its place: it would stay after a kill."""

    def flock(descriptor: int, kind: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk.fcntl, "flock", flock)
    with pytest.raises(UserError, match="has no file locks"), RunRecord(folder).lease():
        raise AssertionError
    assert status_of(folder) == "unfinished"


def test_a_full_disk_is_one_line_and_keeps_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = RunRecord(folder)
    record.save_state({"epoch": 1})
    record.finish(record_of(folder))

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"summary\.json: the disk is full: free some space"):
        record.finish(record_of(folder, seed=1))
    assert read_summary(folder) == record_of(folder)
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
    assert RunRecord(folder).load_state() == {"epoch": 1}
    assert sorted(p.name for p in folder.iterdir()) == ["last.pt", "last.sha256"]


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


def test_json_holds_no_nan(folder: Path) -> None:
    RunRecord(folder).finish({"val": {"loss": math.inf, "rows": [math.nan, 1.0]}})
    text = (folder / "summary.json").read_text()
    assert json.loads(text)["val"] == {"loss": None, "rows": [None, 1.0]}
