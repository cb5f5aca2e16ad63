"""Control for MILES: one fixed modality trains at mu * alpha from the first epoch to the last.

Loss      L_AB + L_A + L_B (MILES Eq. 3), so the row differs from MILES in the schedule alone.
Defaults  mu 0.5 (MILES' recommendation); the modality is the data set's strong one (Table I), or
          where it declares none, that of the best unimodal run by validation.
Supports  any fusion, task and number of modalities.
"""

from __future__ import annotations

from typing import ClassVar

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


class StaticLR(Strategy):
    """A constant factor on one modality's encoder and head."""

    needs: ClassVar[Needs] = Needs(heads="trained")

    modality: str
    mu: float = hyper(0.5, gt=0, le=1)

    def setup(self, ctx: Context) -> None:
        if self.modality not in ctx.modalities:
            raise ValueError(f"modality={self.modality!r} is not one of {ctx.modalities}")
        self.state.lr_factors = {f"{g}.{self.modality}": self.mu for g in ("encoder", "head")}

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        return weighted_loss(ctx.task, out, batch.y, joint_weights(ctx.modalities))
