"""A fit on the tiny data set, stepped by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import rows
import torch
from support import (
    LR,
    SIZES,
)
from torch import Tensor, nn

from miles_repro import loop
from miles_repro.context import Batch, Context
from miles_repro.loop import Fit
from miles_repro.strategies.vanilla import Vanilla


def context(*modalities: str) -> Context:
    return rows.context(Vanilla(), {m: nn.Identity() for m in modalities}, lr=LR)


def whole_batch(fit: Fit, n: int) -> Batch:
    x, y = fit.train.batch(torch.arange(n))
    return Batch(x, y, torch.arange(n))


def one_batch(fit: Fit) -> dict[str, Tensor]:
    """Gradients of one batch in epoch 1, modulated by the fit's strategy."""
    fit.ctx.epoch = 1
    fit.strategy.on_epoch_start(fit.ctx)
    fit.model.train()
    batch = whole_batch(fit, len(fit.train))
    out = fit.ctx.forward(batch)
    fit.strategy.backward(fit.ctx, batch, out, fit.strategy.loss(fit.ctx, batch, out))
    return {
        f"{part}:{k}": p.grad.clone()
        for part, module in fit.model.parts().items()
        for k, p in module.named_parameters()
        if p.grad is not None
    }


def script_validation(
    monkeypatch: pytest.MonkeyPatch, trace: Sequence[dict[str, float]], key: str = "metric"
) -> None:
    """Make the loop see these validation scores; training itself is real."""
    left = iter(trace)
    values: dict[str, float] = {}
    training = False

    def score(task: Any, logits: dict[str, Tensor], labels: Any) -> dict[str, dict[str, float]]:
        nonlocal values, training
        if len(labels) == SIZES["train"]:
            training = True
            return {k: {"loss": 0.5, "metric": 0.5} for k in logits}
        values = next(left) if training else values  # edited weights are validated once more
        training = False
        return {k: {"loss": 0.5, "metric": 0.5, key: values[k]} for k in logits}

    monkeypatch.setattr(loop, "score", score)
