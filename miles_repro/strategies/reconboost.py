"""ReconBoost: boosting by alternation and reconcilement (Hua et al., ICML 2024).

Rule      No fusion layer: one linear head S, s shared by all modalities, F = rho sum of f_m, rho
          trained from 1. Stage s trains modality s mod M in two phases, each with an optimizer
          without a past. Boosting: encoder m and the head alone learn, the others rest.
          Rectification: all learn CE(F). Prediction: F.
Loss      Boosting: mean over the batch of (w1 - w2 q) / C CE(f_m), q the probability that the
          others, rho sum of f_j, give the right class: samples they get right count less; q = 1
          before any of them had its stage. Plus memory * MSE(softmax f_m, softmax f_prev), f_prev
          that of the stage before, a constant; not in the first stage.
Defaults  w1 5, w2 1, memory 0.5: the authors' values. ``phase`` 0.04 of the epochs each, at least
          one (official 4, in up to 1001 stages). ``init`` none; ``teacher`` starts, as the authors
          do, from unimodal runs (with ``+strategy.teachers=best``), whose heads speak for their
          modality until its first stage.
Search    w1 {4, 5}, phase {0.01, 0.02, 0.04}.
Deviations from the official code
          both sides of its memory term are detached, so that it trains nothing; 0 is that. Its
          head has two layers.
Note      The paper's text is not available: its reconcilement of all classes is not offered, the
          code takes the true one, as here. No setting equals vanilla.
Supports  fusion late only, whose classifiers become the one head (``mla.py``); any task of
          classes and number of modalities. Multilabel: the weight is that of each label.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.mla import WITH_ENTROPY, SharedHead
from miles_repro.strategy import Needs, Strategy
from miles_repro.tasks import Task


class Ensemble(SharedHead):
    """F = rho sum of f_m; a modality with an entry in ``heads`` uses that until ``trained``."""

    trained: Tensor

    def __init__(
        self, dims: Mapping[str, int], num_classes: int, heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(dims, num_classes)
        self.rho = nn.Parameter(torch.ones(()))
        self.heads = nn.ModuleDict(heads)
        self.register_buffer("trained", torch.zeros(len(dims), dtype=torch.bool))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.rho * torch.stack(list(self.unimodal(features).values())).sum(0)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = super().unimodal(features)
        for i, m in enumerate(self.dims):
            if m in self.heads and not self.trained[i]:
                fixed = {k: p.detach() for k, p in self.heads[m].named_parameters()}
                logits[m] = F.linear(features[m], fixed["weight"], fixed["bias"])
        return logits


def reconciled(
    task: Task, current: Tensor, others: Tensor | None, y: Tensor, w1: float, w2: float
) -> Tensor:
    """The boosting loss, a scalar, of logits f_m (B, C) beside those of the others, if any."""
    if task.name != "multiclass":
        y = y.view_as(current).to(current.dtype)
        losses = F.binary_cross_entropy_with_logits(current, y, reduction="none")
        q = (2 * y - 1) * others.float() if others is not None else None
        return ((w1 - w2 * (1.0 if q is None else q.sigmoid())) * losses).mean()
    losses = F.cross_entropy(current, y, reduction="none")
    known = 1.0 if others is None else task.confidence(others.float(), y)
    return ((w1 - w2 * known) * losses).mean() / current.shape[1]


def memory_term(task: Task, current: Tensor, previous: Tensor) -> Tensor:
    """Mean squared difference, a scalar, of two predictions; ``previous`` is a constant."""
    now, then = (
        f.float().softmax(1) if task.name == "multiclass" else f.float().sigmoid()
        for f in (current, previous.detach())
    )
    return F.mse_loss(now, then)


class ReconBoost(Strategy):
    """One modality learns what the others lack, then all are put right."""

    w1: float = hyper(5.0, ge=0)
    w2: float = hyper(1.0, ge=0)
    memory: float = hyper(0.5, ge=0)
    phase: float = hyper(0.04, gt=0, le=0.5)
    init: Literal["none", "teacher"] = "none"

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        return Needs(
            fusions=frozenset({"late"}), tasks=WITH_ENTROPY, teachers=self.init == "teacher"
        )

    def setup(self, ctx: Context) -> None:
        heads: dict[str, nn.Module] = {}
        if self.init == "teacher":
            for m, encoder in ctx.model.encoders.items():
                encoder.load_state_dict(ctx.teacher(m).encoder.state_dict())
                heads[m] = copy.deepcopy(ctx.teacher(m).head)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ctx.seed_of("fusion"))
            fusion = Ensemble(ctx.model.fusion.dims, ctx.task.num_classes, heads)
        ctx.model.fusion = fusion.to(ctx.recipe.device)

    def on_epoch_start(self, ctx: Context) -> None:
        assert ctx.optimizer is not None
        length = max(1, round(self.phase * ctx.epochs))
        self.stage, epoch = divmod(ctx.epoch - 1, 2 * length)
        self.boosting = epoch < length
        if epoch % length == 0:
            ctx.optimizer.state.clear()
        current = self.trains(ctx, self.stage)
        self._fusion(ctx).trained[ctx.modalities.index(current)] = True
        resting = [m for m in ctx.modalities if self.boosting and m != current]
        self.state.frozen = {f"encoder.{m}" for m in resting}

    def trains(self, ctx: Context, stage: int) -> str:
        """The modality of a stage."""
        return ctx.modalities[stage % len(ctx.modalities)]

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        if not self.boosting:
            return super().loss(ctx, batch, out)
        current = self.trains(ctx, self.stage)
        learnt = {self.trains(ctx, s) for s in range(self.stage)}
        if self.init == "teacher":
            learnt = set(ctx.modalities)
        logits, rho = out.unimodal, self._fusion(ctx).rho
        heard = [logits[m] for m in ctx.modalities if m in learnt - {current}]
        others = (rho * torch.stack(heard).sum(0)).detach() if heard else None
        loss = reconciled(ctx.task, logits[current], others, batch.y, self.w1, self.w2)
        if self.memory and self.stage:
            previous = logits[self.trains(ctx, self.stage - 1)]
            loss = loss + self.memory * memory_term(ctx.task, logits[current], previous)
        return loss

    def _fusion(self, ctx: Context) -> Ensemble:
        assert isinstance(ctx.model.fusion, Ensemble)
        return ctx.model.fusion

    def log(self) -> dict[str, float]:
        return {"stage": float(self.stage), "boosting": float(self.boosting)}
