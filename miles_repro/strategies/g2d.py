"""G2D: gradient-guided distillation (Rakib & Bagavathi, ICCV 2025, arXiv 2506.21514).

Rule      Sequential modality prioritisation: the modalities are ranked by the mean probability that
          their finished unimodal models (teachers) give the right answer. At first the encoder of
          the weakest learns alone, then that of the second weakest, at last all of them; the
          strongest has no phase of its own. The fusion always learns. Between equals nobody stops.
Loss      L_AB + w_feature sum_m mean (z_m - z_m of the teacher)^2
          + w_logit sum_m T^2 KL(teacher_m || y_AB), softmax at temperature T.
Defaults  all weights and T 1, as the authors. ``tau`` 0.5: share of the epochs with a phase, in
          equal parts (their 150 of 300). ``rank_on`` train: teachers fit the weaker modality's
          training samples less; on validation samples the order may be another.
Search    tau {0.1, 0.25, 0.5}, w_feature {0.1, 1, 10}, temperature {1, 2, 4}. With both weights 0,
          the phases alone remain: most of the published gain.
Deviations from the official code
          it ranks anew in each batch and zeroes the gradients of convolution weights only, so that
          biases, batch normalisation and momentum go on; we rank once and stop the whole encoder.
          Equal scores are an error there. The paper prints the feature term as a squared norm,
          the width times larger than the code's mean; the code's is taken.
Supports  any fusion, task and number of modalities; with many labels KL is the mean over labels,
          without probabilities (regression) the mean squared difference stands for it (ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from miles_repro.context import Batch, Context, Logits, Teacher
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.mla import WITH_ENTROPY
from miles_repro.strategies.umt import feature_distance, taught
from miles_repro.strategy import Needs, Strategy


def distillation(student: Tensor, teacher: Tensor, temperature: float, binary: bool) -> Tensor:
    """T^2 KL(teacher || student) of logits (B, C), mean over the batch, a scalar.

    binary: each logit is a yes or no of its own.
    """
    s, t = student.float() / temperature, teacher.detach().float() / temperature
    if binary:
        p = t.sigmoid()
        on, off = F.logsigmoid(t) - F.logsigmoid(s), F.logsigmoid(-t) - F.logsigmoid(-s)
        return temperature**2 * (p * on + (1 - p) * off).mean()
    log_s, log_t = F.log_softmax(s, dim=1), F.log_softmax(t, dim=1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def learning(confidence: Mapping[str, float], epoch: int, phase: int) -> list[str]:
    """The modalities that learn in an epoch (from 1), phases being ``phase`` epochs long."""
    place = (epoch - 1) // phase if phase else len(confidence)
    if place >= len(confidence) - 1:
        return list(confidence)
    turn = sorted(confidence.values())[place]
    return [m for m, c in confidence.items() if c == turn]


class G2D(Strategy):
    """Distil unimodal models, the weakest modality first."""

    needs: ClassVar[Needs] = Needs(teachers=True, passes=1.3)
    persistent: ClassVar[tuple[str, ...]] = ("confidence",)

    w_feature: float = hyper(1.0, ge=0)
    w_logit: float = hyper(1.0, ge=0)
    temperature: float = hyper(1.0, gt=0)
    tau: float = hyper(0.5, ge=0, le=1)
    rank_on: Literal["train", "val"] = "train"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.confidence: dict[str, float] = {}

    @torch.no_grad()
    def on_fit_start(self, ctx: Context) -> None:
        """Rank the modalities, once: teachers do not change."""
        part = ctx.parts[self.rank_on]
        rows = ctx.rows if self.rank_on == "train" else torch.arange(len(part))
        size = part.within_memory(ctx.recipe.eval_batch_size)
        for m in ctx.modalities:
            sums = [
                confidence_sum(ctx, ctx.teacher(m), x[m], y)
                for x, y in part.batches(rows, size, only=m)
            ]
            self.confidence[m] = float(torch.stack(sums).sum()) / len(rows)

    def on_epoch_start(self, ctx: Context) -> None:
        phase = round(self.tau * ctx.epochs / (len(ctx.modalities) - 1))
        active = learning(self.confidence, ctx.epoch, phase)
        self.state.frozen = {f"encoder.{m}" for m in ctx.modalities if m not in active}

    def step(self, ctx: Context, batch: Batch) -> Logits:
        """Once the teachers have seen the inputs, as ever."""
        self._taught = taught(ctx, batch) if self.w_feature or self.w_logit else {}
        return super().step(ctx, batch)

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        total, task = super().loss(ctx, batch, out), ctx.task.name
        for m, (z, logits) in self._taught.items():
            if task in WITH_ENTROPY:
                apart = distillation(out.fused, logits, self.temperature, task != "multiclass")
            else:
                apart = feature_distance(out.fused, logits)
            total = total + self.w_feature * feature_distance(out.features[m], z)
            total = total + self.w_logit * apart
        return total

    def log(self) -> dict[str, float]:
        return {f"confidence_{m}": c for m, c in self.confidence.items()} | {
            "stopped": float(len(self.state.frozen))
        }


def confidence_sum(ctx: Context, teacher: Teacher, x: Tensor, y: Tensor) -> Tensor:
    """Summed probability of the right answers of a batch, a scalar."""
    return ctx.task.confidence(teacher(x)[1], y).sum()
