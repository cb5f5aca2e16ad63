"""MILES: the modality-informed learning-rate scheduler (arXiv 2510.17394, Algorithm 1).

Rule      After each epoch, from the task metric M of the fused head and of each unimodal head:
          u_A = (M_AB - M_B) / M_AB, u_B = (M_AB - M_A) / M_AB, delta = |u_A - u_B| (Eq. 4, 5).
          If delta <= tau, or both u < 0 (the fused head does not lead yet), every rate is alpha;
          else the modality with the larger u, the one whose own head is stronger, trains at
          mu * alpha in the next epoch. Always from alpha, never compounding; the fusion layer
          always at alpha.
Loss      L_AB + L_A + L_B (Eq. 3).
Defaults  tau 0.2, mu 0.5: the paper's recommendation and best values on LUMA (sec. V-C).
Search    tau and mu over the values of the paper's ablations (Tables IV, V).
Open in the paper, and our choice:
          reset_other - a modality slowed before is back at alpha when the other one is slowed
          (Algorithm 1 as printed would leave it slow; ``false`` is that literal reading);
          heads_follow - a unimodal head trains at its encoder's rate;
          source - M on the validation set, or the running training metric (Table VI);
          undefined - where M_AB <= 0 or a metric is not finite: every rate back at alpha
          (``reset``), or as in the epoch before (``keep``);
          rule - with three modalities and more, the pair with the largest delta decides
          (``largest_pair``, at most one is slowed) or every pair does (``all_pairs``).
Supports  any fusion and task.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.miles import Rule, dominant, lr_factors, utilization_gap
from miles_repro.model import Output
from miles_repro.strategy import (
    Needs,
    Scores,
    Strategy,
    joint_weights,
    weighted_loss,
)


class Miles(Strategy):
    """Algorithm 1 wired to the training loop."""

    needs: ClassVar[Needs] = Needs(heads="trained")

    tau: float = hyper(0.2, ge=0)
    mu: float = hyper(0.5, gt=0, le=1)
    reset_other: bool = True
    heads_follow: bool = True
    source: Literal["val", "train"] = "val"
    rule: Rule = "largest_pair"
    undefined: Literal["reset", "keep"] = "reset"

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        return weighted_loss(ctx.task, out, batch.y, joint_weights(ctx.modalities))

    def on_epoch_end(self, ctx: Context, train: Scores, val: Scores) -> None:
        scores = val if self.source == "val" else train
        fused = scores["fused"]["metric"]
        unimodal = {m: scores[m]["metric"] for m in ctx.modalities}
        if self.undefined == "keep" and math.isnan(utilization_gap(fused, unimodal)):
            return
        factors = lr_factors(fused, unimodal, self.tau, self.mu, self.rule)
        if not self.reset_other and dominant(fused, unimodal, self.tau) is not None:
            factors = {
                m: self.state.lr_factors.get(f"encoder.{m}", 1.0) if f == 1 else f
                for m, f in factors.items()
            }
        groups = ("encoder", "head") if self.heads_follow else ("encoder",)
        self.state.lr_factors = {f"{g}.{m}": f for m, f in factors.items() for g in groups}
