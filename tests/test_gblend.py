"""G-Blend: weights, copies, held-out rows."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import (
    build_fit,
    parameters,
    same_tensors,
    settings,
)
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from miles_repro.copies import Curve, held_out, learning_curve
from miles_repro.recipe import Step
from miles_repro.strategies import gblend
from miles_repro.strategies.gblend import blend_weights

losses = st.floats(0, 20)
curves = st.dictionaries(
    st.sampled_from(["a", "b", "c", "fused"]), st.builds(Curve, losses, losses, losses, losses)
).filter(len)


@given(curves, st.sampled_from(["clip", "abs"]))
def test_gblend_weights_are_a_distribution(curves: dict[str, Curve], rule: Any) -> None:
    weights = blend_weights(curves, rule)
    assert weights.keys() == curves.keys()
    assert all(w >= 0 for w in weights.values())
    assert sum(weights.values()) == pytest.approx(1)


def test_gblend_rules_for_what_the_source_leaves_open() -> None:
    good, worse = Curve(2, 2, 1, 1.5), Curve(2, 2, 1, 2.5)  # G 0.5 and -0.5, O 0.5 and 1.5
    assert blend_weights({"a": good, "b": worse}, "clip") == {"a": 1.0, "b": 0.0}
    assert blend_weights({"a": good, "b": worse}, "abs") == pytest.approx({"a": 0.9, "b": 0.1})
    signed = blend_weights({"a": good, "b": worse}, "signed")
    assert signed == pytest.approx({"a": 1.125, "b": -0.125})
    flat = Curve(2, 2, 1, 1)  # no overfitting at all: O^2 counts as 1e-4
    assert blend_weights({"a": good, "b": flat})["b"] == pytest.approx(1e4 / (1e4 + 2))
    lost = Curve(2, 2, math.nan, math.nan)
    assert blend_weights({"a": good, "b": lost, "c": Curve(2, 2, 1, math.inf)}) == {
        "a": 1.0,
        "b": 0.0,
        "c": 0.0,
    }
    assert blend_weights({"a": lost, "b": worse}) == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_gblend_in_training(
    mode: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"strategy.mode": mode, "strategy.warmup": 2, "strategy.super_epoch": 1, "epochs": 4}
    values |= {"strategy.holdout": 0.2}
    fit = build_fit(settings(tiny_data, tmp_path, "strategy=gblend", **values))
    seen: list[int] = []

    def curve(*args: Any) -> Any:
        before, generator = parameters(fit), torch.get_rng_state()
        found = learning_curve(*args)
        assert same_tensors(parameters(fit), before)  # copies leave the model alone
        assert torch.equal(torch.get_rng_state(), generator)
        seen.append(fit.ctx.epoch)
        return found

    monkeypatch.setattr(gblend, "learning_curve", curve)
    rows = list(fit.epochs())
    for row in rows:
        assert set(row["strategy"]) == {"w_image", "w_audio", "w_fused"}
        assert all(w >= 0 for w in row["strategy"].values())
        assert sum(row["strategy"].values()) == pytest.approx(1)
    assert seen == ([1] * 3 if mode == "offline" else [1] * 3 + [3] * 3 + [4] * 3)
    rows_used = set(fit.ctx.rows.tolist())
    trained, held = held_out(fit.ctx, 0.2)
    assert len(held) == 6
    assert set(trained.tolist()).isdisjoint(held.tolist())
    assert rows_used == (set(range(26)) if mode == "offline" else set(trained.tolist()))
    assert fit.samples == 4 * len(rows_used)


def test_copies_train_at_the_rate_of_the_epoch(tiny_data: Path, tmp_path: Path) -> None:
    fit = build_fit(settings(tiny_data, tmp_path, "strategy=gblend", "optimizer/schedule=step"))
    rates: dict[int, float] = {}

    def watched(self: torch.optim.Optimizer, *args: Any) -> None:
        rates[fit.ctx.epoch] = max(g["lr"] for g in self.param_groups)

    fit.ctx.recipe.schedule = Step(every=1, gamma=0.1)
    rows = torch.arange(26)
    handle = register_optimizer_step_pre_hook(watched)
    try:
        for fit.ctx.epoch in (1, 3):
            learning_curve(fit.ctx, "fused", 1, rows, None, "loss")
    finally:
        handle.remove()
    assert rates == pytest.approx({1: 0.02, 3: 0.0002})


def test_a_copy_trains_one_head_alone_on_the_rows_not_held_out(
    tiny_data: Path, tmp_path: Path
) -> None:
    fit = build_fit(settings(tiny_data, tmp_path, "strategy=gblend"))
    touched: list[int] = []
    original = fit.train.batches

    def batches(order: Tensor, size: int) -> Any:
        touched.extend(order.tolist())
        return original(order, size)

    fit.train.batches = batches  # type: ignore[method-assign]
    trained, held = held_out(fit.ctx, 0.2)
    curve = learning_curve(fit.ctx, "audio", 2, trained, held, "loss")
    # Measured before and after, all of them; trained on twice, the held-out ones never.
    counts = {i: touched.count(i) for i in range(26)}
    assert counts == {i: 2 if i in held.tolist() else 4 for i in range(26)}
    assert curve.train_end < curve.train_start
    assert learning_curve(fit.ctx, "audio", 2, trained, held, "loss") == curve
    as_metric = learning_curve(fit.ctx, "audio", 2, trained, held, "metric")
    assert all(0 <= x <= 1 for x in dataclasses.astuple(as_metric))
    on_val = learning_curve(fit.ctx, "audio", 2, trained, None, "loss")
    assert (on_val.train_start, on_val.train_end) == (curve.train_start, curve.train_end)
    assert on_val.val_end != curve.val_end


def test_rows_are_held_out_by_group(tiny_data: Path, tmp_path: Path) -> None:
    fit = build_fit(settings(tiny_data, tmp_path, "strategy=gblend"))
    fit.train.groups = torch.arange(26) // 4
    trained, held = held_out(fit.ctx, 0.2)
    assert sorted([*trained.tolist(), *held.tolist()]) == list(range(26))
    assert not set((trained // 4).tolist()) & set((held // 4).tolist())
    assert 0.2 * 26 <= len(held) < 0.2 * 26 + 4
    fit.train.groups = torch.zeros(26, dtype=torch.long)
    with pytest.raises(ValueError, match="all training rows are of one group"):
        held_out(fit.ctx, 0.2)
