"""OPM: on-the-fly prediction modulation (Wei et al., TPAMI 2024, Eq. 6-8).

Rule      Per batch, rho_m as in OGM (``ogm.py``); q_m = q_base (1 + lam tanh(rho_m - 1)), clipped
          to [0, 1], where rho_m > 1, else 0. With probability ``p_exe`` a batch loses features:
          z_m of a sample is set to zero with probability q_m, all features are divided by
          1 - theta, theta = sum_m d_m q_m / sum_m d_m, and samples that lost every feature leave
          the batch (none left: no step). Validation and test see everything.
Loss      L_AB over the samples left.
Defaults  variant official; q_base 0.5, lam 0.5, p_exe 0.7 (the authors' script); ``warmup`` 0.06
          of the epochs without dropping (the code's first six, taken of 100).
Search    q_base {0.3, 0.4, 0.5}, lam {0.5, 1.0}.
Variants  official: q acts on the batch it comes from. paper: q of the batch before (0 at first),
          no division, no sample leaves (Algorithm 1 mentions neither).
Deviations from the official code
          the released file has a syntax error; a popular port divides in place, so that its q
          depends on the order of the modalities.
Supports  any fusion (scores from the logit split, else other features zeroed), task and number of
          modalities, of which several may be dropped. Multilabel score: mean probability of a
          sample's true labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.ogm import discrepancy_ratio
from miles_repro.strategy import Strategy
from miles_repro.tasks import positives_confidence


def drop_rates(scores: Tensor, q_base: float, lam: float) -> Tensor:
    """q (M,) in [0, 1] from summed confidences s (M,)."""
    rho = discrepancy_ratio(scores)
    q = (q_base * (1 + lam * torch.tanh(rho - 1))).clamp(0, 1)
    return torch.where(rho > 1, q, torch.zeros_like(q))


def kept(n: int, q: Tensor, generator: torch.Generator) -> Tensor:
    """Who keeps what, (n, M) bool: each True with probability 1 - q_m."""
    return torch.rand(n, len(q), generator=generator).to(q.device) >= q


def feature_scale(widths: Tensor, q: Tensor) -> Tensor:
    """1 / (1 - theta) from feature widths d (M,) and q (M,)."""
    return 1 / (1 - (widths * q).sum() / widths.sum())


def masked(z: Mapping[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """Features (B, d_m) with those that ``keep`` (B, M) denies at zero."""
    return {m: f * keep[:, i, None] for i, (m, f) in enumerate(z.items())}


class OPM(Strategy):
    """Drop features of the modality that is ahead."""

    persistent: ClassVar[tuple[str, ...]] = ("previous",)

    variant: Literal["official", "paper"] = "official"
    q_base: float = hyper(0.5, ge=0, le=1)
    lam: float = hyper(0.5, ge=0)
    p_exe: float = hyper(0.7, ge=0, le=1)
    warmup: float = hyper(0.06, ge=0, le=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.previous = torch.empty(0)
        self._seen: list[Tensor] = []
        self._rows: Tensor | None = None

    def on_epoch_start(self, ctx: Context) -> None:
        self._seen = []

    def features(self, ctx: Context, batch: Batch, z: dict[str, Tensor]) -> dict[str, Tensor]:
        self._rows = None
        if self.p_exe == 0 or ctx.epoch <= round(self.warmup * ctx.epochs):
            return z
        q = self._rates(ctx, batch.y, z)
        self._seen.append(q)
        if float(torch.rand((), generator=ctx.generator)) >= self.p_exe:
            return z
        keep = kept(len(batch.y), q, ctx.generator)
        if self.variant == "paper":
            return masked(z, keep)
        self._rows = keep.any(dim=1).nonzero().flatten()
        scale = feature_scale(q.new_tensor([f.shape[1] for f in z.values()]), q)
        return {m: f * scale for m, f in masked(z, keep).items()}

    @torch.no_grad()
    def _rates(self, ctx: Context, y: Tensor, z: Mapping[str, Tensor]) -> Tensor:
        score = positives_confidence if ctx.task.name == "multilabel" else ctx.task.confidence
        logits = ctx.model.fusion.unimodal(z)
        scores = torch.stack([score(logits[m].float(), y).sum() for m in ctx.modalities])
        now = drop_rates(scores, self.q_base, self.lam)
        if self.variant == "official":
            return now
        before = self.previous.to(now.device) if len(self.previous) else torch.zeros_like(now)
        self.previous = now
        return before

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        if self._rows is None:
            return super().loss(ctx, batch, out)
        return ctx.task.loss(out.fused[self._rows], batch.y[self._rows])

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        if self._rows is None or len(self._rows):
            super().backward(ctx, batch, out, loss)

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        mean = (
            torch.stack(self._seen).mean(0).tolist() if self._seen else [0.0] * len(ctx.modalities)
        )
        self._mean = dict(zip(ctx.modalities, mean, strict=True))

    def log(self) -> dict[str, float]:
        return {f"q_{m}": q for m, q in self._mean.items()}
