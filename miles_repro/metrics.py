"""Metrics of predictions, as pure functions of NumPy arrays (scikit-learn does the counting).

scikit-learn rather than torchmetrics: same numbers, a quarter of the import time, and sample-wise
F1. Every metric is a fraction in [0, 1].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of rows of ``logits`` (N, C) whose largest entry is at ``labels`` (N,)."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, logits.argmax(axis=1)))


def multilabel_f1(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], threshold: float = 0.5
) -> dict[str, float]:
    """F1 averaged four ways for ``logits`` and 0/1 ``labels``, both (N, C).

    A label is predicted where sigmoid(logit) > ``threshold``. A class or sample without any
    positive counts as F1 = 0 where it has a false positive and is undefined otherwise (taken
    as 0, scikit-learn's ``zero_division``). Returns f1_micro, f1_macro, f1_weighted, f1_samples.
    """
    from sklearn.metrics import f1_score

    predicted = logits > np.log(threshold / (1.0 - threshold))
    truth = labels.astype(bool)
    return {
        f"f1_{average}": float(f1_score(truth, predicted, average=average, zero_division=0))
        for average in ("micro", "macro", "weighted", "samples")
    }


def gap(scores: dict[str, dict[str, float]], strong: str, weak: str) -> float | None:
    """The paper's Delta: metric of the strong head minus that of the weak one; may be negative."""
    if strong not in scores or weak not in scores:
        return None
    return scores[strong]["metric"] - scores[weak]["metric"]
