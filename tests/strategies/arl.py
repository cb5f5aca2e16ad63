"""ARL: real steps, before and after the warm-up, and its coefficients."""

import pytest
import torch
from rows import Row, Vector, context
from steps import a_batch, a_concat, assert_weights, encoders

from miles_repro.strategies.arl import ARL, coefficients
from miles_repro.strategies.mla import entropy
from miles_repro.tasks import Multiclass, Multilabel


def step(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    parts, fusion, batch = encoders(i["model"]), a_concat(i["model"]), a_batch(i["batch"])
    strategy = ARL(gamma=h["gamma"], temperature=h.get("T", 1.0), variant=h["variant"])
    ctx = context(strategy, parts, fusion, lr=h["lr"], epochs=100, clip_norm=h.get("clip_norm"))
    ctx.epoch = i.get("epoch", 6) + 1
    loss = strategy.loss(ctx, batch, ctx.forward(batch))
    assert float(loss.detach()) == pytest.approx(want["loss"], abs=1e-5)
    strategy.on_epoch_start(ctx)
    strategy.step(ctx, batch)
    modules = {"encoder_a": parts["a"], "encoder_v": parts["v"], "head": fusion.linear}
    assert_weights(modules, want["next_weights"], v["abs_tol"])
    strategy.on_epoch_end(ctx, {}, {})
    if "a" in want:
        factors = [1 + a for a in want["a"]]
        assert list(strategy.log().values()) == pytest.approx(factors, abs=1e-5)


def by_numbers(v: Vector) -> None:
    for case, want in zip(v["inputs"]["cases"], v["expected"]["results"], strict=True):
        task, y = Multiclass(3), torch.tensor(case["labels"])
        f = [torch.tensor(case[f"logits_{m}"]) for m in "av"]
        entropies = torch.stack([entropy(task, x).mean() for x in f])
        scores = torch.stack([task.confidence(x, y).sum() for x in f])
        assert (1 / entropies).tolist() == pytest.approx(want["q"], abs=v["abs_tol"])
        assert scores.tolist() == pytest.approx(want["d"], abs=v["abs_tol"])
        a = coefficients(entropies, scores, case["T"])
        assert a.tolist() == pytest.approx(want["a"], abs=v["abs_tol"])


def many_labels(v: Vector) -> None:
    task, y = Multilabel(3), torch.tensor(v["inputs"]["y"])
    for m, logits in v["inputs"]["unimodal_logits"].items():
        f, want = torch.tensor(logits), v["expected"]
        assert entropy(task, f).tolist() == pytest.approx(want["entropy"][m], abs=v["abs_tol"])
        score = float(task.confidence(f, y).sum())
        assert score == pytest.approx(want["score"][m], abs=v["abs_tol"])


ROW = Row(
    touches=[{"encoder.image", "encoder.audio", "fusion"}],
    golden={"arl_step": step, "arl_coefficients": by_numbers, "multilabel_scores": many_labels},
)
