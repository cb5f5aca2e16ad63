"""MSLR-D: rates that follow progress."""

import pytest
from rows import Row, Vector, context
from torch import nn

from miles_repro.strategies.mslr_d import MSLRDynamic, progress_ratio

THREE = {"tiny_three": {"strategy.rates": {"image": 0.05, "audio": 0.01, "text": 0.03}}}
EQUAL = {"strategy.rates": {"image": 0.02, "audio": 0.02}, "strategy.window": 9}


def mslr_d(v: Vector) -> None:
    i, h = v["inputs"], v["hyperparameters"]
    strategy = MSLRDynamic(rates={"A": h["lr0_A"], "B": h["lr0_B"]}, window=h["window"])
    ctx = context(strategy, {m: nn.Identity() for m in "AB"}, lr=h["lr0_A"])
    for a, b, want in zip(i["val_metric_A"], i["val_metric_B"], v["expected"], strict=True):
        metrics = {"fused": 0.5, "A": a, "B": b}
        strategy.on_epoch_end(ctx, {}, {k: {"loss": 0.0, "metric": x} for k, x in metrics.items()})
        factors = strategy.state.lr_factors
        assert ctx.lr * factors["encoder.A"] == pytest.approx(want["lr_A"], abs=v["abs_tol"])
        assert ctx.lr * factors["encoder.B"] == pytest.approx(want["lr_B"], abs=v["abs_tol"])
        assert "fusion" not in factors


def ratio(v: Vector) -> None:
    window = v["hyperparameters"]["history"]
    series = list(zip(*v["inputs"]["val_acc_audio_visual_per_epoch"], strict=True))
    for epoch, *want in v["expected"]["ratio_used_in_epoch"]:
        past = [progress_ratio(x[: epoch - 1], window) for x in series]
        assert past == pytest.approx(want, abs=v["abs_tol"])


ROW = Row(
    needed=("strategy.rates={image:0.05,audio:0.01}", "strategy.window=1"),
    values=THREE,
    touches=[{"encoder.image", "encoder.audio"}],
    neutral=[(EQUAL, "vanilla")],
    golden={"mslr_d_agm": ratio, "mslr_d_rec": mslr_d},
)
