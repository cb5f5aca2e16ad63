"""The two kinds of task, beside torch and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import Tensor

from miles_repro.model import Output
from miles_repro.strategy import joint_weights, weighted_loss
from miles_repro.tasks import Multiclass, Multilabel, build_task, positives_confidence

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 2 * torch.randn(50, 5, generator=GENERATOR)
CLASSES = torch.randint(5, (50,), generator=GENERATOR)
LABELS = (torch.rand(50, 5, generator=GENERATOR) < 0.3).to(torch.uint8)


def test_multiclass() -> None:
    task = build_task("multiclass", 5)
    assert isinstance(task, Multiclass)
    probabilities = LOGITS.softmax(1).numpy()
    expected = log_loss(CLASSES.numpy(), probabilities / probabilities.sum(1, keepdims=True))
    assert task.loss(LOGITS, CLASSES).item() == pytest.approx(expected, rel=1e-5)
    found = task.score(LOGITS, CLASSES)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["metric"] == pytest.approx(accuracy_score(CLASSES, LOGITS.argmax(1)))
    assert set(found) == {"loss", "metric"}
    right = task.confidence(LOGITS, CLASSES)
    assert right.tolist() == pytest.approx(
        [float(probabilities[i, y]) for i, y in enumerate(CLASSES.tolist())], rel=1e-5
    )


def test_multilabel() -> None:
    task = build_task("multilabel", 5)
    assert isinstance(task, Multilabel)
    p, y = LOGITS.sigmoid().double(), LABELS.double()
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).mean().item()
    assert task.loss(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)
    found = task.score(LOGITS, LABELS)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["metric"] == found["f1_micro"]
    for average in ("micro", "macro", "weighted", "samples"):
        f1 = f1_score(LABELS.bool(), p > 0.5, average=average, zero_division=0)
        assert found[f"f1_{average}"] == pytest.approx(f1)


def test_multilabel_confidence() -> None:
    """Mean probability of the right answer over all labels, or over the true ones."""
    logits = torch.tensor([[0.0, math.log(3.0), -math.log(3.0)], [math.log(9.0), 0.0, 0.0]])
    y = torch.tensor([[1, 1, 0], [0, 0, 0]], dtype=torch.uint8)
    every = Multilabel(3).confidence(logits, y)
    assert every.tolist() == pytest.approx([(0.5 + 0.75 + 0.75) / 3, (0.1 + 0.5 + 0.5) / 3])
    positives = positives_confidence(logits, y)
    assert positives.tolist() == pytest.approx([(0.5 + 0.75) / 2, 0.0])


def test_threshold() -> None:
    logits = torch.tensor([[1.0], [3.0]])
    y = torch.ones(2, 1)
    assert Multilabel(1, threshold=0.9).score(logits, y)["metric"] == pytest.approx(2 / 3)
    assert Multilabel(1).score(logits, y)["metric"] == 1.0


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_joint_loss_is_the_sum_of_the_three(kind: str) -> None:
    task = build_task(kind, 5)
    y = CLASSES if kind == "multiclass" else LABELS
    reference = (
        (lambda v: F.cross_entropy(v, CLASSES))
        if kind == "multiclass"
        else (lambda v: F.binary_cross_entropy_with_logits(v, LABELS.float()))
    )
    unimodal = {"a": LOGITS.flip(0), "b": LOGITS / 3}
    out = Output({}, LOGITS, lambda features: unimodal)
    found = weighted_loss(task, out, y, joint_weights(["a", "b"]))
    expected = reference(LOGITS) + reference(unimodal["a"]) + reference(unimodal["b"])
    torch.testing.assert_close(found, expected)
    weighted = weighted_loss(task, out, y, {"fused": 0.0, "a": 0.25, "b": 2.0})
    expected = 0.25 * reference(unimodal["a"]) + 2 * reference(unimodal["b"])
    torch.testing.assert_close(weighted, expected)


def test_joint_loss_of_many_labels_by_hand() -> None:
    y = torch.tensor([[1, 0]], dtype=torch.uint8)
    fused, a, b = (torch.tensor([[x, 0.0]]) for x in (0.0, math.log(3.0), -math.log(3.0)))
    unimodal = {"a": a, "b": b}
    out = Output({}, fused, lambda features: unimodal)
    total = weighted_loss(Multilabel(2), out, y, joint_weights(["a", "b"])).item()
    ln2 = math.log(2)
    by_hand = ln2 + (math.log(4 / 3) + ln2) / 2 + (math.log(4) + ln2) / 2
    assert total == pytest.approx(by_hand, rel=1e-6)


def test_a_head_without_weight_gets_no_gradient() -> None:
    """Nor is it computed: under Adam a zero gradient would still move it."""
    fused = torch.zeros(2, 5, requires_grad=True)

    def heads(features: object) -> dict[str, Tensor]:
        raise AssertionError("unimodal logits computed")

    out = Output({}, fused, heads)
    loss = weighted_loss(Multiclass(5), out, torch.tensor([0, 1]), {"fused": 1.0, "a": 0.0})
    loss.backward()
    assert fused.grad is not None


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_scores_are_plain_floats_also_from_half_precision(kind: str) -> None:
    task = build_task(kind, 5)
    y = CLASSES if kind == "multiclass" else LABELS
    exact, half = task.score(LOGITS, y), task.score(LOGITS.bfloat16(), y)
    assert all(type(v) is float for v in (*exact.values(), *half.values()))
    assert half["loss"] == pytest.approx(exact["loss"], rel=0.02)
    diverged = task.score(torch.full_like(LOGITS, math.nan), y)
    assert math.isnan(diverged["loss"])
    assert np.isfinite(diverged["metric"])
