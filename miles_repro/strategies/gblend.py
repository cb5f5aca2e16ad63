"""G-Blend: gradient blending (Wang, Tran & Feiszli, CVPR 2020, Algorithms 1-3).

Rule      For each head k (every modality and the fused one) a copy is trained alone for n epochs
          and its losses L^T, L^V measured before and after on training rows and on rows held out
          from training. G = drop of L^V, O = growth of L^V - L^T; w_k = (G_k / O_k^2) / Z, with
          sum 1. ``offline``: once, from the initial weights. ``online``: again at each
          super-epoch, from the current weights.
Loss      sum_k w_k L_k over the fused and unimodal heads.
Defaults  offline and a short n = ``estimate`` x epochs, at least 3 (MILES: "the first several
          epochs"; the source's offline form takes n = all epochs); online: first super-epoch 10,
          later ones 5. ``overfit_on: groups`` holds out whole groups (recordings, speakers, actors;
          single rows where the data set has none) until ``holdout`` 0.08 of the training rows is
          reached, the source's share for Kinetics; ``validation`` takes the validation split, which
          then also chooses the epoch. L^T is taken on all rows that the copies train on.
Search    mode, estimate {0.05, 0.1, 0.2}.
Gaps      G <= 0 is undefined in the source: ``on_negative`` clip (weight 0, default), abs or
          signed; all G <= 0 gives uniform weights. O^2 is floored at 1e-4. Rows held out for
          the online form are left out of the main training as well.
Supports  any fusion, task and number of modalities. Cost: one short training per head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.copies import Curve, held_out, learning_curve
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy, weighted_loss

FLOOR = 1e-4
"""Smallest O^2: a head that does not overfit at all would otherwise take all the weight."""


def blend_weights(
    curves: Mapping[str, Curve], on_negative: Literal["clip", "abs", "signed"] = "clip"
) -> dict[str, float]:
    """Optimal blend w_k proportional to G_k / O_k^2 (Proposition 1), summing to 1."""
    raw = {}
    for head, c in curves.items():
        generalization = c.val_start - c.val_end
        overfitting = (c.val_end - c.train_end) - (c.val_start - c.train_start)
        if on_negative == "clip":
            generalization = max(generalization, 0.0)
        elif on_negative == "abs":
            generalization = abs(generalization)
        ratio = generalization / max(overfitting * overfitting, FLOOR)
        raw[head] = ratio if math.isfinite(ratio) else 0.0  # a copy that diverged has no say
    total = sum(raw.values())
    if total <= 0:
        return dict.fromkeys(raw, 1.0 / len(raw))
    return {head: value / total for head, value in raw.items()}


class GBlend(Strategy):
    """Estimate weights from copies, then train the weighted sum."""

    needs: ClassVar[Needs] = Needs(heads="trained", passes=1.4)
    persistent: ClassVar[tuple[str, ...]] = ("weights", "next_estimate")

    mode: Literal["offline", "online"] = "offline"
    estimate: float = hyper(0.1, gt=0, le=1)
    overfit_on: Literal["groups", "validation"] = "groups"
    holdout: float = hyper(0.08, gt=0, lt=1)
    warmup: int = hyper(10, ge=1)
    super_epoch: int = hyper(5, ge=1)
    criterion: Literal["loss", "metric"] = "loss"
    on_negative: Literal["clip", "abs", "signed"] = "clip"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.weights: dict[str, float] = {}
        self.next_estimate = 1

    def setup(self, ctx: Context) -> None:
        if self.mode == "online" and self.overfit_on == "groups":
            ctx.rows = held_out(ctx, self.holdout)[0]

    def on_epoch_start(self, ctx: Context) -> None:
        if ctx.epoch < self.next_estimate:
            return
        if self.mode == "offline":
            n, self.next_estimate = max(3, round(self.estimate * ctx.epochs)), ctx.epochs + 1
        else:
            n = self.warmup if ctx.epoch == 1 else self.super_epoch
            self.next_estimate = ctx.epoch + n
        train = torch.arange(len(ctx.parts["train"]))
        held = None
        if self.overfit_on == "groups":
            train, held = held_out(ctx, self.holdout)
        self.weights = blend_weights(
            {
                head: learning_curve(ctx, head, n, train, held, self.criterion)
                for head in (*ctx.modalities, "fused")
            },
            self.on_negative,
        )

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        return weighted_loss(ctx.task, out, batch.y, self.weights)

    def log(self) -> dict[str, float]:
        return {f"w_{head}": w for head, w in self.weights.items()}
