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

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import (
    Needs,
    Scores,
    Strategy,
    joint_weights,
    weighted_loss,
)

SLACK = 1e-12
"""delta equal to tau up to rounding counts as delta <= tau."""


def conditional_utilization(fused: float, unimodal: Mapping[str, float]) -> dict[str, float]:
    """u_m for every modality m (MILES Eq. 4).

    u_m is the relative loss of metric when the fused prediction ``fused`` is replaced by the
    other modality's own prediction; with more than two, by the best of the others (ours). NaN
    for every modality where ``fused`` is not positive and finite.
    """
    if not _defined(fused, unimodal):
        return dict.fromkeys(unimodal, math.nan)
    return {
        m: (fused - max(v for other, v in unimodal.items() if other != m)) / fused for m in unimodal
    }


def utilization_gap(fused: float, unimodal: Mapping[str, float]) -> float:
    """delta = |u_A - u_B| (MILES Eq. 5), of the most distant pair; NaN where undefined.

    The paper places it in [0, 1]; it exceeds 1 when the fused metric is small.
    """
    if not _defined(fused, unimodal):
        return math.nan
    return (max(unimodal.values()) - min(unimodal.values())) / fused


def lr_factors(
    fused: float, unimodal: Mapping[str, float], tau: float, mu: float
) -> dict[str, float]:
    """Factor on the global rate for each modality's next epoch: 1, or ``mu`` for at most one."""
    slowed = dominant(fused, unimodal, tau)
    return {m: mu if m == slowed else 1.0 for m in unimodal}


def dominant(fused: float, unimodal: Mapping[str, float], tau: float) -> str | None:
    """The modality Algorithm 1 slows, or None where it takes no action."""
    if not _defined(fused, unimodal) or utilization_gap(fused, unimodal) <= tau + SLACK:
        return None
    strongest = max(unimodal, key=unimodal.__getitem__)
    weakest = min(unimodal, key=unimodal.__getitem__)
    pair = {m: unimodal[m] for m in (strongest, weakest)}
    if all(u < 0 for u in conditional_utilization(fused, pair).values()):
        return None
    return strongest


def _defined(fused: float, unimodal: Mapping[str, float]) -> bool:
    values = (fused, *unimodal.values())
    return len(unimodal) >= 2 and fused > 0 and all(math.isfinite(v) for v in values)


class Miles(Strategy):
    """Algorithm 1 wired to the training loop."""

    needs: ClassVar[Needs] = Needs(heads="trained")

    tau: float = hyper(0.2, ge=0)
    mu: float = hyper(0.5, gt=0, le=1)
    reset_other: bool = True
    heads_follow: bool = True
    source: Literal["val", "train"] = "val"

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        return weighted_loss(ctx.task, out, batch.y, joint_weights(ctx.modalities))

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
