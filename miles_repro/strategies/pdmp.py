"""PDMP: performance-dominant modality prioritisation (Wei et al., 2026, arXiv 2604.05773).

Rule      The modality whose unimodal model has the best validation metric (the first, on a tie)
          learns faster, all others slower, for the whole run: factor gamma_p for its encoder,
          gamma_r for the rest. The opposite of what balancing does, hence a control.
Loss      L_AB.
Defaults  gamma_p 2, gamma_r 0.5; ``apply`` lr, a factor on the encoder's learning rate, as one on
          its gradient (grad) does nothing under Adam.
Search    gamma_p {1, 2, 4}, gamma_r {0.25, 0.5, 1}.
Note      Only the paper's idea is known (its abstract: two coefficients, set by that ranking); the
          formula and the values are ours.
Supports  any fusion, task and number of modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy


def coefficients(metrics: Mapping[str, float], gamma_p: float, gamma_r: float) -> dict[str, float]:
    """Modality -> factor, from the validation metrics of unimodal models."""
    best = max(metrics, key=metrics.__getitem__)
    return {m: gamma_p if m == best else gamma_r for m in metrics}


class PDMP(Strategy):
    """Let the best modality lead."""

    needs: ClassVar[Needs] = Needs(teachers=True)

    gamma_p: float = hyper(2.0, gt=0)
    gamma_r: float = hyper(0.5, gt=0)
    apply: Literal["lr", "grad"] = "lr"

    def setup(self, ctx: Context) -> None:
        metrics = {m: ctx.teacher(m).metric for m in ctx.modalities}
        known = {m: value for m, value in metrics.items() if value is not None}
        if unknown := metrics.keys() - known.keys():
            raise ValueError(
                f"the validation metric of {', '.join(sorted(unknown))} alone is not known"
            )
        self.factors = coefficients(known, self.gamma_p, self.gamma_r)
        if self.apply == "lr":
            self.state.lr_factors = {f"encoder.{m}": k for m, k in self.factors.items()}

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        super().backward(ctx, batch, out, loss)
        if self.apply == "grad":
            for m, k in self.factors.items():
                encoder = ctx.model.encoders[m]
                grads = [p.grad for p in encoder.parameters() if p.grad is not None]
                if grads:  # none of a frozen encoder
                    torch._foreach_mul_(grads, k)

    def log(self) -> dict[str, float]:
        return {f"k_{m}": k for m, k in self.factors.items()}
