"""Data Remixing (Ma et al., ICML 2025).

Rule      For ``warmup`` x epochs ordinary training with unimodal losses. Then, at every epoch's
          start, each training sample is given to the modality m whose head is the least decided,
          argmin_m KL(p_m || uniform), p_m = softmax of its head in eval mode (tie: the later).
          The epoch trains on one subset after the other, no batch mixes them; the features of the
          modalities not kept are zero.
Loss      L_AB + ``weight`` sum_m L_m in the warm-up; then L_AB + gamma L_m of the kept m.
Defaults  weight 0.5, gamma 1 (the code); warmup 0.17: its 10 of 60 epochs.
Search    warmup {0.08, 0.17, 0.33}, gamma {0.5, 1}.
Variants  paper: what is not kept takes no step and moves no statistics (Algorithm 1 masks
          inputs); subsets in the modalities' order. official: the features are zeroed behind the
          encoder, which then moves by momentum, decay and statistics; subsets in reverse order.
Deviations from the official code
          its divergence has six classes written into it; a subset of one sample waits for another
          epoch, since batch normalisation cannot train on it.
Supports  any fusion and number of modalities. Multilabel (ours): the mean over labels of
          KL(Bernoulli(p) || Bernoulli(1/2)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from miles_repro.context import Batch, Context, Logits, Segment
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.mla import WITH_ENTROPY, entropy
from miles_repro.strategy import Needs, Strategy, weighted_loss
from miles_repro.tasks import Task


def decidedness(task: Task, logits: Tensor) -> Tensor:
    """KL(p || uniform) in bits (...) of predictions (..., C): 0 for one that knows nothing."""
    most = math.log(logits.shape[-1] if task.name == "multiclass" else 2)
    return (most - entropy(task, logits)) / math.log(2)


def assignment(kl: Tensor) -> Tensor:
    """Index (N,) of the modality each sample is kept for, from KL (N, M); tie: the later."""
    return kl.shape[1] - 1 - kl.flip(1).argmin(1)


class DataRemixing(Strategy):
    """Train each sample on its least decided modality alone."""

    needs: ClassVar[Needs] = Needs(heads="trained", tasks=WITH_ENTROPY, passes=1.0)

    variant: Literal["paper", "official"] = "paper"
    weight: float = hyper(0.5, ge=0)
    gamma: float = hyper(1.0, ge=0)
    warmup: float = hyper(0.17, ge=0, le=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sizes: dict[str, float] = {}

    def order(self, ctx: Context, rows: Tensor) -> Sequence[Segment]:
        if ctx.epoch <= round(self.warmup * ctx.epochs):
            return super().order(ctx, rows)
        logits = ctx.observe("train", rows).logits
        kl = torch.stack([decidedness(ctx.task, logits[m]) for m in ctx.modalities], dim=1)
        kept = assignment(kl).cpu()
        subsets = {m: rows[kept == i] for i, m in enumerate(ctx.modalities)}
        self._sizes = {f"share_{m}": len(s) / len(rows) for m, s in subsets.items()}
        names = ctx.modalities if self.variant == "paper" else ctx.modalities[::-1]
        return [
            Segment(
                ctx.shuffled(subsets[m], m),
                {k: torch.full((len(subsets[m]),), k == m) for k in ctx.modalities},
                m,
            )
            for m in names
            if len(subsets[m]) > 1
        ]

    def step(self, ctx: Context, batch: Batch) -> Logits:
        if not batch.segment or self.variant == "official":
            return super().step(ctx, batch)
        kept, dims = batch.segment, ctx.model.fusion.dims
        with ctx.autocast():
            z = ctx.model.encoders[kept](batch.x[kept])
            nothing = {m: z.new_zeros(len(z), d) for m, d in dims.items() if m != kept}
            out = ctx.model.fuse({m: nothing.get(m, z) for m in ctx.modalities})
            loss = self.loss(ctx, batch, out)
            logits = ctx.logits(out)
        self.backward(ctx, batch, out, loss)
        ctx.update()  # what was not kept has no gradient, hence takes no step
        return logits

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        if batch.segment:
            weights = {batch.segment: self.gamma}
        else:
            weights = dict.fromkeys(ctx.modalities, self.weight)
        return weighted_loss(ctx.task, out, batch.y, {"fused": 1.0, **weights})

    def log(self) -> dict[str, float]:
        return self._sizes
