"""Run records: whole or absent, one writer at a time, and plain words when a disk fails."""

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
from miles_repro.records import (
    Ignored,
    RunRecord,
    check_name,
    disk,
    last_error,
    load_rows,
    load_summaries,
    read_summary,
    run_folders,
    status_of,
    tell,
)

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


OTHER: dict[str, bytes] = {
    "empty": b"",
    "cut short": b'{"status": "done"',
    "a list": b"[1]",
    "bytes": b"\xff\xfe{}",
    "too deep": b"[" * 100_000,
    "nothing in it": b'{"status": "done"}',
}
CHANGED: dict[str, dict[str, Any]] = {
    "another status": {"status": "running"},
    "a trial that is text": {"trial": "1"},
    "a trial that is true": {"trial": True},
    "a seed below 0": {"seed": -1},
    "a budget that leads elsewhere": {"budget": "../../x"},
    "a budget with markup": {"budget": "<script>"},
    "a modality with markup": {"modalities": ["<img src=x>", "audio"]},
    "scores of no modality": {"test": {"fused": {"loss": 0.1, "metric": 0.2}, "smell": {}}},
    "no fused scores": {"val": {}},
    "a metric that is text": {"test": {"fused": {"loss": 0.1, "metric": "0.9"}}},
    "a configuration without sections": {"config": {}},
    "a label with markup": {"label": "<b>best</b>"},
    "a long name": {"metric": "m" * 65},
    "a newer version": {"schema": 3},
    "another place": {"run_id": "other"},
    "a best epoch after the last": {"best_epoch": 11},
}


@pytest.mark.parametrize("what", [*OTHER, *CHANGED])
def test_a_summary_that_cannot_be_used_is_no_result_and_is_named(folder: Path, what: str) -> None:
    RunRecord(folder).write_config({})
    content = OTHER.get(what, json.dumps(record_of(folder, **CHANGED.get(what, {}))).encode())
    (folder / "summary.json").write_bytes(content)
    ignored: list[Ignored] = []
    assert read_summary(folder, ignored) is None
    assert status_of(folder) == "unfinished"
    assert [item.path for item in ignored] == [folder / "summary.json"]
    assert len(ignored[0].why) < 200
    assert "\n" not in ignored[0].why
    assert tell(ignored) == 1


