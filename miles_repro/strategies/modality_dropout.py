"""Modality dropout: each sample loses at most one modality's features while training.

Rule      With probability p for each modality, never two at once, a sample's z_m is set to zero
          before fusion (a row of the OGM-GE paper's comparison, Peng et al., CVPR 2022).
Loss      L_AB.
Default   p 0.2, ours: no source agrees on one; searched. p <= 1 / number of modalities.
Supports  any fusion, task and number of modalities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.strategy import Strategy


def dropped(n: int, modalities: int, p: float, generator: torch.Generator) -> Tensor:
    """Index of the modality each of ``n`` samples loses, (n,) int64; ``modalities`` = none."""
    u = torch.rand(n, generator=generator)
    return torch.clamp(u / p, max=modalities).long()


class ModalityDropout(Strategy):
    """Zero features, per sample, from the strategy's own random numbers."""

    p: float = hyper(0.2, ge=0, le=0.5)

    def setup(self, ctx: Context) -> None:
        if self.p * len(ctx.modalities) > 1:
            raise ValueError(f"p={self.p} is above 1 / {len(ctx.modalities)} modalities")

    def features(self, ctx: Context, batch: Batch, z: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.p == 0:
            return z
        first = next(iter(z.values()))
        lost = dropped(len(first), len(z), self.p, ctx.generator).to(first.device)
        return {m: f * (lost != i)[:, None] for i, (m, f) in enumerate(z.items())}
