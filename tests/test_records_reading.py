"""Reading trees of records: what is whole is used, what is not is named, nothing breaks off."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from record_factory import record_of

from miles_repro.errors import UserError
from miles_repro.records import (
    Ignored,
    RunRecord,
    check_name,
    last_error,
    load_rows,
    load_summaries,
    read_summary,
    run_folders,
    status_of,
    tell,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tiny" / "concat" / "miles" / "abc"


OTHER: dict[str, bytes] = {
    "empty": b"",
    "cut short": b'{"status": "done"',
    "a list": b"[1]",
    "bytes": b"\xff\xfe{}",
    "too deep": b"[" * 100_000,
    "nothing in it": b'{"status": "done"}',
}
CONFIG = {key: {} for key in ("dataset", "fusion", "strategy", "budget")}
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
    "no learning rate": {"config": {**CONFIG, "optimizer": {"name": "adam"}}},
    "a learning rate that is text": {"config": {**CONFIG, "optimizer": {"lr": "0.1"}}},
    "rates of utilization of one split": {"utilization": {"val": None}},
    "a label with markup": {"label": "<b>best</b>"},
    "a label of two lines": {"label": "best\u2028of all"},
    "a label written backwards": {"label": "\u202ebest"},
    "a command of two lines": {"command": "python train.py\n% and more"},
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
    names = ["image", "audio", "text"]
    three = {"modalities": names, "strong": None, "weak": None, "gap": None}
    three |= {"level": (0.9, 0.8, 0.7, 0.6)}
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
