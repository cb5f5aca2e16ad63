"""LFM: real steps of both variants, both losses and their weights."""

import pytest
import torch
from rows import Row, Vector, context
from steps import a_batch, a_concat, a_linear, assert_weights, encoders
from torch import Tensor

from miles_repro.fusions.late import Late
from miles_repro.strategies.lfm import LFM, alignment, contrast, fitted


def by_numbers(v: Vector) -> None:
    i, want, close = v["inputs"], v["expected"], {"abs": v["abs_tol"]}
    logits = [torch.tensor(i[f"logits_{m}"]) for m in "pq"]
    assert float(alignment(logits)) == pytest.approx(want["alignment_code"], **close)
    weights = [[w, 1 - w] for w in (fitted(e + 1, 200) for e in i["epochs"])]
    for found, expected in zip(weights, want["fitted_cls_align_weights"], strict=True):
        assert found == pytest.approx(expected, **close)
    found = [LFM().alpha(t) for t in want["heuristic_t"]]
    assert found == pytest.approx(want["heuristic_paper_alpha_MM"], **close)


def contrastive(v: Vector) -> None:
    want = v["expected"]
    z: list[Tensor] = [torch.tensor(v["inputs"][f"features_{m}"]).requires_grad_() for m in "av"]
    loss = contrast(z, v["hyperparameters"]["tau"])
    assert float(loss.detach()) == pytest.approx(want["loss"], abs=v["abs_tol"])
    for m, grad in zip("av", torch.autograd.grad(loss, z), strict=True):
        torch.testing.assert_close(grad, torch.tensor(want[f"grad_{m}"]), atol=v["abs_tol"], rtol=0)


def three(v: Vector) -> None:
    i, want, close = v["inputs"], v["expected"], {"abs": v["abs_tol"]}
    features = [torch.tensor(z) for z in i["features"]]
    logits = [torch.tensor(f) for f in i["unimodal_logits"]]
    tau = v["hyperparameters"]["tau"]
    assert float(contrast(features, tau)) == pytest.approx(want["contrastive"], **close)
    assert float(alignment(logits)) == pytest.approx(want["alignment"], **close)


def step(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    parts, batch = encoders(i["model"]), a_batch(i["batch"])
    modules = {f"encoder_{m}": encoder for m, encoder in parts.items()}
    if h["variant"] == "official":
        fusion = Late(dict.fromkeys(parts, 2), 3)
        for m in parts:
            modules[f"aux_{m}"] = fusion.linear[m] = a_linear(i["model"][f"aux_{m}"])
    else:
        fusion = a_concat(i["model"])
        modules["head"] = fusion.linear
    strategy = LFM(temperature=h.get("tau", 1.0), variant=h["variant"])
    ctx = context(strategy, parts, fusion, lr=h["lr"], epochs=200)
    ctx.epoch = i["t"] if "t" in i else i["epoch"] + 1
    if "loss" in want:
        loss = strategy.loss(ctx, batch, ctx.forward(batch))
        assert float(loss.detach()) == pytest.approx(want["loss"], abs=1e-5)
    strategy.step(ctx, batch)
    assert_weights(modules, want["next_weights"], v["abs_tol"])


ROW = Row(
    touches=[{"encoder.image", "encoder.audio", "fusion", "align.image", "align.audio"}],
    neutral=[({"strategy.share": 0.0}, "vanilla")],
    golden={"lfm_step": step, "lfm_contrastive": contrastive, "lfm_m3": three, "lfm": by_numbers},
)
