"""MBSD: self-distillation from the stronger modality to the weaker (Liu et al., WSDM 2023).

Rule      Per sample and pair of modalities, the teacher is the one that gives the right class the
          larger probability, ps against pw. Its logits and probabilities are targets of the other:
          RS = mean over classes of (f_teacher - f_student)^2, K = KL(p_teacher || p_student), each
          weighted by w = ps - pw where at least one of the two predicts the right class, else 0.
Loss      L_AB + sum of L_m + weight * mean over samples and pairs of w (RS + K); L_m from the logit
          split (fusions without one: other features zeroed). Teacher and w are constants: a student
          learns through its encoder and its part of the fusion.
Defaults  weight 1, ours: no hyper-parameter is known.
Search    weight {0.1, 1}.
Deviations The paper's text is not available: this is our reading of the one public implementation,
          BalanceBenchmark's. ``variant: official`` is that code: nothing is constant, so the
          teacher is pulled to its student; pw (log pw - ps) stands for the divergence
          (probabilities where logarithms belong); RS on probabilities where there are more than
          two modalities.
Note      weight 0 is joint training with unimodal losses on the split: no strategy here equals it.
Supports  any fusion and number of modalities; one label a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, Literal

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy, joint_weights, weighted_loss


def distillation(logits: Sequence[Tensor], y: Tensor) -> Tensor:
    """Mean of w (RS + K), a scalar, from logits (B, C) a modality: our reading."""
    terms = []
    for a, b in combinations([f.float() for f in logits], 2):
        p_a, p_b, right = _right_class(a, b, y)
        leads = (p_a >= p_b)[:, None]
        teacher, student = torch.where(leads, a, b).detach(), torch.where(leads, b, a)
        apart = (teacher - student).square().mean(1)
        log_p = teacher.log_softmax(1)
        divergence = (log_p.exp() * (log_p - student.log_softmax(1))).sum(1)
        terms.append((p_a - p_b).abs().detach() * right * (apart + divergence))
    return torch.stack(terms).mean()


def distillation_official(logits: Sequence[Tensor], y: Tensor) -> Tensor:
    """The same of BalanceBenchmark's code."""
    terms = []
    for a, b in combinations([f.float() for f in logits], 2):
        p_a, p_b, right = _right_class(a, b, y)
        strong, weak = torch.maximum(p_a, p_b), torch.minimum(p_a, p_b)
        apart = a - b if len(logits) == 2 else a.softmax(1) - b.softmax(1)
        log_weak = torch.minimum(*(_of_right(f.log_softmax(1), y) for f in (a, b)))
        divergence = weak * (log_weak - strong)
        terms.append((strong - weak) * right * (apart.square().mean(1) + divergence))
    return torch.stack(terms).mean()


def _right_class(a: Tensor, b: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Either's probability (B,) of the right class, and where one of them predicts it."""
    p_a, p_b = (_of_right(f.softmax(1), y) for f in (a, b))
    return p_a, p_b, (a.argmax(1) == y) | (b.argmax(1) == y)


def _of_right(values: Tensor, y: Tensor) -> Tensor:
    """Values (B, C) of the right classes, (B,)."""
    return values.gather(1, y[:, None]).squeeze(1)


class MBSD(Strategy):
    """Unimodal losses, and pairs that teach each other."""

    needs: ClassVar[Needs] = Needs(tasks=frozenset({"multiclass"}))

    weight: float = hyper(1.0, ge=0)
    variant: Literal["recommended", "official"] = "recommended"

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        losses = weighted_loss(ctx.task, out, batch.y, joint_weights(ctx.modalities))
        rule = distillation if self.variant == "recommended" else distillation_official
        return losses + self.weight * rule(list(out.unimodal.values()), batch.y)
