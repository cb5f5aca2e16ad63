"""MIMO: modality imbalance as multi-objective optimisation (Fernando et al., 2025, Eq. 13).

Loss      L_AB + lam * mu * log sum_m exp(L_m / mu): a smooth maximum over the unimodal losses,
          so the weight goes to the worst modality. f*_m of the paper is taken as 0.
Defaults  lam 10, mu 0.1: the paper's AV-MNIST values; searched over lam {1, 10, 100} and
          mu {0.01, 0.1, 1}. ``smoothing`` is the paper's mu; MILES has a mu of another meaning.
Supports  any fusion, task and number of modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy


def mimo_loss(fused: Tensor, unimodal: Sequence[Tensor], lam: float, smoothing: float) -> Tensor:
    """Eq. 13 from scalar losses."""
    worst = smoothing * torch.logsumexp(torch.stack(list(unimodal)) / smoothing, dim=0)
    return fused + lam * worst


class MIMO(Strategy):
    """One line of loss."""

    needs: ClassVar[Needs] = Needs(heads="trained")

    lam: float = hyper(10.0, ge=0)
    smoothing: float = hyper(0.1, gt=0)

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        fused = ctx.task.loss(out.fused, batch.y)
        if self.lam == 0:
            return fused
        losses = [ctx.task.loss(out.unimodal[m], batch.y) for m in ctx.modalities]
        return mimo_loss(fused, losses, self.lam, self.smoothing)
