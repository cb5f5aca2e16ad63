"""Metrics, beside scikit-learn and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from torchmetrics.functional.classification import multilabel_f1_score

from miles_repro.metrics import accuracy, gap, multilabel_f1

AVERAGES = ("micro", "macro", "weighted", "samples")


@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 99))
def test_accuracy(n: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 4, (n, classes)).astype(np.float32)  # ties: the first class wins
    labels = rng.integers(0, classes, n)
    assert accuracy(logits, labels) == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    right = sum(int(np.argmax(row)) == y for row, y in zip(logits, labels, strict=True))
    assert accuracy(logits, labels) == right / n


@settings(max_examples=40)
@given(
    st.integers(1, 30),
    st.integers(2, 5),
    st.floats(0, 1),
    st.sampled_from([0.3, 0.5, 0.8]),
    st.integers(0, 99),
)
def test_multilabel_f1(n: int, classes: int, density: float, threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    labels = (rng.random((n, classes)) < density).astype(np.uint8)
    found = multilabel_f1(logits, labels, threshold)
    assert list(found) == [f"f1_{a}" for a in AVERAGES]
    predicted = 1 / (1 + np.exp(-logits.astype(np.float64))) > threshold
    for average in AVERAGES:
        expected = f1_score(labels.astype(bool), predicted, average=average, zero_division=0)
        assert found[f"f1_{average}"] == pytest.approx(expected, abs=1e-9), average


def test_multilabel_f1_beside_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 23, generator=generator)
    labels = (torch.rand(200, 23, generator=generator) < 0.1).to(torch.uint8)
    found = multilabel_f1(logits.numpy(), labels.numpy())
    for average in ("micro", "macro", "weighted"):
        expected = multilabel_f1_score(logits, labels, num_labels=23, average=average)
        assert found[f"f1_{average}"] == pytest.approx(float(expected), abs=1e-6)


def test_multilabel_f1_by_hand() -> None:
    logits = np.float32([[1, -1, -1], [1, 1, -1], [-1, -1, -1]])
    labels = np.uint8([[1, 0, 0], [0, 1, 0], [0, 0, 0]])
    # class 0: 1 hit, 1 false alarm: 2/3; class 1: 1; class 2: nothing there, nothing said: 0
    found = multilabel_f1(logits, labels)
    assert found["f1_micro"] == pytest.approx(4 / 5)
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["f1_weighted"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["f1_samples"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    silent = multilabel_f1(-np.ones((3, 3), np.float32), np.zeros((3, 3), np.uint8))
    assert set(silent.values()) == {0.0}


def test_metrics_of_a_diverged_model() -> None:
    nan = np.full((4, 3), np.nan, np.float32)
    assert 0 <= accuracy(nan, np.array([0, 1, 2, 0])) <= 1
    assert multilabel_f1(nan, np.ones((4, 3), np.uint8))["f1_micro"] == 0.0


def test_gap() -> None:
    scores = {k: {"metric": v} for k, v in {"fused": 0.9, "a": 0.6, "b": 0.7}.items()}
    assert gap(scores, "a", "b") == pytest.approx(-0.1)
    assert gap(scores, "b", "a") == pytest.approx(0.1)
    assert gap({"fused": {"metric": 0.9}, "a": {"metric": 0.9}}, "a", "b") is None
