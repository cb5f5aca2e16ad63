"""PMR: prototypical modal rebalance (Fan et al., CVPR 2023, Eq. 6-13).

Rule      A prototype is a class's mean feature, per modality, over a fixed random ``share`` of the
          training rows in eval mode; at every epoch's start c <- momentum c + (1 - momentum) mean.
          p_m = softmax over classes of -||z_m - c||; s_m = sum over the batch of p_m[y];
          w_m = clip(max_j s_j / s_m - 1, 0, 1): 0 for the modality that is ahead.
Loss      L_AB + alpha sum_m w_m PCE_m - mu sum_m w_m mean_{j != m} H_j, with PCE_m the
          cross-entropy and H_m the mean entropy of p_m; the H term (PER), which holds the others
          back, in the first ``regularised`` share of epochs only. w and c are constants.
Defaults  variant paper; alpha 1, mu 0.01 (of the paper's {1, 2} and {0.01, 0.001}); momentum 0.2,
          share 0.1 (code); ``regularised`` 0.1: unknown in the source, ours, searched.
Search    alpha {1, 2}, mu {0.01, 0.001}, regularised {0.05, 0.1, 0.2}.
Variants  official: w_m is 1 for every modality behind the first, and there is no PER.
Deviations from the official code
          a class absent from the rows keeps its prototype, and without one stays out of the
          softmax, its samples out of all three terms (the code gets NaN); the gradient of a
          feature that equals its prototype is 0 (the code: NaN).
Supports  any fusion and number of modalities (the rule for more than two is a third party's).
          One label a sample: a prototype of many has no meaning.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy


class Terms(NamedTuple):
    """Of one modality, scalars: cross-entropy, mean entropy, summed probability of the class."""

    pce: Tensor
    entropy: Tensor
    score: Tensor


def class_means(z: Tensor, y: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mean feature (C, d) of each class, and which classes there are, (C,) bool."""
    members = F.one_hot(y, num_classes).T.to(z.dtype)
    counts = members.sum(1)
    return members @ z / counts.clamp(min=1)[:, None], counts > 0


def moved(old: Tensor, known: Tensor, new: Tensor, present: Tensor, momentum: float) -> Tensor:
    """Prototypes (C, d) after an epoch: the first mean of a class counts whole."""
    mixed = torch.where(known[:, None], momentum * old + (1 - momentum) * new, new)
    return torch.where(present[:, None], mixed, old)


def prototype_terms(z: Tensor, y: Tensor, prototypes: Tensor, known: Tensor) -> Terms:
    """Terms of features (B, d) before prototypes (C, d) of the ``known`` (C,) classes."""
    mode = "donot_use_mm_for_euclid_dist"
    logits = -torch.cdist(z.float(), prototypes, compute_mode=mode)
    logits = logits.masked_fill(~known, torch.finfo(logits.dtype).min / 2)  # finite: 0 log 0 is 0
    log_p, inside = logits.log_softmax(dim=1), known[y].float()
    n = inside.sum().clamp(min=1)
    own = log_p.gather(1, y[:, None]).squeeze(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    return Terms(
        -(own * inside).sum() / n, (entropy * inside).sum() / n, (own.exp() * inside).sum()
    )


def coefficients(scores: Tensor, variant: str) -> Tensor:
    """w (M,) in [0, 1] from summed probabilities s (M,)."""
    if variant == "official":
        return (scores < scores.max()).to(scores.dtype)
    return (scores.max() / scores.clamp(min=1e-8) - 1).clamp(0, 1)


class PMR(Strategy):
    """Train the slow modality towards its prototypes."""

    needs: ClassVar[Needs] = Needs(tasks=frozenset({"multiclass"}), passes=1.1)
    persistent: ClassVar[tuple[str, ...]] = ("prototypes", "known")

    variant: Literal["paper", "official"] = "paper"
    alpha: float = hyper(1.0, ge=0)
    mu: float = hyper(0.01, ge=0)
    regularised: float = hyper(0.1, ge=0, le=1)
    momentum: float = hyper(0.2, ge=0, lt=1)
    share: float = hyper(0.1, gt=0, le=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.prototypes: dict[str, Tensor] = {}
        self.known = torch.empty(0)
        self._seen: list[Tensor] = []

    def on_epoch_start(self, ctx: Context) -> None:
        self._seen = []
        n = len(ctx.rows)
        fixed = ctx.recipe.order(n, "prototypes")[: max(1, round(self.share * n))]
        seen = ctx.observe("train", ctx.rows[fixed])
        first = not self.prototypes
        for m, z in seen.features.items():
            new, present = class_means(z.float(), seen.labels, ctx.task.num_classes)
            known = torch.zeros_like(present) if first else self.known.to(present.device)
            old = torch.zeros_like(new) if first else self.prototypes[m].to(new.device)
            self.prototypes[m] = moved(old, known, new, present, self.momentum)
        self.known = known | present

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        total = super().loss(ctx, batch, out)
        regularised = self.variant == "paper" and ctx.epoch <= round(self.regularised * ctx.epochs)
        mu = self.mu if regularised else 0.0
        if self.alpha == 0 and mu == 0:
            return total
        terms = [
            prototype_terms(out.features[m], batch.y, self.prototypes[m], self.known)
            for m in ctx.modalities
        ]
        pce, entropy, scores = map(torch.stack, zip(*terms, strict=True))
        w = coefficients(scores.detach(), self.variant)
        self._seen.append(w)
        others = (w.sum() - w) / (len(w) - 1)
        return total + self.alpha * (w * pce).sum() - mu * (others * entropy).sum()

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        w = torch.stack(self._seen).mean(0).tolist() if self._seen else [0.0] * len(ctx.modalities)
        self._mean = dict(zip(ctx.modalities, w, strict=True))

    def log(self) -> dict[str, float]:
        return {f"w_{m}": w for m, w in self._mean.items()}
