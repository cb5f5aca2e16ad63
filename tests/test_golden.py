"""Every strategy against numbers computed elsewhere: papers' equations and the authors' code."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from miles_repro import MILES
from miles_repro.fusions.concat import Concat
from miles_repro.miles import conditional_utilization, lr_factors, utilization_gap
from miles_repro.model import Multimodal, Output
from miles_repro.strategies.base import Context, Strategy, joint_weights, weighted_loss
from miles_repro.strategies.gblend import Curve, blend_weights
from miles_repro.strategies.miles import Miles
from miles_repro.strategies.mimo import mimo_loss
from miles_repro.strategies.modality_dropout import dropped
from miles_repro.strategies.mslr_d import MSLRDynamic, progress_ratio
from miles_repro.strategies.mslr_k import MSLRKeep
from miles_repro.strategies.mslr_s import MSLRSmooth, smoothed
from miles_repro.strategies.ogm import OGM, coefficients, discrepancy_ratio
from miles_repro.tasks import Multiclass

Vector = dict[str, Any]
FILE = Path(__file__).parent / "golden" / "vectors.json"
VECTORS: list[Vector] = json.loads(FILE.read_text())["vectors"]


def context(modalities: tuple[str, ...] = ("A", "B"), lr: float = 1e-3) -> Context:
    """A run as a strategy sees it, with encoders that do nothing."""
    model = Multimodal(
        {m: nn.Identity() for m in modalities}, Concat(dict.fromkeys(modalities, 3), 3), {}
    )
    return Context(model, Multiclass(3), lr, 10, cast(Any, None), torch.Generator())


def rates(strategy: Strategy, ctx: Context) -> dict[str, float]:
    """Learning rate of each modality's encoder, and of the fusion, in the next epoch."""
    groups = {"A": "encoder.A", "B": "encoder.B", "fusion": "fusion"}
    return {k: ctx.lr * strategy.state.lr_factors.get(g, 1.0) for k, g in groups.items()}


def scores(fused: float, **unimodal: float) -> dict[str, dict[str, float]]:
    return {k: {"loss": 0.0, "metric": v} for k, v in {"fused": fused, **unimodal}.items()}


