"""MILES: Algorithm 1 by numbers, through the strategy and the pure maths."""

import math

import pytest
from rows import Row, Vector, context
from torch import nn

from miles_repro.miles import conditional_utilization, lr_factors, utilization_gap
from miles_repro.strategies.miles import Miles


def miles(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    unimodal = {"A": i["M_A"], "B": i["M_B"]}
    u = conditional_utilization(i["M_AB"], unimodal)
    delta = utilization_gap(i["M_AB"], unimodal)
    for found, key in ((u["A"], "u_A"), (u["B"], "u_B"), (delta, "delta")):
        if want[key] is None:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(want[key], abs=v["abs_tol"])
    factors = lr_factors(i["M_AB"], unimodal, h["tau"], h["mu"])
    assert h["lr"] * factors["A"] == pytest.approx(want["lr_A"], abs=v["abs_tol"])
    assert h["lr"] * factors["B"] == pytest.approx(want["lr_B"], abs=v["abs_tol"])
    strategy = Miles(tau=h["tau"], mu=h["mu"])
    ctx = context(strategy, {m: nn.Identity() for m in "AB"}, lr=h["lr"])
    metrics = {"fused": i["M_AB"], **unimodal}
    for epoch in (1, 2, 3):  # again and again: nothing compounds
        ctx.epoch = epoch
        strategy.on_epoch_end(
            ctx, {}, {k: {"loss": 0.0, "metric": value} for k, value in metrics.items()}
        )
        for key, group in {"A": "encoder.A", "B": "encoder.B", "fusion": "fusion"}.items():
            rate = h["lr"] * strategy.state.lr_factors.get(group, 1.0)
            assert rate == pytest.approx(want[f"lr_{key}"], abs=v["abs_tol"])


ROW = Row(
    needed=("strategy.tau=0.0",),
    like="vanilla_aux",
    touches=[set()],
    neutral=[
        ({"strategy.mu": 1.0, "strategy.tau": 0.0}, "vanilla_aux"),
        ({"strategy.tau": 1e9}, "vanilla_aux"),
    ],
    golden={"miles_": miles},
)
