"""UME: uni-modal ensemble (Du et al., ICML 2023, arXiv 2305.01233): what balancing has to beat.

Rule      The finished unimodal models of this run's seed, each chosen by its own validation metric,
          vote. Nothing is trained: the run is one validation and the test. logit_mean averages
          their logits, prob_mean their probabilities (given as logits again).
Loss      none.
Defaults  ``rule`` logit_mean, that of a public implementation (the argmax of a sum is the same);
          the paper's wording could not be read.
Search    rule {logit_mean, prob_mean}.
Deviations from public implementations
          one holds two encoders whatever the number of modalities, one applies softmax twice.
Note      The fusion module has no part in it: the row is the same in the table of every fusion.
Supports  any fusion, task and number of modalities; prob_mean of a task without probabilities
          (regression, one's own) is logit_mean. Cost: that of the unimodal runs, which a
          comparison has anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from miles_repro.context import Context, Segment
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.mla import WITH_ENTROPY
from miles_repro.strategy import Needs, Scores, Strategy


def mean_probability(logits: Tensor, binary: bool) -> Tensor:
    """Logits (B, C) of the mean probability, from those of M models (M, B, C).

    binary: each logit is a yes or no of its own.
    """
    if binary:
        return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)
    return F.log_softmax(logits, dim=2).logsumexp(0) - math.log(len(logits))


class UME(Strategy):
    """Load the unimodal models; let them vote."""

    needs: ClassVar[Needs] = Needs(heads="trained", teachers=True, passes=0.1)

    rule: Literal["logit_mean", "prob_mean"] = hyper("logit_mean")

    def setup(self, ctx: Context) -> None:
        for m in ctx.modalities:
            teacher = ctx.teacher(m)
            ctx.model.encoders[m].load_state_dict(teacher.encoder.state_dict())
            ctx.model.heads[m].load_state_dict(teacher.head.state_dict())

    def order(self, ctx: Context, rows: Tensor) -> Sequence[Segment]:
        return []

    def on_epoch_end(self, ctx: Context, train: Scores, val: Scores) -> None:
        self.state.stop = True

    def predict(self, ctx: Context, out: Output) -> Tensor:
        logits = torch.stack([out.unimodal[m] for m in ctx.modalities])
        if self.rule == "logit_mean" or ctx.task.name not in WITH_ENTROPY:
            return logits.mean(0)
        return mean_probability(logits, ctx.task.name != "multiclass")
