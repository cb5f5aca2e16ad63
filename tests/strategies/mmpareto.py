"""MMPareto: the min-norm weight, the integration, and whole steps of both variants."""

import math

import pytest
import torch
from rows import Row, Vector
from tiny_models import MODALITIES, batch_of, close, close_weights, trained_context

from miles_repro.strategies.mmpareto import MMPareto, inner, integrated, min_norm


def weights(v: Vector) -> None:
    g, u = ([torch.tensor(v["inputs"][k])] for k in ("g_multi", "g_uni"))
    want, tolerance = v["expected"], v["abs_tol"]
    t = float(min_norm(g, u))
    cosine = float(inner(g, u) / (inner(g, g) * inner(u, u)).sqrt())
    if "cos" in want:
        assert cosine == pytest.approx(want["cos"], abs=tolerance)
        shortest = [t * g[0] + (1 - t) * u[0]]
        assert float(inner(shortest, shortest)) == pytest.approx(want["min_norm_sq"], abs=tolerance)
        bounded = min(max(t, 1e-3), 1 - 1e-3)  # bounds of the authors' solver
        assert bounded == pytest.approx(want["alpha_multi"], abs=tolerance)
        return
    assert [t, 1 - t] == pytest.approx(want["official_weights"], abs=tolerance)
    (h,) = integrated(g, u, 1.0, "paper")  # weights 1/2 and 1/2: h = g + u
    half = 2 * want["paper_weights"][0]
    assert h.tolist() == pytest.approx((half * (g[0] + u[0])).tolist(), abs=tolerance)
    (h,) = integrated(g, u, 1.0, "official")
    a, b = want["official_weights"]
    direction = a * g[0] + b * u[0]
    assert float(torch.cosine_similarity(h, direction, dim=0)) == pytest.approx(1)


def integration(v: Vector) -> None:
    for m in ("audio", "visual"):
        g, u = ([torch.tensor(v["inputs"][f"{m}_g_{k}"])] for k in ("multi", "uni"))
        (h,) = integrated(g, u, v["hyperparameters"]["gamma"], "official")
        close(h, v["expected"][f"final_grad_{m}"], v)


def step(v: Vector) -> None:
    h, want = v["hyperparameters"], v["expected"]
    strategy = MMPareto(gamma=h["gamma"], variant=h["variant"])
    ctx = trained_context(strategy, v)
    batch = batch_of(v["inputs"]["batch"])
    strategy.on_epoch_start(ctx)
    out = ctx.forward(batch)
    losses = {m: ctx.task.loss(out.unimodal[m], batch.y) for m in MODALITIES}
    fused = ctx.task.loss(out.fused, batch.y)
    if "loss" in want:
        total = (fused + sum(losses.values())).item()
        assert total == pytest.approx(want["loss"], abs=1e-5)
    for m in MODALITIES:
        parts = [f"encoder.{m}"]
        g, u = (list(ctx.grad(loss, parts).values()) for loss in (fused, losses[m]))
        expected = want["integration"][m]
        cosine = float(inner(g, u)) / math.sqrt(float(inner(g, g) * inner(u, u)))
        assert cosine == pytest.approx(expected["cos"], abs=1e-5)
        if cosine < 0:
            assert float(min_norm(g, u)) == pytest.approx(expected["weight_multi"], abs=1e-5)
    strategy.step(ctx, batch)
    close_weights(ctx.model, v)
    strategy.on_epoch_end(ctx, {}, {})
    conflicts = {f"conflict_{m}": float(want["integration"][m]["cos"] < 0) for m in MODALITIES}
    assert strategy.log() == conflicts


ROW = Row(
    like="vanilla_aux",
    touches=[{"encoder.image", "encoder.audio"}],
    golden={
        "mmpareto_minnorm": weights,
        "mmpareto_cos_zero": weights,
        "mmpareto_step_0": integration,
        "mmpareto_step": step,
    },
)
