"""Strategies that can start from unimodal runs: they do, and go on from a kill to the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rows import context
from support import lasting, rows_without_time, settings
from torch import nn

from miles_repro import run as running
from miles_repro.context import Teacher
from miles_repro.errors import UserError
from miles_repro.fusions.late import Late
from miles_repro.run import run
from miles_repro.strategies.mcr import MCR
from miles_repro.strategies.reconboost import ReconBoost
from miles_repro.strategy import Strategy

CASES = [("reconboost", "late"), ("mcr", "concat")]


@pytest.mark.parametrize("strategy, fusion", CASES)
def test_a_killed_run_goes_on_to_the_same_bits(
    strategy: str, fusion: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "SAVE_EVERY_S", 0.0, raising=False)
    chosen = (f"strategy={strategy}", f"fusion={fusion}", "strategy.init=teacher")
    overrides = (*chosen, "+strategy.teachers=best")
    whole, cut = (settings(tiny_data, tmp_path / n, *overrides) for n in ("whole", "cut"))

    def interrupt(config: object, row: dict[str, int]) -> None:
        if config is cut and row["epoch"] == 2:
            raise KeyboardInterrupt

    expected = run(whole, "test").summary
    with pytest.raises(KeyboardInterrupt):
        run(cut, "test", interrupt)
    found = run(cut, "test").summary
    assert expected is not None
    assert found is not None
    assert lasting(expected) == lasting(found)
    assert rows_without_time(whole.run_dir) == rows_without_time(cut.run_dir)
    with pytest.raises(UserError, match=f"{strategy} learns from unimodal runs"):
        running.check(settings(tiny_data, tmp_path, *chosen))


@pytest.mark.parametrize("strategy", [ReconBoost(), MCR()])
def test_encoders_start_from_the_teachers(strategy: Strategy) -> None:
    parts: dict[str, nn.Module] = {m: nn.Linear(4, 3) for m in "av"}
    ctx = context(strategy, parts, Late(dict.fromkeys("av", 3), 3))
    ctx.teachers = {m: Teacher(nn.Linear(4, 3), nn.Linear(3, 3)) for m in "av"}
    strategy.init = "teacher"  # type: ignore[attr-defined]
    strategy.setup(ctx)
    for m, encoder in parts.items():
        assert torch.equal(encoder.weight, ctx.teacher(m).encoder.weight)  # type: ignore[arg-type]
        if isinstance(strategy, ReconBoost):
            logits = ctx.model(dict.fromkeys("av", torch.ones(2, 4))).unimodal[m]
            torch.testing.assert_close(logits, ctx.teacher(m)(torch.ones(2, 4))[1])
