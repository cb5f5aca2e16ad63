"""MBSD: the loss and its gradients in the logits, both variants."""

import pytest
import torch
from rows import Row, Vector, context
from torch import nn

from miles_repro.context import Batch
from miles_repro.model import Output
from miles_repro.strategies.mbsd import MBSD


def mbsd(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    y = torch.tensor(i["y"])
    given = {"fused": i["fused_logits"], **i["unimodal_logits"]}
    logits = {k: torch.tensor(f).requires_grad_() for k, f in given.items()}
    unimodal = {m: f for m, f in logits.items() if m != "fused"}
    strategy = MBSD(variant=v["hyperparameters"]["variant"])
    ctx = context(strategy, {m: nn.Identity() for m in unimodal})
    out = Output({}, logits["fused"], lambda features: unimodal)
    loss = strategy.loss(ctx, Batch({}, y, torch.arange(len(y))), out)
    assert float(loss.detach()) == pytest.approx(want["loss"], abs=v["abs_tol"])
    loss.backward()
    for k, grad in want["grad_logits"].items():
        torch.testing.assert_close(logits[k].grad, torch.tensor(grad), atol=v["abs_tol"], rtol=0)


ROW = Row(touches=[{"encoder.image", "encoder.audio", "fusion"}], golden={"mbsd": mbsd})
