"""CGGM: classifier-guided gradient modulation (Guo et al., NeurIPS 2024).

Rule      A linear classifier a modality, trained on detached features with an optimizer of its own
          (of the run's kind, at ``classifier_lr``), shows how each encoder fares: d_m = its batch
          accuracy less that of the batch before (0 before the first), S = sum of d + 1e-8,
          B_m = (S - d_m) / S; the gradients of encoder m are multiplied by rho B_m. Where S is not
          positive all B_m are 1, and they are kept within [0, 1].
Loss      L_AB. With ``direction`` lambda > 0 the next batch's gradients get lambda times that of
          L_gm = mean of |B_m| - B_m cos(W_m, U_m) with respect to the fusion: W_m what modality m
          adds to the fused logits, U_m its classifier's weight, B constant.
Defaults  rho 1.3, classifier_lr 5e-4: the authors' values; direction 0, magnitude alone (theirs:
          0.2, 0.05, 0.1 by data set). The authors clip at 0.8 (``optimizer.clip_norm``).
Search    rho {1, 1.3, 1.6}, direction {0, 0.05, 0.2}.
Deviations from the official code (``variant: official`` leaves it out): the guard on S and B;
          without it B reaches 1e7 when the accuracy changes cancel, and turns negative. Its
          classifiers are transformers; linear ones suit features that are vectors. The paper's
          L_gm speaks of gradients, its code takes weights: so do we.
Note      No setting equals vanilla. Under Adam only changes of B_m act.
Supports  any fusion (direction > 0: linear ones), any task of classes, any number of modalities.
          Multilabel: the accuracy is the share of labels that are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.mla import WITH_ENTROPY
from miles_repro.strategy import Needs, Strategy
from miles_repro.tasks import Task

EPS = 1e-8
LINEAR = frozenset({"concat", "sum", "late"})


def coefficients(change: Tensor, guard: bool = True) -> Tensor:
    """B (M,) from the changes of accuracy d (M,)."""
    total = change.sum() + EPS
    balance = (total - change) / total
    if not guard:
        return balance
    rising = change.sum() > EPS
    return torch.where(rising, balance.clamp(0, 1), torch.ones_like(balance))


def accuracy(task: Task, logits: Tensor, y: Tensor) -> Tensor:
    """Share of right answers in a batch, a scalar; multilabel: over samples and labels.

    In double precision: changes that cancel must sum to less than EPS.
    """
    if task.name == "multiclass":
        return (logits.argmax(1) == y).double().mean()
    return ((logits > 0) == (y.view_as(logits) > 0)).double().mean()


def direction_loss(balance: Tensor, fused: list[Tensor], alone: list[Tensor]) -> Tensor:
    """L_gm, a scalar, from B (M,) and the weights W_m, U_m (C, d_m)."""
    pairs = zip(fused, alone, strict=True)
    cos = [F.cosine_similarity(w.flatten(), u.flatten(), dim=0) for w, u in pairs]
    return (balance.abs() - balance * torch.stack(cos)).mean()


def fused_weights(ctx: Context) -> list[Tensor]:
    """W_m (C, d_m) of every modality under a linear fusion: what unit features add."""
    fusion, device = ctx.model.fusion, ctx.recipe.device
    units = {m: torch.eye(d, device=device) for m, d in fusion.dims.items()}
    of_units = fusion.unimodal(units)
    of_none = fusion.unimodal({m: torch.zeros_like(u) for m, u in units.items()})
    return [(of_units[m] - of_none[m]).T for m in ctx.modalities]


class CGGM(Strategy):
    """Scale each encoder's gradients by what the classifiers say of the others' progress."""

    persistent: ClassVar[tuple[str, ...]] = ("accuracy", "pending")

    rho: float = hyper(1.3, ge=0)
    direction: float = hyper(0.0, ge=0)
    classifier_lr: float = hyper(5e-4, gt=0)
    variant: Literal["paper", "official"] = "paper"

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        return Needs(fusions=LINEAR if self.direction else None, tasks=WITH_ENTROPY)

    def setup(self, ctx: Context) -> None:
        dims, classes = ctx.model.fusion.dims, ctx.task.num_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ctx.seed_of("classifiers"))
            made = {m: nn.Linear(dims[m], classes) for m in ctx.modalities}
        self.classifiers = nn.ModuleDict(made).to(ctx.recipe.device)
        self.optimizer = ctx.recipe.optimizer([{"params": list(self.classifiers.parameters())}])
        self.optimizer.param_groups[0]["lr"] = self.classifier_lr
        self.accuracy = torch.zeros(len(made), dtype=torch.double)
        self.pending: list[Tensor] = []

    def on_epoch_start(self, ctx: Context) -> None:
        self._seen: list[Tensor] = []

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        super().backward(ctx, batch, out, loss)
        balance = self._balance(ctx, batch, out)
        self._seen.append(balance)
        for i, m in enumerate(ctx.modalities):
            grads = [p.grad for p in ctx.parameters([f"encoder.{m}"]) if p.grad is not None]
            if grads:  # none of a frozen encoder
                torch._foreach_mul_(grads, self.rho * balance[i])
        if self.direction:
            self._direct(ctx, balance)
        self.optimizer.step()

    def _balance(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        """B (M,), and the classifiers' gradients for their next step."""
        logits = {m: self.classifiers[m](z.detach().float()) for m, z in out.features.items()}
        loss = torch.stack([ctx.task.loss(f, batch.y) for f in logits.values()]).sum()
        every = list(self.classifiers.parameters())
        for p, g in zip(every, torch.autograd.grad(loss, every), strict=True):
            p.grad = g
        with torch.no_grad():
            now = torch.stack([accuracy(ctx.task, logits[m], batch.y) for m in ctx.modalities])
            change, self.accuracy = now - self.accuracy.to(now.device), now
            return coefficients(change, guard=self.variant == "paper").float()

    def _direct(self, ctx: Context, balance: Tensor) -> None:
        """Add the direction term of the batch before; keep this batch's for the next one."""
        fusion = ctx.parameters(["fusion"])
        for p, g in zip(fusion, self.pending, strict=False):
            p.grad = g.to(p.device) if p.grad is None else p.grad + g.to(p.device)
        alone = [p.detach() for p in self.classifiers.parameters() if p.ndim == 2]
        loss = self.direction * direction_loss(balance, fused_weights(ctx), alone)
        self.pending = list(torch.autograd.grad(loss, fusion, materialize_grads=True))

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        self._mean = dict(
            zip(ctx.modalities, torch.stack(self._seen).mean(0).tolist(), strict=True)
        )

    def log(self) -> dict[str, float]:
        return {f"B_{m}": b for m, b in self._mean.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "classifiers": self.classifiers.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.classifiers.load_state_dict(state["classifiers"])
        self.optimizer.load_state_dict(state["optimizer"])
