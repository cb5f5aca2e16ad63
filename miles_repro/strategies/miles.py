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
          M_AB <= 0 or not finite - utilization is undefined and no rate changes;
          three modalities and more - the rule applies to the pair with the largest delta.
Supports  any fusion and task.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from miles_repro.miles import dominant, lr_factors
from miles_repro.model import Output
from miles_repro.strategies.base import (
    Context,
    Needs,
    Scores,
    Strategy,
    hyperparameters,
    joint_weights,
    weighted_loss,
)


@hyperparameters
class Miles(Strategy):
    """Algorithm 1 wired to the training loop."""

    needs: ClassVar[Needs] = Needs(heads="trained")

    tau: float = Field(ge=0)
    mu: float = Field(gt=0, le=1)
    reset_other: bool
    heads_follow: bool
    source: Literal["val", "train"]

    def loss(self, ctx: Context, out: Output, y: Tensor) -> Tensor:
        return weighted_loss(ctx.task, out, y, joint_weights(ctx.modalities))

    def on_epoch_end(self, ctx: Context, train: Scores, val: Scores) -> None:
        scores = val if self.source == "val" else train
        fused = scores["fused"]["metric"]
        unimodal = {m: scores[m]["metric"] for m in ctx.modalities}
        factors = lr_factors(fused, unimodal, self.tau, self.mu)
        if not self.reset_other and dominant(fused, unimodal, self.tau) is not None:
            factors = {
                m: self.state.lr_factors.get(f"encoder.{m}", 1.0) if f == 1 else f
                for m, f in factors.items()
            }
        groups = ("encoder", "head") if self.heads_follow else ("encoder",)
        self.state.lr_factors = {f"{g}.{m}": f for m, f in factors.items() for g in groups}
