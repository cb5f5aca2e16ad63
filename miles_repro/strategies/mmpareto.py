"""MMPareto (Wei & Hu, ICML 2024, Algorithm 1).

Rule      Encoder m has two gradients: g of L_AB and u of its own L_m. Where they conflict (negative
          cosine, taken over the whole encoder) they are weighted by the min-norm solution
          t = (u - g).u / |g - u|^2, else equally: h = 2t g + 2(1 - t) u. Its length is then set to
          gamma |g + u|. Fusion and unimodal heads take the plain gradient of the sum of losses.
Loss      L_AB + sum_m L_m.
Defaults  gamma 1.5, the authors'. ``variant`` paper; official takes cosine 0 for a conflict, and
          rescales each parameter tensor on its own, upwards only, before it multiplies by gamma.
Search    gamma {1, 1.5, 2}. Under Adam the length of a gradient means little: what acts is its
          direction, and how the length varies over batches.
Deviations from the official code
          its scheduler is built and never stepped; its solver's bounds 0.001 and 0.999 cannot act
          under conflict and are left out. h = 0 is Pareto-stationary: no gradient.
Supports  any fusion, task and number of modalities. Cost: one more backward pass. No neutral point.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy, weighted_loss

Gradients = list[Tensor]
"""Of one encoder, a tensor a parameter."""
TINY = 1e-30
"""Keeps the quotient of two zero gradients finite."""


def inner(a: Gradients, b: Gradients) -> Tensor:
    """Inner product of two gradients of an encoder, a scalar."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def min_norm(g: Gradients, u: Gradients) -> Tensor:
    """t in [0, 1] for which t g + (1 - t) u is shortest, a scalar."""
    gg, uu, gu = inner(g, g), inner(u, u), inner(g, u)
    return ((uu - gu) / (gg - 2 * gu + uu).clamp_min(TINY)).clamp(0, 1)


def integrated(g: Gradients, u: Gradients, gamma: float, variant: str) -> Gradients:
    """The gradient that an encoder takes, from that of the fused and of its own loss."""
    gu = inner(g, u)
    conflict = gu <= 0 if variant == "official" else gu < 0
    t = torch.where(conflict, min_norm(g, u), 0.5)
    h = [2 * t * a + 2 * (1 - t) * b for a, b in zip(g, u, strict=True)]
    total = [a + b for a, b in zip(g, u, strict=True)]
    if variant == "official":
        return [gamma * _ratio([s], [x]).clamp_min(1) * x for s, x in zip(total, h, strict=True)]
    factor = gamma * _ratio(total, h)
    return [factor * x for x in h]


def _ratio(a: Gradients, b: Gradients) -> Tensor:
    """|a| / |b|, 0 where b is 0."""
    length = inner(b, b).sqrt()
    return torch.where(length > 0, inner(a, a).sqrt() / length.clamp_min(TINY), 0.0)


class MMPareto(Strategy):
    """Integrate each encoder's two gradients without letting them fight."""

    needs: ClassVar[Needs] = Needs(heads="trained", passes=1.7)

    gamma: float = hyper(1.5, gt=0)
    variant: Literal["paper", "official"] = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._conflicts: list[Tensor] = []

    def on_epoch_start(self, ctx: Context) -> None:
        self._conflicts = []

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        """``loss`` is L_AB. L_m reaches encoder m alone, so their sum gives every u at once."""
        with ctx.autocast():
            unimodal = weighted_loss(ctx.task, out, batch.y, dict.fromkeys(ctx.modalities, 1.0))
        fused, own = ctx.grad(loss), ctx.grad(unimodal, retain=False)
        for p in fused.keys() | own.keys():
            p.grad = fused[p] + own[p] if p in fused and p in own else fused.get(p, own.get(p))
        signs = []
        for m in ctx.modalities:
            shared = [p for p in ctx.parameters([f"encoder.{m}"]) if p in fused and p in own]
            if not shared:  # a frozen encoder
                signs.append(torch.zeros_like(loss, dtype=torch.bool))
                continue
            g, u = [fused[p] for p in shared], [own[p] for p in shared]
            for p, h in zip(shared, integrated(g, u, self.gamma, self.variant), strict=True):
                p.grad = h
            signs.append(inner(g, u) < 0)
        self._conflicts.append(torch.stack(signs))

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        share = torch.stack(self._conflicts).float().mean(0).tolist()
        self._share = dict(zip(ctx.modalities, share, strict=True))

    def log(self) -> dict[str, float]:
        """Share of the epoch's batches in which a modality's two gradients were in conflict."""
        return {f"conflict_{m}": share for m, share in self._share.items()}
