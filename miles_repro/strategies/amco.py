"""AMCo: adaptive mask co-optimisation (Zhou et al., ICASSP 2023).

Rule      A modality that held more than sigma of the probability in the batch before, softmax over
          the M x C unimodal logits, is masked: its logits are zero for classes drawn anew each
          batch. Their number is C sin(pi/2 min(eps, l) / eps), rounded down, at most C - 1;
          l the share of the run's epochs that is over.
Loss      L_AB + sum of L_m on the masked logits f_m of the linear split; the fused logits are
          star(sum of f_m), ``star`` one linear layer C -> C. Predictions: the same, unmasked.
Defaults  sigma 0.5, eps 0.3: BalanceBenchmark's values.
Search    sigma {0.4, 0.5, 0.6} (more modalities: from 1 / M), eps {0.1, 0.3, 0.6}.
Deviations The paper's text is not available: this follows the one public implementation,
          BalanceBenchmark's. ``variant: official`` is its schedule: l starts at 0 in every epoch
          and grows by a tenth of the epoch's number (from 0) a batch, with up to C classes masked:
          nothing in the first epoch, all after a few batches of later ones. Its mask broadcasts
          for batches of two only.
Note      No setting equals vanilla: ``star`` stays.
Supports  concat and sum (the logits must add up), any number of modalities; one label a sample.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy


def masked_classes(level: float, eps: float, classes: int) -> int:
    """How many classes are masked at level l."""
    return int(math.sin(math.pi / 2 * min(eps, level) / eps) * classes)


def shares(logits: Tensor) -> Tensor:
    """Mean probability mass (M,) of each modality among all logits (M, B, C)."""
    m, b, c = logits.shape
    joint = logits.float().transpose(0, 1).reshape(b, m * c).softmax(1)
    return joint.view(b, m, c).sum(2).mean(0)


class AMCo(Strategy):
    """Take classes away from the modality that decides."""

    needs: ClassVar[Needs] = Needs(
        fusions=frozenset({"concat", "sum"}), tasks=frozenset({"multiclass"})
    )

    sigma: float = hyper(0.5, ge=0, le=1)
    eps: float = hyper(0.3, gt=0)
    variant: Literal["recommended", "official"] = "recommended"

    def modules(self, ctx: Context) -> dict[str, nn.Module]:
        return {"star": nn.Linear(ctx.task.num_classes, ctx.task.num_classes)}

    def on_epoch_start(self, ctx: Context) -> None:
        count = len(ctx.modalities)
        self.dependent = torch.zeros(count, dtype=torch.bool, device=ctx.recipe.device)
        self.level = 0.0 if self.variant == "official" else (ctx.epoch - 1) / ctx.epochs
        self._flagged: list[Tensor] = []

    def count(self, classes: int) -> int:
        """Classes masked in the next batch."""
        found = masked_classes(self.level, self.eps, classes)
        return found if self.variant == "official" else min(found, classes - 1)

    def class_mask(self, ctx: Context) -> Tensor:
        """0 for the masked classes, else 1, (C,)."""
        mask = torch.ones(ctx.task.num_classes)
        drawn = torch.randperm(len(mask), generator=ctx.generator)
        mask[drawn[: self.count(len(mask))]] = 0
        return mask.to(ctx.recipe.device)

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        logits = torch.stack([out.unimodal[m] for m in ctx.modalities])
        mask = torch.where(self.dependent[:, None, None], self.class_mask(ctx), 1.0)
        logits = logits * mask
        self._flagged.append(self.dependent)
        self.dependent = shares(logits.detach()) > self.sigma
        if self.variant == "official":
            self.level += (ctx.epoch - 1) / 10
        fused = ctx.model.parts()["star"](logits.sum(0))
        return torch.stack([ctx.task.loss(f, batch.y) for f in (fused, *logits)]).sum()

    def predict(self, ctx: Context, out: Output) -> Tensor:
        logits = torch.stack([out.unimodal[m] for m in ctx.modalities])
        fused: Tensor = ctx.model.parts()["star"](logits.sum(0))
        return fused

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        mean = torch.stack(self._flagged).float().mean(0).tolist()
        self._mean = dict(zip(ctx.modalities, mean, strict=True))

    def log(self) -> dict[str, float]:
        return {f"dependent_{m}": share for m, share in self._mean.items()}
