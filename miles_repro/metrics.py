"""Metrics of predictions, as pure functions of NumPy arrays. Each is a fraction in [0, 1] but for
the errors and r2 of regression.

Counted here, in whole arrays: the usual libraries give the same numbers (a test compares them) but
cost two seconds of import a process and milliseconds a call, in every epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of rows of ``logits`` (N, C) whose largest entry is at ``labels`` (N,)."""
    return float((logits.argmax(axis=1) == labels).mean())


def above(logits: NDArray[np.float32], threshold: float = 0.5) -> NDArray[np.bool_]:
    """Where sigmoid(logit) > ``threshold``."""
    return np.asarray(logits > np.log(threshold / (1.0 - threshold)))


def multilabel_f1(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], threshold: float = 0.5
) -> dict[str, float]:
    """F1 averaged four ways for ``logits`` and 0/1 ``labels``, both (N, C).

    A label is predicted where sigmoid(logit) > ``threshold``. A class or sample without any
    positive counts as F1 = 0 where it has a false positive and is undefined otherwise (taken
    as 0). Returns f1_micro, f1_macro, f1_weighted, f1_samples.
    """
    predicted = above(logits, threshold)
    truth = labels.astype(bool)
    hits = predicted & truth

    def f1(axis: int | None) -> NDArray[np.float64]:
        marked = predicted.sum(axis) + truth.sum(axis)
        return np.asarray(2 * hits.sum(axis) / np.maximum(marked, 1))

    per_class, support = f1(0), truth.sum(0)
    return {
        "f1_micro": float(f1(None)),
        "f1_macro": float(per_class.mean()),
        "f1_weighted": float(per_class @ support / max(support.sum(), 1)),
        "f1_samples": float(f1(1).mean()),
    }


def regression(predicted: NDArray[np.float32], y: NDArray[np.float32]) -> dict[str, float]:
    """fit, r2, mse and mae of numbers (N,); r2 is the only one that may be negative.

    fit = 1 / (1 + mse / variance of y) = 1 / (2 - r2). Where y is constant, r2 and fit are 0
    unless the prediction is perfect, then 1.
    """
    error = predicted.astype(np.float64) - y
    mse, variance = float(np.square(error).mean()), float(np.var(y, dtype=np.float64))
    ratio = mse / variance if variance else (np.inf if mse else 0.0)
    return {
        "fit": 1 / (1 + ratio),
        "r2": 1 - ratio if np.isfinite(ratio) else 0.0,
        "mse": mse,
        "mae": float(np.abs(error).mean()),
    }


def gap(scores: dict[str, dict[str, float]], strong: str | None, weak: str | None) -> float | None:
    """The paper's Delta: metric of the strong head minus that of the weak one; may be negative."""
    if strong is None or weak is None or strong not in scores or weak not in scores:
        return None
    return scores[strong]["metric"] - scores[weak]["metric"]


def by_class(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """precision, recall, f1 and support (C,) of memberships (N, C); 0 where undefined."""
    hits, marked, support = (predicted & truth).sum(0), predicted.sum(0), truth.sum(0)
    return {
        "precision": hits / np.maximum(marked, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(marked + support, 1),
        "support": support,
    }
