"""Whatever interrupts a run, it ends in the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import (
    REPO,
    TEST_CONF,
    assert_same_record,
    build_fit,
    finished,
    lasting,
    rows_without_time,
    same_tensors,
    saved,
    settings,
    strategy_overrides,
)
from torch import Tensor, nn

import miles_repro.records as records
from miles_repro import loop, training
from miles_repro import run as running
from miles_repro.config import Config
from miles_repro.records import CONFIG, LAST, ROWS, SUMMARY, RunRecord, read_summary
from miles_repro.run import run


class Interrupted(Exception):
    """Stands for a kill."""


@pytest.fixture(autouse=True)
def _state_saved_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SAVE_EVERY_S", 0.0)


def stop_at(*epochs: int) -> Callable[[Config, dict[str, Any]], None]:
    def report(config: Config, row: dict[str, Any]) -> None:
        if row["epoch"] in epochs:
            raise Interrupted

    return report


class Jitter:
    """An augmentation with random numbers of its own."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + 0.5 * torch.randn(x.shape, generator=generator)


class Dropping(nn.Module):
    """An encoder that draws from torch's global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Dropout(0.5))
        self.dim = 8

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


SGD = {
    "optimizer": {
        "name": "sgd",
        "_target_": "torch.optim.SGD",
        "lr": 0.02,
        "momentum": 0.9,
        "clip_norm": None,
        "schedule": {"name": "constant", "_target_": "miles_repro.recipe.Constant"},
    }
}
LONG: list[tuple[str, dict[str, Any]]] = [
    ("miles", {"strategy.reset_other": False}),
    ("mslr_d", {}),
    ("mses", {"strategy.patience": 0.4}),
    ("mses", {"strategy.patience": 0.2, "strategy.criterion": "loss", **SGD}),
    ("gblend", {"strategy.mode": "online", "strategy.warmup": 2, "strategy.super_epoch": 2}),
    ("ogm_ge", {}),
    ("random_lr", {"optimizer.schedule._target_": "miles_repro.recipe.Cosine"}),
    ("modality_dropout", SGD),
    ("vanilla", {"optimizer.clip_norm": 1.0}),
    ("miles", {"precision.amp": "fp16"}),
    ("vanilla", {"dataset.modalities.image.augment": {"_target_": "test_resume.Jitter"}}),
    ("gblend", {"dataset.modalities.audio.encoder": {"_target_": "test_resume.Dropping"}}),
]


@pytest.mark.parametrize(
    "strategy, values", LONG, ids=[f"{s}-{'-'.join(v)}".replace("strategy.", "") for s, v in LONG]
)
def test_any_number_of_interruptions_changes_nothing(
    strategy: str, values: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    overrides = strategy_overrides(strategy)
    whole, cut = (
        settings(tiny_data, tmp_path / name, *overrides, epochs=6, **values)
        for name in ("whole", "cut")
    )
    finished(whole)
    sittings = 0
    while read_summary(cut.run_dir) is None:  # stopped after each epoch in turn
        sittings += 1
        try:
            run(cut, "test", stop_at(sittings))
        except Interrupted:
            assert [r["epoch"] for r in records.load_rows(cut.run_dir)] == [*range(1, sittings + 1)]
    assert sittings > 3
    assert_same_record(whole, cut)


@pytest.mark.parametrize("strategy", ["mses", "miles", "gblend", "mslr_d", "ogm"])
def test_a_resumed_training_ends_in_the_same_state(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    """Weights, buffers, optimizer moments, best weights, strategy: all bits of ``last.pt``."""
    values = {"strategy.patience": 0.4} if strategy == "mses" else {}
    config = settings(tiny_data, tmp_path, *strategy_overrides(strategy), epochs=5, **values)
    whole = build_fit(config)
    halves = []
    for epoch, _ in enumerate(whole.epochs(), start=1):
        if epoch == 3:
            halves.append(saved(whole.state_dict()))
    resumed = build_fit(config)
    resumed.load_state_dict(halves[0])
    list(resumed.epochs())

    def flat(value: Any, path: str = "") -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for key, x in value.items() for k, v in flat(x, f"{path}/{key}").items()}
        if isinstance(value, (list, tuple)):
            return {k: v for i, x in enumerate(value) for k, v in flat(x, f"{path}/{i}").items()}
        return {path: value}

    expected, found = flat(saved(whole.state_dict())), flat(saved(resumed.state_dict()))
    assert expected.keys() == found.keys()
    tensors = {k for k, v in expected.items() if isinstance(v, Tensor)}
    assert len(tensors) > 30
    assert same_tensors({k: expected[k] for k in tensors}, {k: found[k] for k in tensors})
    rest = expected.keys() - tensors - {"/train_seconds"}
    assert {k: expected[k] for k in rest} == {k: found[k] for k in rest}


def test_a_kill_in_the_middle_of_an_epoch(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (
        settings(tiny_data, tmp_path / name, *strategy_overrides("ogm_ge"), epochs=4)
        for name in ("whole", "cut")
    )
    finished(whole)
    steps = 0
    original = loop.Strategy.backward

    def backward(*args: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 4 * 2 + 3:  # third batch of the third epoch
            raise Interrupted
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Strategy, "backward", backward)
        with pytest.raises(Interrupted):
            run(cut, "test")
    finished(cut)
    assert_same_record(whole, cut)


def test_a_kill_between_the_row_and_the_state(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (
        settings(tiny_data, tmp_path / name, *strategy_overrides("mslr_d"), epochs=4)
        for name in ("whole", "cut")
    )
    finished(whole)
    original = RunRecord.save_state

    def save_state(self: RunRecord, state: dict[str, Any]) -> None:
        if state["fit"]["epoch"] == 3:
            raise Interrupted
        original(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "save_state", save_state)
        with pytest.raises(Interrupted):
            run(cut, "test")
    assert len(records.load_rows(cut.run_dir)) == 3  # one more than the state knows of
    finished(cut)
    assert_same_record(whole, cut)


def test_a_kill_during_the_final_evaluation(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (
        settings(tiny_data, tmp_path / name, *strategy_overrides("mses")) for name in ("w", "c")
    )
    finished(whole)

    def results(*args: Any) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(training, "results", results)
        with pytest.raises(Interrupted):
            run(cut, "test")
    finished(cut)
    assert_same_record(whole, cut)


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated state": lambda folder: truncate(folder / LAST),
    "empty state": lambda folder: (folder / LAST).write_bytes(b""),
    "garbage as state": lambda folder: (folder / LAST).write_bytes(os.urandom(5000)) and None,
    "no state": lambda folder: (folder / LAST).unlink(),
    "truncated rows": lambda folder: truncate(folder / ROWS),
    "no rows": lambda folder: (folder / ROWS).unlink(),
    "no configuration": lambda folder: (folder / CONFIG).unlink(),
    "truncated summary": lambda folder: (folder / SUMMARY).write_text('{"status": "do') and None,
    "another model's state": lambda folder: RunRecord(folder).save_state(
        {"fit": {"epoch": 1, "model": {"w": torch.zeros(3)}}, "history": [], "spent": {}}
    ),
    "half-written files": lambda folder: (folder / f"{LAST}.tmp").write_bytes(b"x") and None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_mends_itself(
    damage: str, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = (
        settings(tiny_data, tmp_path / name, *strategy_overrides("miles"), epochs=4)
        for name in ("whole", "cut")
    )
    finished(whole)
    with pytest.raises(Interrupted):
        run(cut, "test", stop_at(3))
    DAMAGE[damage](cut.run_dir)
    finished(cut)
    assert_same_record(whole, cut)
    assert (cut.run_dir / CONFIG).read_bytes() == (whole.run_dir / CONFIG).read_bytes()
    warned = "this run starts again from its first epoch" in capsys.readouterr().out
    assert warned == ("state" in damage and damage != "no state")


@pytest.mark.slow
def test_kill_signals_change_nothing(tiny_data: Path, tmp_path: Path) -> None:
    """Three SIGKILLs at whatever the process is doing, states saved as they are by default."""
    overrides = ("strategy=mses", "strategy.patience=1.0", "epochs=200", "optimizer.lr=0.02")

    def start(place: str) -> subprocess.Popen[bytes]:
        ours = (f"hydra.searchpath=[file://{TEST_CONF}]", "tracker=none", "dataset=tiny")
        where = (f"runtime.runs_dir={tmp_path / place}", "runtime.device=cpu")
        return subprocess.Popen(
            [sys.executable, str(REPO / "train.py"), *ours, *overrides, *where],
            env={**os.environ, "MILES_DATA": str(tiny_data)},
            stdout=subprocess.DEVNULL,
        )

    def rows(place: str) -> int:
        found = list((tmp_path / place).rglob(ROWS))
        return len(found[0].read_text().splitlines()) if found else 0

    assert start("whole").wait(300) == 0
    for wanted in (30, 80, 140):
        process = start("cut")
        while process.poll() is None and rows("cut") < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not list((tmp_path / "cut").rglob(SUMMARY))
    assert start("cut").wait(300) == 0
    whole, cut = (next((tmp_path / p).rglob(SUMMARY)).parent for p in ("whole", "cut"))
    assert rows_without_time(whole) == rows_without_time(cut)
    one, other = read_summary(whole), read_summary(cut)
    assert one is not None
    assert other is not None
    assert lasting(one) == lasting(other)
