"""AMCo: masked logits, gradients and flags of a real batch; the official schedule."""

import pytest
import torch
from rows import Row, Vector, context
from steps import a_batch, a_concat, a_linear, encoders
from torch import nn

from miles_repro.context import Batch
from miles_repro.strategies.amco import AMCo, masked_classes
from miles_repro.tasks import Multiclass


def step(v: Vector) -> None:
    i, want, close = v["inputs"], v["expected"], {"atol": v["abs_tol"], "rtol": 0}
    parts, fusion, batch = encoders(i["model"]), a_concat(i["model"]), a_batch(i["batch"])
    strategy = AMCo(sigma=v["hyperparameters"]["sigma"], variant="official")
    ctx = context(strategy, parts, fusion)
    star = ctx.model.parts()["star"]
    star.load_state_dict(a_linear(i["model"]["star"]).state_dict())
    strategy.on_epoch_start(ctx)
    strategy.dependent = torch.tensor([i["dependent"][m] for m in i["modalities"]])
    strategy.class_mask = lambda ctx: torch.tensor(i["class_mask"])  # type: ignore[method-assign]
    out = ctx.forward(batch)
    strategy.backward(ctx, batch, out, strategy.loss(ctx, batch, out))
    modules = {f"encoder_{m}": encoder for m, encoder in parts.items()}
    modules |= {"head": fusion.linear, "star": star}
    found = {f"{k}.{n}": p.grad for k, x in modules.items() for n, p in x.named_parameters()}
    for key, grad in want["grads"].items():
        torch.testing.assert_close(found[key], torch.tensor(grad), **close)
    assert strategy.dependent.tolist() == want["dependent_next"]
    if not any(i["dependent"].values()):  # else the prediction, never masked, is another one
        predicted = strategy.predict(ctx, out)
        torch.testing.assert_close(predicted, torch.tensor(want["fused_logits"]), **close)


def schedule(v: Vector) -> None:
    cases = zip(v["inputs"]["cases"], v["expected"]["p_and_masked_classes"], strict=True)
    for case, want in cases:
        classes = case["n_classes"]
        strategy = AMCo(eps=v["hyperparameters"]["eps"], variant="official")
        ctx = context(strategy, {m: nn.Identity() for m in "av"}, task=Multiclass(classes))
        ctx.epoch = case["epoch"] + 1
        strategy.on_epoch_start(ctx)
        for p, masked in want:
            assert strategy.count(classes) == masked
            share = masked_classes(strategy.level, strategy.eps, 10**6) / 10**6
            assert share == pytest.approx(p, abs=v["abs_tol"])
            assert int((strategy.class_mask(ctx) == 0).sum()) == masked
            x = dict.fromkeys("av", torch.zeros(2, 3))
            batch = Batch(x, torch.tensor([0, 1]), torch.arange(2))
            strategy.step(ctx, batch)


ROW = Row(
    needed=("strategy.sigma=0.4",),
    touches=[{"encoder.image", "encoder.audio", "fusion", "star"}],
    golden={"amco_step": step, "amco_schedule": schedule},
)
