"""CML: calibrated multimodal learning (Ma et al., ICML 2023).

Rule      Confidence must not rise when a modality is taken away. Once an epoch an order of removal
          is drawn: S_0 has all modalities, S_k one less than S_{k-1}, the last one alone. f_S is
          the fused prediction with the features outside S at zero, conf_S its largest probability.
Loss      mean over k of CE(f_{S_k}) + lam * sum over k and the batch of
          max(0, conf_{S_k} - conf_{S_{k-1}}), in the first ``ends`` x epochs; then L_AB.
          Gradients flow through both confidences.
Defaults  lam 0.1 and ends 0.8 (BalanceBenchmark: through epoch 80). The sum makes lam depend on the
          batch size. ``exempt`` leaves out samples that the smaller set gets right and the larger
          one wrong, as the authors' repository does.
Search    lam {0.01, 0.1, 1}.
Deviations ``variant: official`` is BalanceBenchmark's max(0, sum over the batch): samples cancel
          one another there; the hinge of each sample is the authors'. They draw the order once and
          a sample.
Supports  any fusion, task of classes and number of modalities; exempt: one label a
          sample. Multilabel: the confidence is the mean over labels of max(p, 1 - p).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.mla import WITH_ENTROPY
from miles_repro.strategy import Needs, Strategy
from miles_repro.tasks import Task


def confidence(task: Task, logits: Tensor) -> Tensor:
    """Largest probability (B,); multilabel: the mean over labels of the likelier answer's."""
    if task.name == "multiclass":
        return logits.float().softmax(1).amax(1)
    p = logits.float().sigmoid()
    return torch.maximum(p, 1 - p).mean(1)


class CML(Strategy):
    """A hinge on the confidence along a chain of subsets."""

    lam: float = hyper(0.1, ge=0)
    ends: float = hyper(0.8, ge=0, le=1)
    exempt: bool = False
    variant: Literal["recommended", "official"] = "recommended"

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        return Needs(tasks=frozenset({"multiclass"}) if self.exempt else WITH_ENTROPY)

    def on_epoch_start(self, ctx: Context) -> None:
        drawn = torch.randperm(len(ctx.modalities), generator=ctx.generator).tolist()
        self.removed = [ctx.modalities[i] for i in drawn[:-1]]
        self._penalties: list[Tensor] = []

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        if ctx.epoch > round(self.ends * ctx.epochs):
            return super().loss(ctx, batch, out)
        chain = [out.fused, *self._subsets(ctx, out)]
        penalty = self._penalty(ctx.task, chain, batch.y)
        self._penalties.append(penalty.detach())
        losses = torch.stack([ctx.task.loss(f, batch.y) for f in chain])
        return losses.mean() + self.lam * penalty

    def _subsets(self, ctx: Context, out: Output) -> list[Tensor]:
        """Fused logits (B, C) of S_1, S_2, ..."""
        z, found = dict(out.features), []
        for m in self.removed:
            z[m] = torch.zeros_like(z[m])
            found.append(ctx.model.fusion(z))
        return found

    def _penalty(self, task: Task, chain: Sequence[Tensor], y: Tensor) -> Tensor:
        conf = torch.stack([confidence(task, f) for f in chain])
        risen = conf[1:] - conf[:-1]  # (M - 1, B)
        if self.exempt:
            right = torch.stack([f.argmax(1) == y for f in chain])
            risen = risen.masked_fill(right[1:] & ~right[:-1], 0.0)
        if self.variant == "official":
            return risen.sum(1).relu().sum()
        return risen.relu().sum()

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        seen = self._penalties
        self._mean = float(torch.stack(seen).mean()) if seen else 0.0

    def log(self) -> dict[str, float]:
        return {"penalty": self._mean}
