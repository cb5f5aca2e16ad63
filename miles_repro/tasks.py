"""A task: its loss, its headline metric and its per-sample confidence, in one object."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from miles_repro import metrics

Score = dict[str, float]


class Task:
    """Base of both task kinds. Logits are (B, num_classes) throughout."""

    name: ClassVar[str]
    metric: ClassVar[str]

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the batch, a scalar."""
        raise NotImplementedError

    def confidence(self, logits: Tensor, y: Tensor) -> Tensor:
        """Probability given to the right answer, per sample (B,): the score of OGM."""
        raise NotImplementedError

    def score(self, logits: Tensor, y: Tensor) -> Score:
        """``loss``, ``metric`` (the headline) and further named metrics of a whole split."""
        raise NotImplementedError


class Multiclass(Task):
    """One label a sample: cross-entropy and accuracy. Labels are int64 (B,)."""

    name = "multiclass"
    metric = "accuracy"

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)

    def confidence(self, logits: Tensor, y: Tensor) -> Tensor:
        return logits.softmax(dim=1).gather(1, y[:, None]).squeeze(1)

    def score(self, logits: Tensor, y: Tensor) -> Score:
        logits, y = logits.float().cpu(), y.cpu()
        value = metrics.accuracy(logits.numpy(), y.numpy())
        classes_first = logits.T.contiguous()  # eight times faster for ten classes
        return {"loss": float(self.loss(classes_first[None], y[None])), "metric": value}


class Multilabel(Task):
    """Any number of labels a sample: binary cross-entropy, micro F1 as the headline.

    Labels are 0/1 (B, num_classes). The paper does not name the average behind its F1; micro
    fits its numbers best (macro, weighted and samples are recorded beside it).
    """

    name = "multilabel"
    metric = "f1_micro"

    def __init__(self, num_classes: int, threshold: float = 0.5) -> None:
        super().__init__(num_classes)
        self.threshold = threshold

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, y.to(logits.dtype))

    def confidence(self, logits: Tensor, y: Tensor) -> Tensor:
        p, y = logits.sigmoid(), y.to(logits.dtype)
        return (y * p + (1 - y) * (1 - p)).mean(dim=1)

    def score(self, logits: Tensor, y: Tensor) -> Score:
        logits, y = logits.float().cpu(), y.cpu()
        values = metrics.multilabel_f1(logits.numpy(), y.numpy(), self.threshold)
        return {"loss": float(self.loss(logits, y)), "metric": values[self.metric], **values}


def build_task(name: str, num_classes: int, threshold: float = 0.5) -> Task:
    """``threshold``: probability above which a multilabel task predicts a label."""
    return Multilabel(num_classes, threshold) if name == "multilabel" else Multiclass(num_classes)


def positives_confidence(logits: Tensor, y: Tensor) -> Tensor:
    """Mean sigmoid over a sample's true labels (B,); 0 for a sample without any.

    The alternative multilabel score of OGM: with 23 labels and about two positives, the mean
    over all labels is near 1 for every modality and the ratio of scores says nothing.
    """
    y = y.to(logits.dtype)
    return (logits.sigmoid() * y).sum(1) / torch.clamp(y.sum(1), min=1.0)
