"""InfoReg: regulation in the prime learning window (Huang et al., CVPR 2025).

Rule      Within the window, an encoder whose own prediction is ahead is held back: its gradient
          gains alpha_m (theta_m - theta_m at the start of the epoch), that of the penalty
          alpha_m / 2 |..|^2. Score s_m = mean log probability of the right answer in the batch;
          gap_m = mean of s_m - s_j over the j behind m; alpha_m = exp(beta tanh(gap_m)), 0 without
          a gap (Eq. 9, 10, 16). Window, per modality: T_m, the epoch's mean squared norm of the
          encoder's gradient, grew by more than the share K in the last epoch (Eq. 11).
Loss      L_AB; with ``aux_losses`` also every L_m, of the fusion's unimodal logits.
Defaults  beta 0.9, threshold K 0.04 (paper). ``variant`` paper. Official: two modalities; summed
          probabilities as scores; alpha_m = 0.95 or 0.1 x exp(tanh gap) for the first or second;
          always with ``aux_losses``; T from weights only, of the first modality, for both; window
          while its sum over ten epochs grew by more than 0.05, that is epochs 1 to 11 or so
          whatever the data.
Search    beta {0.3, 0.5, 0.7, 0.9, 1}, threshold {0.01, 0.02, 0.04, 0.06, 0.1}.
Deviations from the official code
          Eq. 8 is printed with a sign that calls the worse modality the informed one; its text and
          code mean the better. The official window code crashes on one GPU.
Note      Under Adam the term enters before the division by the gradient's scale, as a gradient.
Supports  any fusion, task and number of modalities (official: two).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Scores, Strategy, joint_weights, weighted_loss

OFFICIAL = (0.95, 0.1)
"""Factors of the released code on exp(tanh gap), for the first and the second modality."""
OFFICIAL_GROWTH, OFFICIAL_EPOCHS = 0.05, 10


def gaps(scores: Tensor) -> Tensor:
    """gap (M,) from scores s (M,): mean lead over those strictly behind, 0 where there are none."""
    lead = scores[:, None] - scores[None, :]
    behind = lead > 0
    return (lead * behind).sum(1) / behind.sum(1).clamp_min(1)


def strengths(gap: Tensor, beta: float) -> Tensor:
    """alpha (M,) from gap (M,) (Eq. 16)."""
    return torch.where(gap > 0, torch.exp(beta * torch.tanh(gap)), 0.0)


def official_strengths(gap: Tensor) -> Tensor:
    """alpha (2,) from gap (2,), as in the released code."""
    return strengths(gap, 1.0) * gap.new_tensor(OFFICIAL)


def growth(traces: Sequence[float]) -> float | None:
    """Relative growth of the trace in the last epoch, None before the third epoch (Eq. 11)."""
    if len(traces) < 2:
        return None
    return 0.0 if traces[-1] == 0 else (traces[-1] - traces[-2]) / traces[-1]


def official_growth(traces: Sequence[float]) -> float:
    """The same of sums over ten epochs; 1 before there is any."""
    now = sum(traces[-OFFICIAL_EPOCHS:])
    before = sum(traces[:-1][-OFFICIAL_EPOCHS:])
    return 1.0 if now == 0 else (now - before) / now


class InfoReg(Strategy):
    """Hold back the encoder that is ahead while it takes up information fast."""

    persistent: ClassVar[tuple[str, ...]] = ("traces",)

    beta: float = hyper(0.9, ge=0)
    threshold: float = hyper(0.04, le=1)  # the growth is at most 1; below 0 the trace may fall
    aux_losses: bool = False
    variant: Literal["paper", "official"] = "paper"

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        return Needs(max_modalities=2 if self.variant == "official" else None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.traces: dict[str, list[float]] = {}

    def regulated(self, ctx: Context) -> list[str]:
        """The modalities whose window is open in this epoch."""
        if self.variant == "official":
            first = self.traces.get(ctx.modalities[0], [])
            return ctx.modalities if official_growth(first) > OFFICIAL_GROWTH else []
        values = {m: growth(self.traces.get(m, [])) for m in ctx.modalities}
        return [m for m, value in values.items() if value is not None and value > self.threshold]

    def on_epoch_start(self, ctx: Context) -> None:
        self._starts = {
            m: [p.detach().clone() for p in ctx.model.encoders[m].parameters()]
            for m in self.regulated(ctx)
        }
        self._norms: list[Tensor] = []
        self._alphas: list[Tensor] = []

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        if self.aux_losses or self.variant == "official":
            return weighted_loss(ctx.task, out, batch.y, joint_weights(ctx.modalities))
        return super().loss(ctx, batch, out)

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        super().backward(ctx, batch, out, loss)
        if self.variant == "paper":
            self._norms.append(self._traced(ctx))
        if self._starts:
            self._regulate(ctx, batch, out)
        if self.variant == "official":  # the term included
            self._norms.append(self._traced(ctx))

    @torch.no_grad()
    def _traced(self, ctx: Context) -> Tensor:
        """What this batch adds to T (M,)."""
        found = []
        for m in ctx.modalities:
            grads = [p.grad for p in ctx.model.encoders[m].parameters() if p.grad is not None]
            if self.variant == "official":
                squares = [g.square().mean() for g in grads if g.ndim > 1]
            else:
                squares = [g.square().sum() for g in grads]
            none = torch.zeros((), device=ctx.recipe.device)  # of a frozen encoder
            found.append(torch.stack(squares).sum() if squares else none)
        return torch.stack(found)

    @torch.no_grad()
    def _regulate(self, ctx: Context, batch: Batch, out: Output) -> None:
        logits = {m: out.unimodal[m].float() for m in ctx.modalities}
        if self.variant == "official":
            scores = [ctx.task.confidence(f, batch.y).sum() for f in logits.values()]
            alpha = official_strengths(gaps(torch.stack(scores)))
        else:
            scores = [-ctx.task.loss(f, batch.y) for f in logits.values()]
            alpha = strengths(gaps(torch.stack(scores)), self.beta)
        self._alphas.append(alpha)
        for m, starts in self._starts.items():
            a = alpha[ctx.modalities.index(m)]
            for p, start in zip(ctx.model.encoders[m].parameters(), starts, strict=True):
                if p.grad is not None:
                    p.grad.add_(a * (p - start))

    def on_epoch_end(self, ctx: Context, train: Scores, val: Scores) -> None:
        norms = torch.stack(self._norms)
        norms = norms[norms.isfinite().all(1)]  # a scaler's first guesses overflow
        total = norms.sum(0) if self.variant == "official" else norms.mean(0)
        for m, value in zip(ctx.modalities, total.tolist(), strict=True):
            self.traces[m] = [*self.traces.get(m, []), value][-OFFICIAL_EPOCHS - 1 :]
        self._log = {f"trace_{m}": values[-1] for m, values in self.traces.items()}
        if self._alphas:
            alpha = torch.stack(self._alphas).mean(0).tolist()
            named = zip(ctx.modalities, alpha, strict=True)
            self._log |= {f"alpha_{m}": a for m, a in named if m in self._starts}

    def log(self) -> dict[str, float]:
        return self._log
