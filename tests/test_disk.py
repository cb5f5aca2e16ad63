"""Disks that are full, read-only or without locks: plain words, and what was there stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from record_factory import record_of

from miles_repro import records
from miles_repro.errors import UserError
from miles_repro.records import RunRecord, disk, read_summary, status_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tiny" / "concat" / "miles" / "abc"


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
