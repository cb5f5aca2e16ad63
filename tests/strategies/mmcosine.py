"""MMCosine: logits, the loss, a whole step, and predictions by the same logits."""

import pytest
import torch
from rows import Row, Vector, context
from tiny_models import MODALITIES, batch_of, close, close_weights, concat, trained_context
from torch import nn

from miles_repro.context import Batch
from miles_repro.fusions.sum import Sum
from miles_repro.strategies.mmcosine import MMCosine


def logits(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    strategy = MMCosine(scale=v["hyperparameters"]["scaling"])
    x = {"a": torch.tensor(i["feat_audio"]), "v": torch.tensor(i["feat_visual"])}
    fusion = concat(i["fc_weight"], [5.0, -5.0])  # a bias has no say
    ctx = context(strategy, {m: nn.Identity() for m in x}, fusion)
    out = ctx.forward(Batch(x, torch.tensor([0]), torch.arange(1)))
    found = strategy.unimodal(ctx, out)
    close(found["a"].detach(), want["out_audio"], v)
    close(found["v"].detach(), want["out_visual"], v)
    close(strategy.predict(ctx, out).detach(), want["out"], v)
    zero = ctx.model.fuse({m: torch.zeros_like(z) for m, z in out.features.items()})
    assert not strategy.predict(ctx, zero).any()
    shared = Sum({"a": 2, "v": 2}, 2)
    ctx.model.fusion = shared
    both = strategy.unimodal(ctx, ctx.forward(Batch(x, torch.tensor([0]), torch.arange(1))))
    for m, z in x.items():
        want_m = 10 * torch.cosine_similarity(z[:, None], shared.linear.weight[None], dim=2)
        torch.testing.assert_close(both[m], want_m)


def trained(v: Vector) -> None:
    strategy = MMCosine(scale=v["hyperparameters"]["scale"])
    ctx = trained_context(strategy, v)
    batch = batch_of(v["inputs"]["batch"])
    loss = strategy.loss(ctx, batch, ctx.forward(batch))
    assert loss.item() == pytest.approx(v["expected"]["loss"], abs=1e-5)
    if "next_weights" in v["expected"]:
        strategy.step(ctx, batch)
        close_weights(ctx.model, v)


def predicted(v: Vector) -> None:
    strategy = MMCosine(scale=v["hyperparameters"]["scale"])
    ctx, want = trained_context(strategy, v), v["expected"]
    batch = batch_of(v["inputs"]["batch"])
    found = ctx.logits(ctx.forward(batch))
    close(found["fused"], want["fused_logits"], v)
    assert found["fused"].argmax(1).tolist() == want["prediction"]
    for head, key in {"fused": "accuracy", **{m: f"accuracy_{m}" for m in MODALITIES}}.items():
        assert ctx.task.score(found[head], batch.y)["metric"] == want[key]


ROW = Row(
    touches=[{"encoder.image", "encoder.audio", "fusion"}],
    golden={
        "mmcosine_step": trained,
        "mmcosine_single": trained,
        "mmcosine_predict": predicted,
        "mmcosine": logits,
    },
)
