"""MSLR-S: smoothed rates."""

import pytest
from rows import Row, Vector, context
from torch import nn

from miles_repro.strategies.mslr_s import MSLRSmooth, smoothed

THREE = {"tiny_three": {"strategy.rates": {"image": 0.05, "audio": 0.01, "text": 0.03}}}
EQUAL = {"strategy.rates": {"image": 0.02, "audio": 0.02}, "strategy.s": 0.0}


def mslr_s(v: Vector) -> None:
    keep, want = v["inputs"]["keep"], v["expected"]["geometric_half_way"]
    s, named = v["hyperparameters"]["s"], dict(zip("AB", keep, strict=True))
    assert list(smoothed(named, s).values()) == pytest.approx(want)
    assert list(smoothed(named, 1.0, "arithmetic").values()) == pytest.approx([sum(keep) / 2] * 2)
    strategy = MSLRSmooth(rates=named, s=s)
    ctx = context(strategy, {m: nn.Identity() for m in "AB"}, lr=v["inputs"]["global_lr"])
    found = [ctx.lr * strategy.state.lr_factors[f"encoder.{m}"] for m in "AB"]
    assert found == pytest.approx(want, rel=1e-9)
    assert "fusion" not in strategy.state.lr_factors


ROW = Row(
    needed=("strategy.rates={image:0.05,audio:0.01}",),
    values=THREE,
    touches=[{"encoder.image", "encoder.audio"}],
    neutral=[(EQUAL, "vanilla")],
    golden={"mslr_s": mslr_s},
)
