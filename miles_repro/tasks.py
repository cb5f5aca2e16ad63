"""A task: its loss, its headline metric and its per-sample confidence, in one object.

``dataset.task`` names one of those here or holds a node, ``{name: ..., _target_: <module.Class>}``
with further arguments: a class of one's own needs what ``Task`` declares, no entry in a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from miles_repro import metrics
from miles_repro.errors import UserError

Score = dict[str, float]


class Task:
    """Base of all tasks. Logits are (B, num_classes) throughout.

    ``metric`` names the headline: larger is better and never negative, since MILES compares
    ratios of it (Eq. 4).
    """

    name: ClassVar[str]
    metric: str
    headlines: ClassVar[tuple[str, ...]] = ()  # others that it may be

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the batch, a scalar: the mean of ``losses``."""
        return self.losses(logits, y).mean()

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        """Loss of each sample, (B,)."""
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
        return F.cross_entropy(logits, y)  # the library's own mean: its bits are on record

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, reduction="none")

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
    headlines = ("f1_macro", "f1_weighted", "f1_samples")

    def __init__(self, num_classes: int, threshold: float = 0.5) -> None:
        super().__init__(num_classes)
        self.threshold = threshold

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, y.to(logits.dtype))

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        y = y.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(dim=1)

    def confidence(self, logits: Tensor, y: Tensor) -> Tensor:
        p, y = logits.sigmoid(), y.to(logits.dtype)
        return (y * p + (1 - y) * (1 - p)).mean(dim=1)

    def score(self, logits: Tensor, y: Tensor) -> Score:
        logits, y = logits.float().cpu(), y.cpu()
        values = metrics.multilabel_f1(logits.numpy(), y.numpy(), self.threshold)
        return {"loss": float(self.loss(logits, y)), "metric": values[self.metric], **values}


class Binary(Task):
    """Yes or no: one logit a sample, binary cross-entropy and accuracy. Labels are 0/1 (B,)."""

    name = "binary"
    metric = "accuracy"

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        logit = logits[:, 0]
        return F.binary_cross_entropy_with_logits(logit, y.to(logit.dtype), reduction="none")

    def confidence(self, logits: Tensor, y: Tensor) -> Tensor:
        return (-self.losses(logits, y)).exp()

    def score(self, logits: Tensor, y: Tensor) -> Score:
        logits, y = logits.float().cpu(), y.cpu()
        value = float(((logits[:, 0] > 0) == (y > 0)).float().mean())
        return {"loss": float(self.loss(logits, y)), "metric": value}


class Regression(Task):
    """One number a sample, (B,) float, standardised on the training rows when it is read.

    The headline is ``fit`` = 1 / (1 + MSE / variance) = 1 / (2 - R^2): in (0, 1], larger is
    better, one half for predicting the mean, in the order of R^2, which can be negative and so is
    recorded beside it (with mse and mae) and not used by MILES.

    Args:
        error: of a sample: ``squared`` or ``absolute``.
    """

    name = "regression"
    metric = "fit"

    def __init__(
        self, num_classes: int = 1, error: Literal["squared", "absolute"] = "squared"
    ) -> None:
        super().__init__(num_classes)
        if num_classes != 1 or error not in ("squared", "absolute"):
            raise ValueError(
                f"regression has num_classes=1 and error=squared or absolute, "
                f"not {num_classes} and {error}"
            )
        self.error = error

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        difference = logits[:, 0] - y.to(logits.dtype)
        return difference.square() if self.error == "squared" else difference.abs()

    def confidence(self, logits: Tensor, y: Tensor) -> Tensor:
        """exp(-loss): the likelihood of the right answer relative to that of the predicted one."""
        return (-self.losses(logits, y)).exp()

    def score(self, logits: Tensor, y: Tensor) -> Score:
        logits, y = logits.float().cpu(), y.cpu()
        values = metrics.regression(logits[:, 0].numpy(), y.numpy())
        return {"loss": float(self.loss(logits, y)), "metric": values[self.metric], **values}


TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Multiclass, Multilabel, Binary, Regression)
}


def build_task(
    name: str | Mapping[str, Any],
    num_classes: int,
    threshold: float = 0.5,
    metric: str | None = None,
) -> Task:
    """The task of a data set.

    Args:
        name: one of ``TASKS``, or a node with the ``_target_`` of a Task.
        threshold: probability above which a multilabel task predicts a label.
        metric: the headline, where the task has several (``Task.headlines``).

    Raises:
        UserError: an unknown name, or a node that cannot be built.
    """
    if isinstance(name, Mapping):
        from miles_repro.config import build  # balance needs torch alone

        task: Task = build(name, num_classes)
    elif name not in TASKS:
        raise UserError(f"dataset.task={name}: one of {', '.join(TASKS)}, or a _target_ node")
    elif name == "multilabel":
        task = Multilabel(num_classes, threshold)
    else:
        task = TASKS[name](num_classes)
    if metric is not None:
        if metric not in (task.metric, *task.headlines):
            known = ", ".join((task.metric, *task.headlines))
            raise UserError(f"dataset.metric={metric}: {task.name} has {known}")
        task.metric = metric
    return task


def positives_confidence(logits: Tensor, y: Tensor) -> Tensor:
    """Mean sigmoid over a sample's true labels (B,); 0 for a sample without any.

    The alternative multilabel score of OGM: with 23 labels and about two positives, the mean
    over all labels is near 1 for every modality and the ratio of scores says nothing.
    """
    y = y.to(logits.dtype)
    return (logits.sigmoid() * y).sum(1) / torch.clamp(y.sum(1), min=1.0)
