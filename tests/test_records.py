"""One run's folder: whole or absent, one writer at a time, and plain words when a disk fails."""

from __future__ import annotations

import json
import math
import multiprocessing
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

from miles_repro.errors import UserError
from miles_repro.records import ROWS, RunRecord, status_of
from miles_repro.records.writing import NEW_ROWS

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


def test_json_holds_no_nan(folder: Path) -> None:
    RunRecord(folder).finish({"val": {"loss": math.inf, "rows": [math.nan, 1.0]}})
    text = (folder / "summary.json").read_text()
    assert json.loads(text)["val"] == {"loss": None, "rows": [None, 1.0]}


def test_a_repeated_run_keeps_its_curve_until_it_ends(folder: Path) -> None:
    record = RunRecord(folder)
    record.rewrite_rows([{"epoch": 1}, {"epoch": 2}])
    record.finish({"first": True})
    again = RunRecord(folder)
    again.rewrite_rows([])
    again.append({"epoch": 1})
    assert len((folder / ROWS).read_text().splitlines()) == 2  # a kill here loses nothing
    again.finish({"second": True})
    assert (folder / ROWS).read_text() == '{"epoch": 1}\n'
    assert not (folder / NEW_ROWS).exists()


def test_a_state_saved_by_other_code_is_not_resumed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunRecord(folder, {"loop": "1"}).save_state({"epoch": 3})
    assert RunRecord(folder, {"loop": "1"}).load_state() == {"epoch": 3}
    assert RunRecord(folder, {"loop": "2"}).load_state() is None
    assert "was saved by other code; this run starts again" in capsys.readouterr().out
    assert not (folder / "last.pt").exists()
