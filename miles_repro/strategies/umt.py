"""UMT: uni-modal teachers (Du et al., 2021, arXiv 2106.11059; ICML 2023, arXiv 2305.01233).

Rule      Joint training whose encoders are also drawn towards the features of finished unimodal
          models of the same seed, one a modality, which stay frozen.
Loss      L_AB + weight * sum_m mean (z_m - z_m of the teacher)^2, the mean over samples and widths.
Defaults  weight 10, of the one public port; neither paper's value could be found. ``ends`` 1: the
          papers know no window (the port stops after epoch 80).
Search    weight {1, 10, 50, 100}.
Deviations from the port
          its teachers are never put in eval mode: their batch normalisation uses the batch and
          goes on changing.
Supports  any fusion, task and number of modalities; teacher and student have features of one width.
          Cost: the teachers' forward pass, beside their training.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from miles_repro.context import Batch, Context, Logits
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy


def feature_distance(z: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of features (B, d), a scalar; the teacher's are constants.

    Raises ValueError where the widths differ.
    """
    if z.shape != teacher.shape:
        raise ValueError(f"features {tuple(z.shape)}, those of the teacher {tuple(teacher.shape)}")
    return F.mse_loss(z.float(), teacher.detach().float())


def taught(ctx: Context, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """Modality -> feature (B, d) and logits (B, C) that its teacher gives for the batch."""
    with ctx.autocast():
        return {m: ctx.teacher(m)(batch.x[m]) for m in ctx.modalities}


class UMT(Strategy):
    """Draw each encoder's features towards those of its unimodal model."""

    needs: ClassVar[Needs] = Needs(teachers=True, passes=1.3)

    weight: float = hyper(10.0, ge=0)
    ends: float = hyper(1.0, ge=0, le=1)

    def step(self, ctx: Context, batch: Batch) -> Logits:
        """Once the teachers have seen the inputs, as ever."""
        inside = self.weight > 0 and ctx.epoch <= round(self.ends * ctx.epochs)
        self._taught = taught(ctx, batch) if inside else {}
        return super().step(ctx, batch)

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        fused = super().loss(ctx, batch, out)
        if not self._taught:
            return fused
        distances = [feature_distance(out.features[m], z) for m, (z, _) in self._taught.items()]
        return fused + self.weight * torch.stack(distances).sum()
