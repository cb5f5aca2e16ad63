"""MLA: multimodal learning with alternating unimodal adaptation (Zhang et al., CVPR 2024).

Rule      No fused loss: one linear head S, s is shared by all modalities. In every batch the
          modalities take turns: loss of the head as it now is on z_m, step of encoder m and the
          head alone; the other encoders do not move. Prediction (Eq. 6-8): f = sum_m lambda_m f_m
          per sample, lambda = softmax over modalities of minus the entropy of f_m
          (``weights: fixed``: 1 / M).
Loss      L_m = CE(S z_m + s), one modality after the other.
Defaults  ``projection`` none: what the released code does (it looks the head up under a wrong
          name, so that its projection never acts). current, previous: the paper's Eq. 3-5, the
          head's gradient times P^T, P <- P - P h h^T P / (a + h^T P h) at every turn but the
          first, h the mean feature of this turn (Algorithm 1) or of the one before (its text),
          a = 0.1^(1 + b / N) at batch b of N.
Search    projection {none, current, previous}.
Deviations from the official code
          it takes the entropies over the batch axis, so that a prediction depends on its batch;
          its projection, had it acted, takes an outer product for h^T P h; its torch version let
          an encoder take a step of momentum and decay on another's turn.
Supports  fusion late only, whose classifiers become the one head; any number of modalities; any
          task of classes (multilabel entropy: mean over labels). Features of unequal width are
          first projected to the widest, as in the fusion sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from miles_repro.context import Batch, Context, Logits
from miles_repro.fusions.sum import Sum
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy
from miles_repro.tasks import Task

WITH_ENTROPY = frozenset({"multiclass", "multilabel", "binary"})
"""Tasks whose predictions are probabilities."""


class SharedHead(Sum):
    """f_m = S z_m + s with one S and s for all modalities; fused: their mean."""

    def widened(self, m: str, z: Tensor) -> Tensor:
        """What the head sees of a feature (B, d_m): (B, d), d the widest feature's width."""
        return self.project[m](z) if m in self.project else z

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(list(self.unimodal(features).values())).mean(0)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self.linear(self.widened(m, features[m])) for m in self.dims}


def entropy(task: Task, logits: Tensor) -> Tensor:
    """Entropy (..., in nats) of predictions (..., C); of yes-or-no labels: their mean."""
    logits = logits.float()
    if task.name == "multiclass":
        return Categorical(logits=logits, validate_args=False).entropy()
    return Bernoulli(logits=logits, validate_args=False).entropy().mean(-1)


def weighted(task: Task, logits: Tensor) -> Tensor:
    """f (B, C) from unimodal logits (M, B, C): the surer a modality, the more it counts."""
    weights = (-entropy(task, logits)).softmax(dim=0)
    return (weights[..., None] * logits).sum(0)


def recursive_projection(p: Tensor, h: Tensor, a: float) -> Tensor:
    """P (d, d) after a turn with mean feature h (d,): Eq. 4, 5."""
    ph = p @ h
    return p - torch.outer(ph / (a + h @ ph), ph)


class MLA(Strategy):
    """Modalities one by one through a shared head."""

    needs: ClassVar[Needs] = Needs(fusions=frozenset({"late"}), tasks=WITH_ENTROPY, passes=1.1)
    persistent: ClassVar[tuple[str, ...]] = ("turns", "projector", "before")

    projection: Literal["none", "current", "previous"] = "none"
    weights: Literal["dynamic", "fixed"] = "dynamic"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.turns = 0
        self.projector, self.before = torch.empty(0), torch.empty(0)

    def setup(self, ctx: Context) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ctx.seed_of("fusion"))
            head = SharedHead(ctx.model.fusion.dims, ctx.task.num_classes)
        ctx.model.fusion = head.to(ctx.recipe.device)

    def on_epoch_start(self, ctx: Context) -> None:
        self._batch = 0
        self._batches = max(1, math.ceil(len(ctx.rows) / ctx.recipe.batch_size))

    def step(self, ctx: Context, batch: Batch) -> Logits:
        head = ctx.model.fusion
        assert isinstance(head, SharedHead)
        with ctx.autocast():
            out = ctx.forward(batch)
            logits = ctx.logits(out)  # before the turns change the head
        for m in ctx.modalities:
            with ctx.autocast():
                h = head.widened(m, out.features[m])
                loss = ctx.task.loss(head.linear(h), batch.y)
            ctx.backward(loss)
            if self.projection != "none":
                self._project(head.linear.weight, h.detach().float().mean(0))
            ctx.update([f"encoder.{m}", "fusion"])
        self._batch += 1
        return logits

    @torch.no_grad()
    def _project(self, weight: Tensor, h: Tensor) -> None:
        """The head's gradient, kept off the mean features of the turns so far."""
        assert weight.grad is not None
        if self.turns == 0:
            self.projector = torch.eye(len(h), device=h.device)
        else:
            a = 0.1 ** (1 + self._batch / self._batches)
            seen = h if self.projection == "current" else self.before.to(h)
            self.projector = recursive_projection(self.projector.to(h), seen, a)
            weight.grad = weight.grad @ self.projector.T
        self.before, self.turns = h, self.turns + 1

    def predict(self, ctx: Context, out: Output) -> Tensor:
        if self.weights == "fixed":
            return out.fused
        return weighted(ctx.task, torch.stack([out.unimodal[m] for m in ctx.modalities]))
