"""Work in several processes: progress, threads, death of a worker."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from miles_repro.data import manifest as manifest_module
from miles_repro.data import progress as progress_module
from miles_repro.data.manifest import file_table, fingerprint
from miles_repro.data.pool import THREADS, in_parallel
from miles_repro.data.progress import Progress, duration
from miles_repro.errors import UserError


def ask_environment(_: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


def die(_: int) -> None:
    os._exit(9)


def test_plain_progress_says_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "PLAIN_EVERY_S", 0.0)
    now = iter([0.0, 10.0, 40.0, 40.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(now))
    with Progress("toy", 100, done=20) as bar:
        bar.advance(20)
        bar.advance(60)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "toy: 20 of 100 were done before; going on from there",
        "toy: 40 of 100 (40%), about 30 s left",
        "toy: 100 of 100 done in 40 s",
    ]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress("toy", 10) as bar:
        bar.advance(10)
    assert "10/10" in screen.getvalue()


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59, 61, 3725)] == ["0 s", "59 s", "1 min 01 s", "1 h 02 min"]


def test_workers_compute_with_one_thread_and_leave_no_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = {name: os.environ.get(name) for name in THREADS}
    assert dict(in_parallel(ask_environment, [1, 2], 2)) == {0: "1", 1: "1"}
    assert {name: os.environ.get(name) for name in THREADS} == before


def test_a_killed_worker_is_one_line() -> None:
    with pytest.raises(UserError, match="out of memory"):
        list(in_parallel(die, [1, 2], 2))


def test_hashing_does_not_depend_on_the_order_of_names(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    table = file_table(tmp_path, ["b", "a"])
    assert list(table) == ["a", "b"]
    assert fingerprint(1, table) == fingerprint(1, dict(reversed(table.items())))
    assert fingerprint(1, table) != fingerprint(2, table)
    assert manifest_module.sha256_of(tmp_path / "a").startswith("ca978112")
