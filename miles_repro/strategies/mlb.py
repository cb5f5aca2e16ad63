"""MLB: multi-loss balanced (Kontras et al., BMVC 2024, arXiv 2405.07930).

Rule      Per batch, s_m = mean probability that head m gives the right answer; r_m = mean over
          n != m of s_n / s_m; k_m = 1 + (beta - 1) tanh(alpha (r_m - 1)) with beta = beta_max where
          r_m > 1, else 2 (Eq. 8-10). What encoder m gets from all losses is multiplied by k_m; it
          goes to 1 as the heads become equal, so no last epoch is needed.
Loss      L_AB + sum_m L_m.
Defaults  alpha 0.8 and beta_max 2: the released configuration for CREMA-D. ``apply`` auto: Eq. 2 is
          a factor on the learning rate, under SGD that is the gradient (grad); under other
          optimizers, which a slowly varying factor on the gradient hardly moves, the rate (lr).
          ``variant`` paper; official also multiplies the gradients of unimodal head m and of the
          fusion's columns of m (concat), and leaves the rates alone.
Search    alpha {0.5, 1, 2, 5}, beta_max {2, 5, 10}. beta_max < 1 would slow the weaker modality.
Deviations from the official code
          its class cannot be constructed (it calls a name that does not exist), and beta_max has no
          effect where the mode is given as a word.
Supports  any fusion, task and number of modalities. Multilabel score: mean probability of a
          sample's true labels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from miles_repro.context import Batch, Context, Logits
from miles_repro.fusions.concat import Concat
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.ogm import EPS
from miles_repro.strategy import Needs, Strategy, joint_weights, weighted_loss
from miles_repro.tasks import positives_confidence

SLOWEST = 2.0
"""beta of a modality that is ahead: k_m falls to 0 at most."""


def coefficients(scores: Tensor, alpha: float, beta_max: float) -> Tensor:
    """k (M,) from mean or summed confidences s (M,)."""
    others = scores.sum() - scores
    r = others / (scores + EPS) / (len(scores) - 1)
    beta = torch.where(r > 1, beta_max, SLOWEST)
    return 1 + (beta - 1) * torch.tanh(alpha * (r - 1))


class MLB(Strategy):
    """Scale what each encoder learns by how far its head is behind."""

    needs: ClassVar[Needs] = Needs(heads="trained")

    alpha: float = hyper(0.8, ge=0)
    beta_max: float = hyper(2.0, ge=1)
    apply: Literal["auto", "grad", "lr"] = "auto"
    variant: Literal["paper", "official"] = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "official" and self.apply == "lr":
            raise ValueError("apply=lr: variant=official multiplies gradients, of parts of a layer")
        self._seen: list[Tensor] = []

    def on_epoch_start(self, ctx: Context) -> None:
        self._seen = []

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        return weighted_loss(ctx.task, out, batch.y, joint_weights(ctx.modalities))

    def step(self, ctx: Context, batch: Batch) -> Logits:
        """As ever, with the rates of the batch for its own update."""
        assert ctx.optimizer is not None
        rates = [group["lr"] for group in ctx.optimizer.param_groups]
        logits = super().step(ctx, batch)
        for group, rate in zip(ctx.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return logits

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        super().backward(ctx, batch, out, loss)
        score = positives_confidence if ctx.task.name == "multilabel" else ctx.task.confidence
        with torch.no_grad():
            s = torch.stack(
                [score(out.unimodal[m].float(), batch.y).mean() for m in ctx.modalities]
            )
            k = coefficients(s, self.alpha, self.beta_max)
            self._seen.append(k)
            if self._by_rate(ctx):
                self._scale_rates(ctx, dict(zip(ctx.modalities, k.tolist(), strict=True)))
            else:
                self._scale_gradients(ctx, dict(zip(ctx.modalities, k, strict=True)))

    def _by_rate(self, ctx: Context) -> bool:
        if self.apply == "auto" and self.variant == "paper":
            return not isinstance(ctx.optimizer, torch.optim.SGD)
        return self.apply == "lr"

    def _scale_rates(self, ctx: Context, k: dict[str, float]) -> None:
        assert ctx.optimizer is not None
        factors = {
            id(p): factor for m, factor in k.items() for p in ctx.model.encoders[m].parameters()
        }
        for group in ctx.optimizer.param_groups:
            factor = factors.get(id(group["params"][0]), 1.0)
            group["lr"] = group["lr"] * factor  # not in place: a rate may be a tensor

    def _scale_gradients(self, ctx: Context, k: dict[str, Tensor]) -> None:
        wide = self.variant == "official"
        for m, factor in k.items():
            groups = [f"encoder.{m}", f"head.{m}"] if wide else [f"encoder.{m}"]
            grads = [p.grad for p in ctx.parameters(groups) if p.grad is not None]
            if grads:  # none of a frozen encoder
                torch._foreach_mul_(grads, factor)
        fusion = ctx.model.fusion
        if wide and isinstance(fusion, Concat) and fusion.linear.weight.grad is not None:
            columns = fusion.linear.weight.grad.split(list(fusion.dims.values()), dim=1)
            for block, m in zip(columns, fusion.dims, strict=True):
                block.mul_(k[m])

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        self._mean = torch.stack(self._seen).mean(0).tolist()
        self._names = ctx.modalities

    def log(self) -> dict[str, float]:
        return {f"k_{m}": k for m, k in zip(self._names, self._mean, strict=True)}
