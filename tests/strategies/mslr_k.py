"""MSLR-K: kept rates."""

import pytest
from rows import Row, Vector, context
from torch import nn

from miles_repro.strategies.mslr_k import MSLRKeep

THREE = {"tiny_three": {"strategy.rates": {"image": 0.05, "audio": 0.01, "text": 0.03}}}
EQUAL = {"strategy.rates": {"image": 0.02, "audio": 0.02}}


def mslr_k(v: Vector) -> None:
    strategy = MSLRKeep(rates=v["inputs"]["best_unimodal_lr"])
    ctx = context(strategy, {m: nn.Identity() for m in "AB"}, lr=v["inputs"]["global_lr"])
    want, factors = v["expected"], strategy.state.lr_factors
    for m in "AB":
        assert ctx.lr * factors[f"encoder.{m}"] == pytest.approx(want[f"lr_{m}"], rel=1e-12)
    assert "fusion" not in factors
    assert ctx.lr == pytest.approx(want["lr_fusion_and_heads"], rel=1e-12)


ROW = Row(
    needed=("strategy.rates={image:0.05,audio:0.01}",),
    values=THREE,
    touches=[{"encoder.image", "encoder.audio"}],
    neutral=[(EQUAL, "vanilla")],
    golden={"mslr_k": mslr_k},
)
