"""Joint training with unimodal losses and no balancing: the control MILES' tables lack.

Loss      L_AB + w (L_A + L_B) with w = 1: Eq. 3 of MILES without its scheduler. Comparing MILES
          with this row separates the effect of scheduling from that of the added losses.
Default   ``weight`` 1, the paper's Eq. 3.
Supports  any fusion, task and number of modalities.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from miles_repro.model import Output
from miles_repro.strategies.base import Context, Needs, Strategy, hyperparameters, weighted_loss


@hyperparameters
class VanillaAux(Strategy):
    """Fixed weights on the unimodal losses."""

    needs: ClassVar[Needs] = Needs(heads="trained")

    weight: float = Field(ge=0)

    def loss(self, ctx: Context, out: Output, y: Tensor) -> Tensor:
        weights = {"fused": 1.0, **dict.fromkeys(ctx.modalities, self.weight)}
        return weighted_loss(ctx.task, out, y, weights)