def miles(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    unimodal = {"A": i["M_A"], "B": i["M_B"]}
    u = conditional_utilization(i["M_AB"], unimodal)
    delta = utilization_gap(i["M_AB"], unimodal)
    for found, key in ((u["A"], "u_A"), (u["B"], "u_B"), (delta, "delta")):
        if want[key] is None:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(want[key], abs=v["abs_tol"])
    factors = lr_factors(i["M_AB"], unimodal, h["tau"], h["mu"])
    assert h["lr"] * factors["A"] == pytest.approx(want["lr_A"], abs=v["abs_tol"])
    assert h["lr"] * factors["B"] == pytest.approx(want["lr_B"], abs=v["abs_tol"])
    ctx = context(lr=h["lr"])
    strategy = Miles(tau=h["tau"], mu=h["mu"], reset_other=True, heads_follow=True, source="val")
    for epoch in (1, 2, 3):  # again and again: nothing compounds
        ctx.epoch = epoch
        strategy.on_epoch_end(ctx, {}, scores(i["M_AB"], **unimodal))
        for key, rate in rates(strategy, ctx).items():
            assert rate == pytest.approx(want[f"lr_{key}"], abs=v["abs_tol"])


def joint_loss(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    unimodal = {"A": torch.tensor(i["logits_a"]), "B": torch.tensor(i["logits_v"])}
    out = Output({}, torch.tensor(i["logits_fused"]), lambda features: unimodal)
    y = torch.tensor(i["labels"])
    task = Multiclass(3)
    for head, key in (("fused", "L_AB"), ("A", "L_A"), ("B", "L_B")):
        assert float(weighted_loss(task, out, y, {head: 1.0})) == pytest.approx(want[key], abs=1e-6)
    total = float(weighted_loss(task, out, y, joint_weights(["A", "B"])))
    assert total == pytest.approx(want["L"], abs=v["abs_tol"])


def mslr_k(v: Vector) -> None:
    ctx = context(lr=v["inputs"]["global_lr"])
    strategy = MSLRKeep(rates=v["inputs"]["best_unimodal_lr"])
    strategy.setup(ctx)
    want = v["expected"]
    assert rates(strategy, ctx) == pytest.approx(
        {"A": want["lr_A"], "B": want["lr_B"], "fusion": want["lr_fusion_and_heads"]}, rel=1e-12
    )


def mslr_s(v: Vector) -> None:
    keep, want = v["inputs"]["keep"], v["expected"]["geometric_half_way"]
    named = dict(zip("AB", keep, strict=True))
    assert list(smoothed(named, v["hyperparameters"]["s"]).values()) == pytest.approx(want)
    ctx = context(lr=v["inputs"]["global_lr"])
    strategy = MSLRSmooth(rates=named, s=v["hyperparameters"]["s"])
    strategy.setup(ctx)
    found = rates(strategy, ctx)
    assert [found["A"], found["B"]] == pytest.approx(want, rel=1e-9)
    assert found["fusion"] == ctx.lr


def mslr_d(v: Vector) -> None:
    i, h = v["inputs"], v["hyperparameters"]
    ctx = context(lr=h["lr0_A"])
    strategy = MSLRDynamic(rates={"A": h["lr0_A"], "B": h["lr0_B"]}, window=h["window"])
    strategy.setup(ctx)
    for a, b, want in zip(i["val_metric_A"], i["val_metric_B"], v["expected"], strict=True):
        strategy.on_epoch_end(ctx, {}, scores(0.5, A=a, B=b))
        found = rates(strategy, ctx)
        assert found["A"] == pytest.approx(want["lr_A"], abs=v["abs_tol"])
        assert found["B"] == pytest.approx(want["lr_B"], abs=v["abs_tol"])
        assert found["fusion"] == ctx.lr


def mslr_d_ratio(v: Vector) -> None:
    window = v["hyperparameters"]["history"]
    series = list(zip(*v["inputs"]["val_acc_audio_visual_per_epoch"], strict=True))
    for epoch, *want in v["expected"]["ratio_used_in_epoch"]:
        past = [progress_ratio(x[: epoch - 1], window) for x in series]
        assert past == pytest.approx(want, abs=v["abs_tol"])


def gblend(v: Vector) -> None:
    curves = {
        head: Curve(**c) if isinstance(c, dict) else Curve(*c)
        for head, c in v["inputs"]["losses_per_head"].items()
    }
    want = v["expected"]
    if "paper" in want:
        want = {head: value["weight"] for head, value in want["paper"].items()}
    assert blend_weights(curves) == pytest.approx(want, abs=v["abs_tol"])


def ogm(v: Vector) -> None:
    """Gradients after the strategy's backward, beside those of the loss alone."""
    i, want = v["inputs"], v["expected"]
    inputs = {"audio": torch.tensor(i["logits_audio"]), "visual": torch.tensor(i["logits_visual"])}
    y = torch.tensor(i["labels"])

    def gradients(strategy: Strategy) -> dict[str, torch.Tensor]:
        encoders = {m: nn.Linear(3, 3, bias=False) for m in inputs}
        fusion = Concat(dict.fromkeys(inputs, 3), 3)
        with torch.no_grad():
            for encoder in encoders.values():
                encoder.weight.copy_(torch.eye(3))
            fusion.linear.weight.copy_(torch.cat([torch.eye(3)] * 2, dim=1))
            fusion.linear.bias.copy_(torch.tensor(i["fc_out_bias"]))
        model = Multimodal(encoders, fusion, {})
        ctx = Context(model, Multiclass(3), 1e-3, 10, cast(Any, None), torch.Generator())
        ctx.epoch = 1
        strategy.on_epoch_start(ctx)
        out = model(inputs)
        strategy.backward(ctx, strategy.loss(ctx, out, y), out, y)
        strategy.on_epoch_end(ctx, {}, {})
        assert {k: round(x, 5) for k, x in strategy.log().items()} in (
            {},
            {"k_audio": round(want["coeff_a"], 5), "k_visual": round(want["coeff_v"], 5)},
        )
        return {k: p.grad for k, p in model.named_parameters() if p.grad is not None}

    alpha = v["hyperparameters"]["alpha"]
    raw = gradients(Strategy())
    found = gradients(OGM(alpha=alpha, ends=1.0, params="all", multilabel_score="all"))
    for part, key in (
        ("encoders.audio.weight", "scale_audio_grad"),
        ("encoders.visual.weight", "scale_visual_grad"),
        ("fusion.linear.weight", "scale_head_grad"),
        ("fusion.linear.bias", "scale_head_grad"),
    ):
        scale = float(found[part].norm() / raw[part].norm())
        assert scale == pytest.approx(want[key], abs=v["abs_tol"])
        torch.testing.assert_close(found[part], raw[part] * scale)


def ogm_multi(v: Vector) -> None:
    sums = torch.tensor(v["inputs"]["score_sums"])
    want = v["expected"]
    assert discrepancy_ratio(sums).tolist() == pytest.approx(want["rho"], abs=v["abs_tol"])
    k = coefficients(sums, v["hyperparameters"]["alpha"])
    assert k.tolist() == pytest.approx(want["k"], abs=v["abs_tol"])


def mimo(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    unimodal = torch.tensor(i["L_uni"], dtype=torch.float64, requires_grad=True)
    fused = torch.tensor(i["L_fused"], dtype=torch.float64)
    loss = mimo_loss(fused, list(unimodal), h["lam"], h["mu"])
    loss.backward()
    assert loss.item() == pytest.approx(want["loss"], abs=v["abs_tol"])
    assert unimodal.grad is not None
    assert unimodal.grad.tolist() == pytest.approx(want["head_weights"], abs=v["abs_tol"])


def modality_dropout(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    generator = torch.Generator().manual_seed(0)
    lost = dropped(i["n_samples"], i["n_modalities"], i["p"], generator)
    share = torch.bincount(lost, minlength=3) / i["n_samples"]
    assert float(share[0]) == pytest.approx(want["P_drop_A"], abs=v["abs_tol"])
    assert float(share[1]) == pytest.approx(want["P_drop_B"], abs=v["abs_tol"])
    assert float(share.sum()) == pytest.approx(1)  # one index a sample: never both


def adam_trap(v: Vector) -> None:
    """Halving a gradient is nothing to Adam; halving the rate through our scheduler is not."""
    want = v["expected"]

    def trained(kind: type[torch.optim.Optimizer], grad: float, mu: float) -> list[float]:
        p, other = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
        optimizer = kind([{"params": [p]}, {"params": [other]}], lr=0.1)  # type: ignore[call-arg]
        scheduler = MILES(optimizer, {"A": [p], "B": [other]}, tau=0.0, mu=mu)
        scheduler.step(fused=0.9, A=0.8, B=0.1)
        for t in range(5):
            p.grad = torch.tensor([0.3, -0.1]) * (1 + 0.5 * t) * grad
            optimizer.step()
        return p.tolist()

    for name, kind in (("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)):
        for suffix, grad, mu in (("base", 1, 1), ("grad_x0p5", 0.5, 1), ("lr_x0p5", 1, 0.5)):
            found = trained(kind, grad, mu)
            assert found == pytest.approx(want[f"{name}_{suffix}"], abs=v["abs_tol"])


def freeze_trap(v: Vector) -> None:
    """Zero gradients move a parameter on; no gradient, which is how the loop freezes, does not."""
    for key, make in (
        (
            "sgd_momentum_after_zero_grad",
            lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01),
        ),
        ("adam_after_zero_grad", lambda p: torch.optim.Adam([p], lr=0.1)),
    ):
        want = v["expected"][key]
        for frozen in (False, True):
            p = nn.Parameter(torch.ones(1))
            optimizer = cast(Callable[[nn.Parameter], torch.optim.Optimizer], make)(p)
            p.grad = torch.ones(1)
            optimizer.step()
            assert p.item() == pytest.approx(want["before"], abs=v["abs_tol"])
            for _ in range(5):
                p.grad = None if frozen else torch.zeros(1)
                optimizer.step()
            after = want["before"] if frozen else want["after5"]
            assert p.item() == pytest.approx(after, abs=v["abs_tol"])


CHECKS: dict[str, Callable[[Vector], None]] = {  # the first prefix that fits
    "miles_": miles,
    "joint_loss_": joint_loss,
    "mslr_d_agm": mslr_d_ratio,
    "mslr_d_rec": mslr_d,
    "mslr_s": mslr_s,
    "mslr_k": mslr_k,
    "gblend": gblend,
    "ogm_multi": ogm_multi,
    "ogm_": ogm,
    "mimo": mimo,
    "modality_dropout": modality_dropout,
    "adam_scale": adam_trap,
    "freeze": freeze_trap,
}


@pytest.mark.parametrize("vector", VECTORS, ids=[v["id"] for v in VECTORS])
def test_vector(vector: Vector) -> None:
    assert vector["source"]
    check = next(f for prefix, f in CHECKS.items() if vector["id"].startswith(prefix))
    check(vector)