def test_a_record_of_an_older_version_is_named_and_harmless(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunRecord(folder).finish(record_of(folder, schema=1))
    ignored: list[Ignored] = []
    assert load_summaries(folder.parents[3], ignored) == []
    assert tell(ignored) == 0
    assert "is of an older version (schema 1)" in capsys.readouterr().err


def test_a_summary_of_every_kind_of_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    nan = {"loss": None, "metric": None}
    three = {"modalities": ["image", "audio", "text"], "strong": None, "weak": None, "gap": None}
    for i, changes in enumerate(
        ({}, {"status": "diverged", "test": {"fused": nan}}, three, {"unknown_later": [1, {}]})
    ):
        folder = tmp_path / "own_data-2.0" / "gated" / "miles" / f"{i:012x}"
        written = record_of(folder, **changes)
        RunRecord(folder).finish(written)
        assert read_summary(folder) == written


NO_NAMES = ["", ".", "..", "a/b", "/x", "a b", "<b>", "é", "x" * 65, "a\n", None, 1]


@pytest.mark.parametrize("name", NO_NAMES)
def test_names_that_no_folder_may_have(name: Any) -> None:
    with pytest.raises(UserError, match=r"fusion\.name=.*: a name has 1 to 64 letters"):
        check_name(name, "fusion.name")
    assert check_name("smnist_mini-2.0+x", "dataset.name") == "smnist_mini-2.0+x"


def test_a_row_cut_short_is_left_out(folder: Path) -> None:
    record = RunRecord(folder)
    record.append({"epoch": 1})
    record.append({"epoch": 2, "loss": math.nan})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert load_rows(folder) == [{"epoch": 1}, {"epoch": 2, "loss": None}]
    record.rewrite_rows(load_rows(folder))
    assert (folder / "metrics.jsonl").read_text().count("\n") == 2


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


def test_folders_come_in_a_fixed_order_and_hidden_ones_do_not(tmp_path: Path) -> None:
    for name in ("b/concat/miles/2", "b/concat/miles/1", "a/sum/ogm/3", ".sweeps/x/y/z"):
        RunRecord(tmp_path / name).write_config({})
    found = [str(p.relative_to(tmp_path)) for p in run_folders(tmp_path)]
    assert found == ["a/sum/ogm/3", "b/concat/miles/1", "b/concat/miles/2"]
    assert [p.name for p in run_folders(tmp_path / "b/concat/miles", depth=1)] == ["1", "2"]
    assert list(run_folders(tmp_path / "absent")) == []


def test_strays_and_damage_hide_no_run_and_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = tmp_path / "d" / "concat" / "miles"
    for i in range(3):
        RunRecord(cell / str(i)).finish(record_of(cell / str(i)))
    (tmp_path / "error.txt").write_text("")
    (tmp_path / "d" / "config.json").write_text("{}")
    (tmp_path / "d" / "concat" / "summary.json").write_text("{}")
    (tmp_path / "d" / "loop").symlink_to("loop")
    (tmp_path / "d" / "round").symlink_to(tmp_path / "d")
    (tmp_path / "d" / "<b>").mkdir()
    (tmp_path / "d" / os.fsdecode(b"\xff\xfe")).mkdir()
    os.mkfifo(tmp_path / "fifo")
    (cell / "empty").mkdir()
    (cell / "pipe").mkdir()
    os.mkfifo(cell / "pipe" / "summary.json")
    ignored: list[Ignored] = []
    assert [s["run_id"] for s in load_summaries(tmp_path, ignored)] == ["0", "1", "2"]
    harmless = {i.path.name for i in ignored if i.harmless}
    assert {"error.txt", "config.json", "summary.json", "fifo"} <= harmless
    bad = [i for i in ignored if not i.harmless]
    assert {"loop", "<b>", os.fsdecode(b"\xff\xfe")} <= {i.path.name for i in bad}
    assert any(i.path == cell / "pipe" / "summary.json" and "ordinary" in i.why for i in bad)
    assert tell(ignored) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "more like this" in lines[0]


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/c/s/1", "b/c/s/2"):
        RunRecord(tmp_path / name).finish(record_of(tmp_path / name, level=(0.5, 0.5, 0.5)))
    original = os.scandir

    def scandir(path: Path) -> Any:
        if Path(path) == tmp_path / "a":
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    ignored: list[Ignored] = []
    assert [s["run_id"] for s in load_summaries(tmp_path, ignored)] == ["2"]
    assert ignored == [Ignored(tmp_path / "a", "cannot be read: Permission denied")]


def test_rows_and_errors_of_any_bytes(folder: Path) -> None:
    RunRecord(folder).write_config({})
    assert load_rows(folder) == []
    assert last_error(folder) == "no message"
    (folder / "metrics.jsonl").write_bytes(b'{"epoch": 1}\n{"epoch": 2, "val": 3}\n')
    assert load_rows(folder) == [{"epoch": 1}]
    (folder / "metrics.jsonl").write_bytes(b'\xff\xfe{"epoch": 1}\n')
    assert load_rows(folder) == []
    (folder / "error.txt").write_bytes(b"Traceback\n\x1b[31mbad \xff\n")
    assert last_error(folder) == "?[31mbad \ufffd"


def test_json_holds_no_nan(folder: Path) -> None:
    RunRecord(folder).finish({"val": {"loss": math.inf, "rows": [math.nan, 1.0]}})
    text = (folder / "summary.json").read_text()
    assert json.loads(text)["val"] == {"loss": None, "rows": [None, 1.0]}
