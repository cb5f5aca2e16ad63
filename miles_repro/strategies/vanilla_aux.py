"""Joint training with unimodal losses and no balancing: the control MILES' tables lack.

Loss      L_AB + w (L_A + L_B) with w = 1: Eq. 3 of MILES without its scheduler. Comparing MILES
          with this row separates the effect of scheduling from that of the added losses.
Default   ``weight`` 1, the paper's Eq. 3.
Supports  any fusion, task and number of modalities.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy, weighted_loss


class VanillaAux(Strategy):
    """Fixed weights on the unimodal losses."""

    needs: ClassVar[Needs] = Needs(heads="trained")

    weight: float = hyper(1.0, ge=0)

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        weights = {"fused": 1.0, **dict.fromkeys(ctx.modalities, self.weight)}
        return weighted_loss(ctx.task, out, batch.y, weights)
