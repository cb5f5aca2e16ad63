"""CML: the loss along a given chain and its gradients in features and head."""

import pytest
import torch
from rows import Row, Vector, context
from steps import a_linear
from torch import nn

from miles_repro.context import Batch
from miles_repro.fusions.concat import Concat
from miles_repro.strategies.cml import CML


def cml(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    z = {m: torch.tensor(i["features"][m]).requires_grad_() for m in i["modalities"]}
    fusion = Concat({m: f.shape[1] for m, f in z.items()}, 3)
    fusion.linear = a_linear(i["head"])
    strategy = CML(lam=h["lambda"], exempt=h.get("exempt", False), variant=h["variant"])
    ctx = context(strategy, {m: nn.Identity() for m in z}, fusion)
    y = torch.tensor(i["y"])
    strategy.on_epoch_start(ctx)
    assert len(strategy.removed) == len(z) - 1
    strategy.removed = i["removal_order"]
    out = ctx.forward(Batch(dict(z), y, torch.arange(len(y))))
    loss = strategy.loss(ctx, Batch(dict(z), y, torch.arange(len(y))), out)
    assert float(loss.detach()) == pytest.approx(want["loss"], abs=v["abs_tol"])
    loss.backward()
    strategy.on_epoch_end(ctx, {}, {})
    assert strategy.log() == {"penalty": pytest.approx(want["penalty"], abs=v["abs_tol"])}
    found = {f"z_{m}": f.grad for m, f in z.items()}
    found |= {f"head.{k}": p.grad for k, p in fusion.linear.named_parameters()}
    for key, grad in want["grads"].items():
        torch.testing.assert_close(found[key], torch.tensor(grad), atol=v["abs_tol"], rtol=0)


ROW = Row(
    touches=[{"encoder.image", "encoder.audio", "fusion"}],
    neutral=[({"strategy.ends": 0.0}, "vanilla")],
    golden={"cml": cml},
)
