"""ARL: asymmetric representation learning (Wei et al., ICCV 2025, Eq. 4, 17-22).

Rule      Per batch, from f_m, the fused prediction with the other features at zero: H_m the mean
          entropy of softmax(f_m), q_m = 1 / H_m, d_m the sum of its probabilities of the right
          answer; (a_1, a_2) = softmax(T q_1 / q_2, T d_1 / d_2). Whatever flows back into encoder
          m is multiplied by 1 + a_m; fusion and classifier are left alone.
Loss      L_AB + gamma (L_A + L_B), L_m from f_m: it trains encoder m and the fusion. In the first
          ``warmup`` x epochs gamma and the factors are 1, as in the authors' code.
Defaults  gamma 4, T (``temperature``) 8 (the authors' CREMA-D value, 4 elsewhere), warmup 0.06
          (official: 6 of 100 epochs). The authors clip at 40 (``optimizer.clip_norm``).
Search    gamma {1, 2, 4}, temperature {2, 4, 8}.
Deviations from the official code, which cannot train as released (its gradient scaling multiplies
          by a tuple): its weights are computed but never assigned, so both factors are 1.5;
          ``variant: official`` is that. Its FiLM and gated fusions pair a modality with itself.
Note      Means and sums over the batch are ours: the paper does not say. Under Adam a constant
          factor does nothing. No setting equals vanilla: gamma 0 still scales.
Supports  any fusion, any task of classes; two modalities (Eq. 18 is a ratio); official: any task
          and number. Multilabel: mean entropy and mean probability over the labels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.dgl import alone
from miles_repro.strategies.mla import WITH_ENTROPY, entropy
from miles_repro.strategy import Needs, Strategy

EPS = 1e-8


def coefficients(entropies: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """a (2,) of Eq. 18 from mean entropies H (2,) and summed right-answer probabilities d (2,)."""
    quality = 1 / entropies.clamp(min=EPS)
    scores = scores.clamp(min=EPS)
    ratios = torch.stack([quality[0] / quality[1], scores[0] / scores[1]])
    return torch.softmax(temperature * ratios, dim=0)


class ARL(Strategy):
    """Scale what each encoder receives by 1 + a_m."""

    gamma: float = hyper(4.0, ge=0)
    temperature: float = hyper(8.0, ge=0)
    warmup: float = hyper(0.06, ge=0, le=1)
    variant: Literal["paper", "official"] = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._seen: list[Tensor] = []

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        if self.variant == "official":
            return Needs()
        return Needs(tasks=WITH_ENTROPY, max_modalities=2)

    def unimodal(self, ctx: Context, out: Output) -> dict[str, Tensor]:
        return alone(ctx.model.fusion, out.features)

    def on_epoch_start(self, ctx: Context) -> None:
        self._seen = []

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        masked = self.unimodal(ctx, out)
        acting = ctx.epoch > round(self.warmup * ctx.epochs)
        if acting:
            self._seen.append(self._factors(ctx, list(masked.values()), batch.y))
        losses = torch.stack([ctx.task.loss(f, batch.y) for f in masked.values()]).sum()
        return ctx.task.loss(out.fused, batch.y) + (self.gamma if acting else 1.0) * losses

    @torch.no_grad()
    def _factors(self, ctx: Context, masked: list[Tensor], y: Tensor) -> Tensor:
        if self.variant == "official":
            return torch.full((len(masked),), 1.5, device=y.device)
        entropies = torch.stack([entropy(ctx.task, f).mean() for f in masked])
        scores = torch.stack([ctx.task.confidence(f.float(), y).sum() for f in masked])
        return 1 + coefficients(entropies, scores, self.temperature)

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        super().backward(ctx, batch, out, loss)
        if not self._seen:
            return
        for i, m in enumerate(ctx.modalities):
            grads = [p.grad for p in ctx.parameters([f"encoder.{m}"]) if p.grad is not None]
            if grads:  # none of a frozen encoder
                torch._foreach_mul_(grads, self._seen[-1][i])

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        mean = torch.stack(self._seen).mean(0).tolist() if self._seen else [1.0] * 2
        self._mean = dict(zip(ctx.modalities, mean, strict=False))

    def log(self) -> dict[str, float]:
        return {f"k_{m}": k for m, k in self._mean.items()}
