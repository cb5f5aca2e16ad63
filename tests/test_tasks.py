"""Every kind of task, beside torch and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import Tensor

from miles_repro.errors import UserError
from miles_repro.model import Output
from miles_repro.strategy import joint_weights, weighted_loss
from miles_repro.tasks import (
    TASKS,
    Multiclass,
    Multilabel,
    Regression,
    Task,
    build_task,
    positives_confidence,
)

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


def batch_of(name: str, n: int = 40) -> tuple[Task, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    width = {"multiclass": 5, "multilabel": 5}.get(name, 1)
    labels = {
        "multiclass": torch.randint(0, 5, (n,)),
        "multilabel": torch.randint(0, 2, (n, 5)).byte(),
        "binary": torch.randint(0, 2, (n,)),
        "regression": torch.randn(n),
    }
    return build_task(name, width), torch.randn(n, width), labels[name]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_gives_a_loss_and_a_confidence_a_sample(name: str) -> None:
    task, logits, y = batch_of(name)
    losses, confidence = task.losses(logits, y), task.confidence(logits, y)
    assert losses.shape == confidence.shape == (40,)
    torch.testing.assert_close(losses.mean(), task.loss(logits, y))
    for row in (0, 7):  # a sample's loss is its own
        one = slice(row, row + 1)
        torch.testing.assert_close(task.loss(logits[one], y[one]), losses[row])
    assert ((confidence > 0) & (confidence <= 1)).all()
    score = task.score(logits, y)
    assert score["loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert 0 <= score["metric"] <= 1


def test_the_means_on_record_keep_their_bits() -> None:
    _, logits, y = batch_of("multiclass")
    assert torch.equal(Multiclass(5).loss(logits, y), F.cross_entropy(logits, y))
    _, logits, y = batch_of("multilabel")
    expected = F.binary_cross_entropy_with_logits(logits, y.float())
    assert torch.equal(Multilabel(5).loss(logits, y), expected)


def test_binary_is_two_classes_with_one_logit() -> None:
    task, logits, y = batch_of("binary")
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(task.losses(logits, y), Multiclass(2).losses(two, y))
    assert task.score(logits, y)["metric"] == pytest.approx(Multiclass(2).score(two, y)["metric"])


def test_regression_by_hand_and_against_the_library() -> None:
    from sklearn.metrics import r2_score

    task, logits, y = batch_of("regression")
    score = task.score(logits, y)
    r2 = r2_score(y.numpy(), logits[:, 0].numpy())
    assert r2 < 0 < score["metric"]  # a bad prediction still has a positive headline
    assert score["r2"] == pytest.approx(r2, abs=1e-5)
    assert score["metric"] == pytest.approx(1 / (2 - r2), abs=1e-5)
    assert task.score(y[:, None], y)["metric"] == 1
    mean = torch.full((40, 1), float(y.mean()))
    assert task.score(mean, y)["metric"] == pytest.approx(0.5)
    absolute = Regression(1, error="absolute")
    torch.testing.assert_close(absolute.losses(logits, y), (logits[:, 0] - y).abs())
    with pytest.raises(ValueError, match="num_classes=1"):
        Regression(2)


class Squeezed(Multiclass):
    """A task of one's own."""

    def __init__(self, num_classes: int, shrink: float) -> None:
        super().__init__(num_classes)
        self.shrink = shrink


def test_a_task_of_one_s_own_is_a_node() -> None:
    node = {"name": "squeezed", "_target_": f"{__name__}.Squeezed", "shrink": 0.5}
    task = build_task(node, 4)
    assert (type(task).__name__, task.num_classes) == ("Squeezed", 4)
    absolute = {"_target_": "miles_repro.tasks.Regression", "error": "absolute"}
    assert isinstance(build_task(absolute, 1), Regression)
    with pytest.raises(UserError, match=r"dataset\.task=ranking: one of multiclass"):
        build_task("ranking", 4)
    with pytest.raises(UserError, match="error=squared or absolute"):
        build_task({**absolute, "error": "cubed"}, 1)
