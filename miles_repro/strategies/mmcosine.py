"""MMCosine: multi-modal cosine loss (Xu et al., ICASSP 2023).

Rule      The fusion's linear head gives cosines instead of products: y_m,k = s cos(z_m, W_m,k) for
          class k, y_AB = sum_m y_m, in training and in prediction. W_m is the block of modality m
          in a concat head; in sum fusion the one head, on the projected features. Norms are floored
          at 1e-12, so a zero feature gives zero logits. The bias is not used.
Loss      L_AB of these logits; gradients flow through both norms.
Defaults  scale s 10, the authors' code (another port: 15).
Search    scale {5, 10, 15, 20, 30}. y_AB stays within M s: with many labels s decides how sure the
          model can be of one.
Deviations from the official code
          it scores the fused model with the plain head, whose bias was never trained; its extra
          contrastive term has weight 0, yet makes the loss NaN for a batch of one class; its script
          does not start (a misspelt argument).
Note      The record's ``split`` instrument still reads the plain linear head.
Supports  concat and sum, any task and number of modalities. The official FiLM and gated forms are
          other fusions, of both directions at once. No neutral point.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.fusions.base import Fusion
from miles_repro.fusions.concat import Concat
from miles_repro.fusions.sum import Sum
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy


def cosines(z: Tensor, weight: Tensor) -> Tensor:
    """cos(z_i, W_k) (B, C) of features (B, d) and class weights (C, d)."""
    return F.linear(F.normalize(z.float(), dim=1), F.normalize(weight.float(), dim=1))


def by_modality(fusion: Fusion, z: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Modality -> what enters its part of the linear head, and that part's weights."""
    if isinstance(fusion, Sum):
        return {m: (f, fusion.weight(m)) for m, f in fusion.projected(z).items()}
    assert isinstance(fusion, Concat)
    blocks = fusion.linear.weight.split(list(fusion.dims.values()), dim=1)
    return {m: (z[m], w) for m, w in zip(fusion.dims, blocks, strict=True)}


class MMCosine(Strategy):
    """A linear head without lengths."""

    needs: ClassVar[Needs] = Needs(fusions=frozenset({"concat", "sum"}))

    scale: float = hyper(10.0, gt=0)

    def unimodal(self, ctx: Context, out: Output) -> dict[str, Tensor]:
        parts = by_modality(ctx.model.fusion, out.features)
        return {m: self.scale * cosines(z, w) for m, (z, w) in parts.items()}

    def predict(self, ctx: Context, out: Output) -> Tensor:
        return torch.stack(list(self.unimodal(ctx, out).values())).sum(0)

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        return ctx.task.loss(self.predict(ctx, out), batch.y)
