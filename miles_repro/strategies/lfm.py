"""LFM: from learning to fuse to learning across modalities (Yang et al., NeurIPS 2024, Eq. 1).

Rule      The weight of pulling the modalities' features together falls as training goes on:
          alpha_t = 1 - exp(-1 / t) in epoch t = 1, 2, ... (0.63, 0.39, 0.28, ...), the paper's
          heuristic.
Loss      (1 - alpha_t) L_AB + alpha_t L_MM; L_MM symmetric InfoNCE over the batch on the cosines
          of the features over tau; more modalities: mean over pairs. Features of unequal width
          first pass one linear projection a modality, to the narrowest.
Defaults  tau (``temperature``) 0.4: not stated in the paper, an unused entry of the authors'
          configuration. ``share`` scales alpha_t (ours; 0 is vanilla).
Search    temperature {0.07, 0.1, 0.2, 0.4}.
Deviations ``variant: official`` is the released code: fusion ``late``, loss
          2 (w L_AB + (1 - w) A), A the mean over pairs of (KL(m||p) + KL(m||q)) / 2, m the mean of
          the predictions p and q; w its polynomial of the epoch, stretched from 200 epochs to the
          run's. The paper's learned alpha is left out: the code moves it by 1e-4 an epoch, so that
          it stays where it starts. The authors choose the epoch on test.
Supports  any fusion, task and number of modalities; official: late, one label a sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy

FITTED = (
    2.04623704e-1,
    3.35472727e-3,
    1.22989557e-4,
    -2.92947416e-6,
    2.23835486e-8,
    -5.39717505e-11,
)
"""The authors' polynomial of w in the epoch 0..199 (Crema_epoch.py), lowest power first."""
FITTED_EPOCHS = 200


def contrast(features: Sequence[Tensor], temperature: float) -> Tensor:
    """L_MM, a scalar, of features (B, d) a modality: mean over pairs of modalities."""
    unit = [F.normalize(z.float(), dim=1) for z in features]
    own = torch.arange(len(unit[0]), device=unit[0].device)
    losses = []
    for a, b in combinations(unit, 2):
        similar = a @ b.T / temperature
        losses.append((F.cross_entropy(similar, own) + F.cross_entropy(similar.T, own)) / 2)
    return torch.stack(losses).mean()


def alignment(logits: Sequence[Tensor]) -> Tensor:
    """A of the official code, a scalar, from logits (B, C) a modality: mean over pairs."""
    losses = []
    for p, q in combinations([f.float().log_softmax(1) for f in logits], 2):
        middle = torch.logaddexp(p, q) - math.log(2)
        apart = middle.exp() * (2 * middle - p - q)
        losses.append(apart.sum(1).mean() / 2)
    return torch.stack(losses).mean()


def projections(dims: Mapping[str, int]) -> dict[str, nn.Module]:
    """Groups of linear maps to the narrowest width; none where all widths are equal."""
    if len(set(dims.values())) == 1:
        return {}
    return {f"align.{m}": nn.Linear(d, min(dims.values())) for m, d in dims.items()}


def aligned(ctx: Context, features: Mapping[str, Tensor]) -> list[Tensor]:
    """Features (B, d) of one width, through the :func:`projections` that the model has."""
    parts = ctx.model.parts()
    return [parts[f"align.{m}"](z) if f"align.{m}" in parts else z for m, z in features.items()]


def fitted(epoch: int, epochs: int) -> float:
    """w of the official code in an epoch, from 1."""
    at = (FITTED_EPOCHS - 1) * (epoch - 1) / max(epochs - 1, 1)
    return sum(c * at**power for power, c in enumerate(FITTED))


class LFM(Strategy):
    """Align first, classify later."""

    temperature: float = hyper(0.4, gt=0)
    share: float = hyper(1.0, ge=0, le=1)
    variant: Literal["paper", "official"] = "paper"

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        if self.variant == "paper":
            return Needs()
        return Needs(fusions=frozenset({"late"}), tasks=frozenset({"multiclass"}))

    def modules(self, ctx: Context) -> dict[str, nn.Module]:
        if self.variant == "official" or not self.share:
            return {}
        return projections(ctx.model.fusion.dims)

    def alpha(self, epoch: int) -> float:
        """alpha_t, t from 1."""
        return self.share * (1 - math.exp(-1 / epoch))

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        fused = super().loss(ctx, batch, out)
        if self.variant == "official":
            w = fitted(ctx.epoch, ctx.epochs)
            return 2 * (w * fused + (1 - w) * alignment(list(out.unimodal.values())))
        alpha = self.alpha(ctx.epoch)
        if alpha == 0:
            return fused
        apart = contrast(aligned(ctx, out.features), self.temperature)
        return (1 - alpha) * fused + alpha * apart

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        official = self.variant == "official"
        self._alpha = 1 - fitted(ctx.epoch, ctx.epochs) if official else self.alpha(ctx.epoch)

    def log(self) -> dict[str, float]:
        return {"alpha": self._alpha}
