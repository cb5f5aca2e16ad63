"""The test split: no way there in training, opened once afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from reach import reachable_arrays
from support import (
    SIZES,
    STRATEGIES,
    finished,
    prepare_tiny,
    rows_without_time,
    settings,
    strategy_overrides,
)

from miles_repro.context import Context
from miles_repro.data.reader import PreparedData
from miles_repro.records import SUMMARY
from miles_repro.run import run
from miles_repro.strategy import Scores, Strategy


@pytest.fixture(scope="module")
def poisoned_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny sets with NaN and wrong labels in every test row, the rest as it was."""
    return prepare_tiny(tmp_path_factory.mktemp("poisoned"), poison=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_test_sample_before_the_end(
    strategy: str, tiny_data: Path, poisoned_data: Path, tmp_path: Path
) -> None:
    clean, poisoned = (
        settings(data, tmp_path, *strategy_overrides(strategy))
        for data in (tiny_data, poisoned_data)
    )
    assert clean.run_dir != poisoned.run_dir
    one, other = finished(clean), finished(poisoned)
    assert rows_without_time(clean.run_dir) == rows_without_time(poisoned.run_dir)
    assert one["val"] == other["val"]
    assert one["best_epoch"] == other["best_epoch"]
    assert one["utilization"]["val"] == other["utilization"]["val"]
    assert one["test"] != other["test"]
    written = json.loads((poisoned.run_dir / SUMMARY).read_text())
    assert written["test"]["fused"]["loss"] is None  # NaN is null in JSON


@pytest.mark.parametrize("strategy", ["miles", "gblend"])
def test_the_test_split_is_opened_once_after_training(
    strategy: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    original = PreparedData.part

    def part(self: PreparedData, name: str, *args: Any, **kwargs: Any) -> Any:
        events.append(name)
        return original(self, name, *args, **kwargs)

    monkeypatch.setattr(PreparedData, "part", part)
    config = settings(tiny_data, tmp_path, *strategy_overrides(strategy))
    run(config, "test", lambda config, row: events.append(f"epoch {row['epoch']}"))
    assert events == ["train", "val", "epoch 1", "epoch 2", "epoch 3", "test"]


class Looking(Strategy):
    """Looks for rows of the test split wherever its context leads to."""

    found: ClassVar[list[np.ndarray]] = []

    def on_epoch_end(self, ctx: Context, train: Scores, val: Scores) -> None:
        self.found.extend(reachable_arrays(ctx))


@pytest.mark.parametrize("resident_mb", [0, 64])
def test_a_strategy_s_context_leads_to_no_array_with_test_rows(
    resident_mb: int, poisoned_data: Path, tmp_path: Path
) -> None:
    """Test rows are NaN here, and the splits have 26, 14 and 12 rows of 52."""
    node = {"strategy.name": "looking", "strategy._target_": "test_test_rows.Looking"}
    sizes = {"runtime.resident_mb": resident_mb, "epochs": 1}
    config = settings(poisoned_data, tmp_path, "strategy=vanilla", **node, **sizes)
    Looking.found.clear()
    run(config, "test")
    arrays = [a for a in Looking.found if a.ndim]
    inputs = {a.shape for a in arrays if a.shape[1:] in ((3, 4), (1, 6, 6))}
    held = {(26, 1, 6, 6), (14, 3, 4)} if resident_mb else set()  # else they stay on disk
    assert held <= inputs
    assert not {n for n, *_ in inputs} & {SIZES["test"], sum(SIZES.values())}
    assert not any(np.isnan(a).any() for a in arrays if a.dtype.kind == "f")
    folder = poisoned_data / config.dataset.name
    labels = np.load(folder / "labels.npy")
    tested = set(np.load(folder / "splits.npz")["main.test"].tolist())
    whole = [a for a in arrays if a.ndim == 1 and a.dtype.kind == "i"]
    assert any(len(a) == SIZES["train"] for a in whole)
    assert not any(a.tolist() == labels.tolist() or set(a.tolist()) == tested for a in whole)
