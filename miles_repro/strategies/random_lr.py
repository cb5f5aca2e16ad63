"""Control for MILES: each epoch a modality drawn at random trains at mu * alpha.

Loss      L_AB + L_A + L_B (MILES Eq. 3). If this row does as well as MILES, what helped was
          slowing something, not the conditional utilization that chose what to slow.
Defaults  mu 0.5 (MILES' recommendation); every modality equally likely.
Supports  any fusion, task and number of modalities.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import (
    Needs,
    Strategy,
    joint_weights,
    weighted_loss,
)


class RandomLR(Strategy):
    """A factor on one random modality, drawn anew at each epoch's start."""

    needs: ClassVar[Needs] = Needs(heads="trained")

    mu: float = hyper(0.5, gt=0, le=1)

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        return weighted_loss(ctx.task, out, batch.y, joint_weights(ctx.modalities))

    def on_epoch_start(self, ctx: Context) -> None:
        draw = torch.randint(len(ctx.modalities), (), generator=ctx.generator)
        slowed = ctx.modalities[int(draw)]
        self.state.lr_factors = {f"{g}.{slowed}": self.mu for g in ("encoder", "head")}
