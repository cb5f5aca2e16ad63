"""What strategies do to learning rates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import context
from support import (
    LR,
    build_fit,
    settings,
    strategy_overrides,
)
from torch import nn

from miles_repro.loop import Fit
from miles_repro.strategies.miles import Miles
from miles_repro.strategies.mslr_d import progress_ratio
from miles_repro.strategies.mslr_s import smoothed
from miles_repro.strategies.random_lr import RandomLR

fractions = st.floats(0, 1)
rates = st.floats(1e-6, 1.0)


@given(
    st.lists(st.tuples(fractions, fractions, fractions), min_size=1, max_size=12),
    fractions,
    st.floats(0.01, 1),
    st.booleans(),
    st.booleans(),
)
def test_miles_never_touches_the_fusion_and_never_compounds(
    trace: list[tuple[float, float, float]], tau: float, mu: float, reset: bool, heads: bool
) -> None:
    ctx = context("a", "b")
    strategy = Miles(tau=tau, mu=mu, reset_other=reset, heads_follow=heads, source="val")
    for fused, a, b in trace:
        scores = {"fused": fused, "a": a, "b": b}
        strategy.on_epoch_end(ctx, {}, {k: {"metric": v} for k, v in scores.items()})
        factors = strategy.state.lr_factors
        assert "fusion" not in factors
        assert set(factors.values()) <= {1.0, mu}
        assert any(g.startswith("head.") for g in factors) == heads
        if reset:
            slowed = {g.split(".")[1] for g, f in factors.items() if f != 1}
            assert len(slowed) <= 1


@pytest.mark.parametrize(
    "strategy, values, ratio",
    [
        ("mslr_k", {}, {"encoder.image": 0.05 / LR, "encoder.audio": 0.01 / LR}),
        (
            "mslr_s",
            {"strategy.s": 1.0},
            dict.fromkeys(("encoder.image", "encoder.audio"), 1.118034),
        ),
        ("static_lr", {"strategy.mu": 0.25}, {"encoder.image": 0.25, "head.image": 0.25}),
        ("ogm", {"strategy.params": "all"}, {}),
    ],
)
def test_under_adam_rates_act_and_constant_gradient_factors_do_not(
    strategy: str, values: dict[str, Any], ratio: dict[str, float], tiny_data: Path, tmp_path: Path
) -> None:
    """The first step's length per group, relative to the same loss without the strategy."""
    one_step = {"batch_size": 26, "epochs": 1}

    def steps(name: str, **values: Any) -> dict[str, float]:
        config = settings(tiny_data, tmp_path, *strategy_overrides(name), **one_step, **values)
        fit = build_fit(config)
        before = {p: [x.detach().clone() for x in m.parameters()] for p, m in parts(fit).items()}
        list(fit.epochs())
        return {
            p: math.sqrt(
                sum(
                    float((x.detach() - x0).square().sum())
                    for x, x0 in zip(m.parameters(), before[p], strict=True)
                )
            )
            for p, m in parts(fit).items()
        }

    def parts(fit: Fit) -> dict[str, nn.Module]:
        return fit.model.parts()

    reference = "vanilla_aux" if strategy == "static_lr" else "vanilla"
    expected, found = steps(reference), steps(strategy, **values)
    for part, length in expected.items():
        assert found[part] / length == pytest.approx(ratio.get(part, 1.0), rel=2e-3), part


@given(st.dictionaries(st.sampled_from("abcd"), rates, min_size=2), fractions)
def test_smoothing_keeps_the_geometric_mean_and_the_order(
    rates: dict[str, float], s: float
) -> None:
    found = smoothed(rates, s)
    assert math.prod(found.values()) == pytest.approx(math.prod(rates.values()), rel=1e-9)
    assert smoothed(rates, 0.0) == pytest.approx(rates)
    assert len({round(math.log(r), 9) for r in smoothed(rates, 1.0).values()}) == 1
    low, high = min(rates.values()), max(rates.values())
    assert all(low * (1 - 1e-9) <= r <= high * (1 + 1e-9) for r in found.values())


@given(rates, fractions)
def test_smoothing_equal_rates_changes_nothing(rate: float, s: float) -> None:
    assert smoothed({"a": rate, "b": rate}, s) == pytest.approx({"a": rate, "b": rate}, rel=1e-12)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=12), st.integers(1, 8))
def test_progress_ratio(history: list[float], window: int) -> None:
    ratio = progress_ratio(history, window)
    if len(history) <= window:
        assert ratio == 1.0
    else:
        previous = history[len(history) - 1 - window : len(history) - 1]
        assert ratio == pytest.approx(history[-1] / (sum(previous) / window))
    assert progress_ratio([0.0] * window + [0.5], window) == 1.0  # a mean of 0


def test_random_lr_draws_every_modality_and_only_by_the_seed() -> None:
    def draws(seed: int) -> list[dict[str, float]]:
        ctx, strategy, found = context("a", "b", "c"), RandomLR(mu=0.5), []
        ctx.generator.manual_seed(seed)
        for _ in range(30):
            strategy.on_epoch_start(ctx)
            found.append(dict(strategy.state.lr_factors))
        return found

    assert draws(0) == draws(0) != draws(1)
    assert {tuple(d.items()) for d in draws(0)} == {
        ((f"encoder.{m}", 0.5), (f"head.{m}", 0.5)) for m in "abc"
    }
