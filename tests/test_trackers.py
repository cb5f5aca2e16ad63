"""Trackers: their troubles are one line; TensorBoard shows what W&B shows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tracked_runs import header, row, summary
from wandb_client import environment, python

from miles_repro import tracking
from miles_repro.config import target
from miles_repro.errors import UserError
from miles_repro.tracking import mirror


class Faulty:
    """A tracker of one's own, which breaks off at the second row."""

    heard: ClassVar[list[Any]] = []

    def __init__(self, header: Any, run_dir: Path, history: Any, greeting: str) -> None:
        self.heard.append(greeting)

    def log(self, row: Any) -> None:
        self.heard.append(row["epoch"])
        if row["epoch"] == 2:
            raise ValueError("made up")

    def finish(self, summary: Any, error: str | None = None) -> None:
        self.heard.append("end")


def test_a_trackers_own_trouble_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_said", set())
    node = {"_target_": f"{__name__}.Faulty", "greeting": "hello"}
    tracker = tracking.start(node, header(0), tmp_path, [])
    for epoch in (1, 2, 3):
        tracker.log(row(0, epoch))
    tracker.finish(summary(0, 3))
    assert Faulty.heard == ["hello", 1, 2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("training goes on (ValueError: made up)")


def test_tensorboard_shows_what_wandb_shows(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    node = {"_target_": "miles_repro.tracking.tensorboard.TensorBoard"}
    cut = tracking.start(node, header(0), tmp_path, [])
    cut.log(row(0, 1))
    cut.finish(None, "stopped")  # and resumed from the record
    tracker = tracking.start(node, header(0), tmp_path, [row(0, 1)])
    for epoch in (2, 3):
        tracker.log(row(0, epoch))
    tracker.finish(summary(0, 3))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = mirror.history_row(row(0, 2), "accuracy")
    for key in shown.keys() - {"epoch"}:
        assert [event.step for event in events.Scalars(key)][:3] == [1, 2, 3], key
        assert events.Scalars(key)[1].value == pytest.approx(shown[key])
    (found,) = events.Scalars("test/fused/accuracy")
    assert found.value == pytest.approx(2 / 3)


def test_a_missing_tensorboard_is_one_line_before_any_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delitem(sys.modules, "miles_repro.tracking.tensorboard", raising=False)
    monkeypatch.delattr(tracking, "tensorboard", raising=False)
    with pytest.raises(UserError, match=r"pip install 'miles-repro\[tensorboard\]'"):
        target({"_target_": "miles_repro.tracking.tensorboard.TensorBoard"})


@pytest.mark.parametrize("override", ["tracker.name=mlflow", "tracker=mlflow"])
def test_a_tracker_that_is_not_on_the_menu_is_refused_in_one_line(override: str) -> None:
    done = python("train.py", override, env=environment(None))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no ")
    assert "none" in line
    assert "tensorboard" in line
