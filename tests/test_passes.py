"""What strategies declare to cost agrees with counted floating-point operations."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from rows import rows
from support import REPO, build_fit, compose, home, strategy_overrides
from torch.utils.flop_counter import FlopCounterMode

from miles_repro import composing
from miles_repro.config import build

TOLERANCE = 0.25
"""In passes: vanilla is 1. Data decide how many rows some strategies repeat or leave out."""

SINGLE = "unimodal"
"""Compared with vanilla training it lacks an encoder; gpu_flops counts its own model."""


@cache
def prepared() -> Path:
    found = REPO / "data" / "smnist_mini"
    if not found.is_dir():
        pytest.skip("smnist_mini is not prepared: make data")
    return found.parent


@cache
def epoch_flops(strategy: str, fusion: str, epochs: int, runs: Path) -> float:
    """Operations of one epoch, of the encoders that smnist_mini is trained with."""
    words = [
        *("dataset=smnist_mini", "budget=smoke", "budget.data_fraction=0.3", f"epochs={epochs}"),
        *(f"runtime.data_dir={prepared()}", f"runtime.runs_dir={runs}"),
        *strategy_overrides(strategy, fusion),
    ]
    fit = build_fit(composing.load(compose(*words), words))
    with FlopCounterMode(display=False) as counter:
        for _ in fit.epochs():
            pass
    return counter.get_total_flops() / fit.epoch


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the teachers of all these strategies are kept."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(rows().keys() - {SINGLE}))
def test_declared_passes_are_those_counted(strategy: str, runs: Path) -> None:
    fusion = home(strategy)
    # copies train a tenth of the epochs, three at least
    epochs = 30 if strategy == "gblend" else 3
    plain = epoch_flops("vanilla", fusion, 3, runs)
    counted = epoch_flops(strategy, fusion, epochs, runs) / plain
    node = compose(*strategy_overrides(strategy, fusion))["strategy"]
    declared = build(composing.resolve(node)).needs.passes
    assert declared == pytest.approx(counted, abs=TOLERANCE)
