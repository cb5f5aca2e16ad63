"""Sample-level modality valuation (Wei et al., CVPR 2024).

Rule      v(S) of a training sample is |S| if the fused prediction with the features outside S at
          zero is right, else 0; phi_m is the Shapley value of v. From ``warmup`` x epochs on, at
          every epoch's start in eval mode: ``level: sample`` adds to each sample copies that keep
          modality m alone: none if phi_m >= 1, one above 0.4, two above -0.1, three below.
          ``level: modality`` draws one estimate of the mean phi_m on ``part_ratio`` of the
          samples; p = (2/3) (max - min) alpha (``func`` linear; tanh of that; square: power 1.5
          before alpha); int(p N) drawn samples are added that keep the lowest modality alone.
          One shuffle over all rows; a modality not kept is a zero feature.
Loss      L_AB over the rows. Unimodal predictions: the other features at zero.
Defaults  level sample, alpha 1, part_ratio 0.2 (the code); warmup 0.08: its 5 of 60 epochs.
Search    level, alpha {0.5, 1, 2}, warmup {0.02, 0.08, 0.17}.
Deviations from the official code
          samples are valued without augmentation. Its scripts cannot run as released: they pass an
          argument that the data classes do not take.
Note      An epoch of level sample has up to 1 + 2 M times the rows of vanilla training (a sample
          wrong in every way brings two copies for each modality), so it is not equal in cost.
Supports  any fusion; more than two modalities by the same rule (ours). One label a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from miles_repro.context import Context, Segment
from miles_repro.fusions.base import Fusion
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.agm import shares, subsets
from miles_repro.strategy import Needs, Strategy

THRESHOLDS = (1.0, 0.4, -0.1)
"""A copy for each that phi_m is below."""


def valuation(correct: Tensor) -> Tensor:
    """phi (N, M) from who is right, (N, 2^M - 1) bool, subsets as in ``agm.subsets``."""
    n = correct.shape[1].bit_length()
    sizes = torch.tensor([float(len(s)) for s in subsets(n)], device=correct.device)
    return (correct * sizes) @ shares(n).T.to(correct.device)


def copies(phi: Tensor) -> Tensor:
    """Further rows (N, M) of each sample that keep m alone."""
    return torch.stack([phi < t for t in THRESHOLDS]).sum(0)


def copied(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Sample and kept modality of each further row, (n,) each, from counts (N, M)."""
    n, m = counts.shape
    rows = torch.arange(n * m, device=counts.device).repeat_interleave(counts.flatten())
    return rows // m, rows % m


def copied_share(means: Sequence[float], alpha: float, func: str) -> float:
    """p: how many further rows ``level: modality`` adds, as a share of the samples."""
    gap = 2 / 3 * (max(means) - min(means))
    if func == "square":
        return float(gap**1.5 * alpha)
    return math.tanh(gap * alpha) if func == "tanh" else gap * alpha


class SampleValuation(Strategy):
    """Show again, alone, the modality that a sample does not profit from."""

    needs: ClassVar[Needs] = Needs(tasks=frozenset({"multiclass"}), passes=2.7)

    level: Literal["sample", "modality"] = "sample"
    alpha: float = hyper(1.0, ge=0)
    func: Literal["linear", "tanh", "square"] = "linear"
    part_ratio: float = hyper(0.2, gt=0, le=1)
    warmup: float = hyper(0.08, ge=0, le=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._rows: dict[str, float] = {}

    def order(self, ctx: Context, rows: Tensor) -> Sequence[Segment]:
        if ctx.epoch <= round(self.warmup * ctx.epochs):
            self._rows = {}
            return super().order(ctx, rows)
        phi = self._phi(ctx, rows)
        if self.level == "sample":
            samples, alone = copied(copies(phi))
        else:
            samples, alone = self._of_the_lowest(ctx, phi)
        every = torch.cat([torch.arange(len(rows)), samples])
        kept = torch.cat([torch.full((len(rows),), -1), alone])  # -1: everything
        self._rows = {
            "rows": len(every) / len(rows),
            **{f"phi_{m}": float(phi[:, i].mean()) for i, m in enumerate(ctx.modalities)},
        }
        shuffled = ctx.shuffled(torch.arange(len(every)))
        every, kept = every[shuffled], kept[shuffled]
        keep = {m: (kept == i) | (kept < 0) for i, m in enumerate(ctx.modalities)}
        return [Segment(rows[every], keep)]

    def unimodal(self, ctx: Context, out: Output) -> dict[str, Tensor]:
        return Fusion.unimodal(ctx.model.fusion, out.features)

    def _phi(self, ctx: Context, rows: Tensor) -> Tensor:
        seen = ctx.observe("train", rows)
        names = ctx.modalities
        predictions = [seen.masked(ctx, [names[i] for i in s]) for s in subsets(len(names))]
        right = torch.stack([p.argmax(1) == seen.labels for p in predictions], dim=1)
        return valuation(right).cpu()

    def _of_the_lowest(self, ctx: Context, phi: Tensor) -> tuple[Tensor, Tensor]:
        n = len(phi)
        part = max(1, int(self.part_ratio * n))
        means = phi[torch.randint(n, (part,), generator=ctx.generator)].mean(0)
        p = copied_share(means.tolist(), self.alpha, self.func)
        samples = torch.randint(n, (int(p * n),), generator=ctx.generator)
        return samples, means.argmin().expand(len(samples))

    def log(self) -> dict[str, float]:
        return self._rows
