"""OGM: on-the-fly gradient modulation (Peng et al., CVPR 2022).

Rule      Per batch, s_m = sum over samples of the probability modality m gives the right answer;
          rho_m = mean over j != m of s_m / s_j (for two modalities the paper's ratio; the mean
          is its TPAMI 2024 extension); k_m = 1 - tanh(alpha * rho_m) where rho_m > 1, else 1;
          the gradients of encoder m are multiplied by k_m. The classifier is left alone.
Loss      L_AB; s_m from the logit split (fusions without one: other features zeroed).
Defaults  alpha 0.8 (the authors' CREMA-D value); modulated from the first epoch through
          ``ends`` = 0.5 of all epochs (official: epochs 0-50 of 100).
Search    alpha {0.1, 0.3, 0.5, 0.8, 1.0, 2.6}, ends {0.5, 1.0}.
Deviations from the official code
          a tie (rho = 1) gives k = 1 for both as in the paper's equation, the code damps audio;
          ``params``: the code touches 4-D (convolution) weights only, a no-op for an encoder
          without any; ``auto`` takes convolution weights where there are some, else all;
          sum fusion uses b / M in training and evaluation alike.
Note      Under Adam a constant factor on the gradient does nothing; OGM then acts only through
          changes of k_m over batches. The paper (its Table 6) finds SGD better for that reason.
Supports  any fusion, task and number of modalities. Multilabel score: mean probability of the
          right answer over all labels, or over a sample's true labels (``multilabel_score``).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Strategy
from miles_repro.tasks import positives_confidence

EPS = 1e-8


def discrepancy_ratio(scores: Tensor) -> Tensor:
    """rho (M,) from summed confidences s (M,): rho_m = mean over j != m of s_m / s_j."""
    ratios = scores[:, None] / (scores[None, :] + EPS)
    off_diagonal = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return (ratios * off_diagonal).sum(1) / (len(scores) - 1)


def coefficients(scores: Tensor, alpha: float) -> Tensor:
    """k (M,) in (0, 1] from summed confidences s (M,)."""
    rho = discrepancy_ratio(scores)
    return torch.where(rho > 1, 1 - torch.tanh(alpha * rho), torch.ones_like(rho))


def modulated(encoder: nn.Module, params: str) -> list[nn.Parameter]:
    """The encoder's parameters whose gradients are scaled."""
    every = list(encoder.parameters())
    conv = [p for p in every if p.ndim == 4]
    if params == "all" or (params == "auto" and not conv):
        return every
    return conv


class OGM(Strategy):
    """Scale each encoder's gradients by its batch's coefficient."""

    alpha: float = hyper(0.8, ge=0)
    ends: float = hyper(0.5, ge=0, le=1)
    params: Literal["auto", "conv", "all"] = "auto"
    multilabel_score: Literal["all", "positives"] = "positives"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._seen: list[Tensor] = []

    def on_epoch_start(self, ctx: Context) -> None:
        self._seen = []

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        super().backward(ctx, batch, out, loss)
        if ctx.epoch > round(self.ends * ctx.epochs):
            return
        with torch.no_grad():
            k = coefficients(self._scores(ctx, out, batch.y), self.alpha)
            self._seen.append(k)
            for i, m in enumerate(ctx.modalities):
                grads = [
                    p.grad
                    for p in modulated(ctx.model.encoders[m], self.params)
                    if p.grad is not None
                ]
                self.modulate(ctx, grads, k[i])

    def modulate(self, ctx: Context, grads: list[Tensor], k: Tensor) -> None:
        """In place: grad <- k grad."""
        if grads:
            torch._foreach_mul_(grads, k)

    def _scores(self, ctx: Context, out: Output, y: Tensor) -> Tensor:
        score = ctx.task.confidence
        if ctx.task.name == "multilabel" and self.multilabel_score == "positives":
            score = positives_confidence
        return torch.stack([score(out.unimodal[m], y).sum() for m in ctx.modalities])

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        self._mean = (
            dict(zip(ctx.modalities, torch.stack(self._seen).mean(0).tolist(), strict=True))
            if self._seen
            else dict.fromkeys(ctx.modalities, 1.0)
        )

    def log(self) -> dict[str, float]:
        return {f"k_{m}": k for m, k in self._mean.items()}
