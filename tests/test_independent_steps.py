"""One step from identical weights equals the rule written out line by line, without the package.

A convolution encoder and a linear one, a concat head, plain SGD; every weight is compared.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from rows import context
from torch import Tensor, nn

from miles_repro.context import Batch
from miles_repro.fusions.concat import Concat
from miles_repro.strategies.dgl import DGL
from miles_repro.strategies.mmpareto import MMPareto
from miles_repro.strategies.ogm import OGM
from miles_repro.strategies.ogm_ge import OGMGE
from miles_repro.strategy import Strategy

LR, SEED = 0.1, 3
Weights = dict[str, Tensor]
IMAGE, AUDIO = "encoders.image.0.", "encoders.audio.0."


def data() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(6, 1, 4, 4, generator=generator)
    audio = torch.randn(6, 3, generator=generator)
    return image, audio, torch.tensor([0, 2, 1, 0, 1, 1])


def step(strategy: Strategy, start: int = 0) -> tuple[Weights, Weights]:
    """Weights before and after one step of the strategy; ``start`` seeds the initial ones."""
    torch.manual_seed(start)
    encoders: dict[str, nn.Module] = {
        "image": nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()),
        "audio": nn.Sequential(nn.Linear(3, 4), nn.Tanh()),
    }
    fusion = Concat({"image": 8, "audio": 4}, 3)
    heads: dict[str, nn.Module] = {"image": nn.Linear(8, 3), "audio": nn.Linear(4, 3)}
    trained = heads if strategy.needs.heads == "trained" else None
    ctx = context(strategy, encoders, fusion, heads=trained, lr=LR)
    before = {k: p.detach().clone() for k, p in ctx.model.named_parameters()}
    ctx.generator.manual_seed(SEED)
    strategy.on_epoch_start(ctx)
    image, audio, y = data()
    strategy.step(ctx, Batch({"image": image, "audio": audio}, y, torch.arange(len(y))))
    return before, {k: p.detach() for k, p in ctx.model.named_parameters()}


def features(w: Weights) -> tuple[Tensor, Tensor]:
    image, audio, _ = data()
    z_image = F.conv2d(image, w[IMAGE + "weight"], w[IMAGE + "bias"]).relu().flatten(1)
    z_audio = torch.tanh(audio @ w[AUDIO + "weight"].T + w[AUDIO + "bias"])
    return z_image, z_audio


def fused(w: Weights, z_image: Tensor, z_audio: Tensor) -> Tensor:
    z = torch.cat([z_image, z_audio], 1)
    return z @ w["fusion.linear.weight"].T + w["fusion.linear.bias"]


def leaves(before: Weights) -> Weights:
    return {k: v.clone().requires_grad_(True) for k, v in before.items()}


def slopes(loss: Tensor, w: Weights) -> Weights:
    found = torch.autograd.grad(loss, list(w.values()), retain_graph=True, allow_unused=True)
    return {k: torch.zeros_like(w[k]) if g is None else g for k, g in zip(w, found, strict=True)}


def same(after: Weights, before: Weights, gradient: Weights) -> None:
    for k, v in before.items():
        torch.testing.assert_close(after[k], v - LR * gradient[k], atol=1e-6, rtol=1e-5, msg=k)
        assert not torch.equal(after[k], v) or k.endswith("bias"), k


@pytest.mark.parametrize("noisy", [False, True], ids=["ogm", "ogm_ge"])
def test_ogm(noisy: bool) -> None:
    alpha = 0.7
    before, after = step((OGMGE if noisy else OGM)(alpha=alpha, params="auto"))
    w, y = leaves(before), data()[2]
    z_image, z_audio = features(w)
    g = slopes(F.cross_entropy(fused(w, z_image, z_audio), y), w)
    head, b = w["fusion.linear.weight"], w["fusion.linear.bias"]
    score = {}
    for m, logits in (
        ("image", z_image @ head[:, :8].T + b / 2),
        ("audio", z_audio @ head[:, 8:].T + b / 2),
    ):
        p = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
        score[m] = sum(p[i, int(c)].item() for i, c in enumerate(y))
    generator = torch.Generator().manual_seed(SEED)
    for m, other, names in (
        ("image", "audio", [IMAGE + "weight"]),  # where there are convolutions: these alone
        ("audio", "image", [AUDIO + "weight", AUDIO + "bias"]),
    ):
        rho = score[m] / score[other]
        k = 1 - math.tanh(alpha * rho) if rho > 1 else 1.0
        for name in names:
            raw = g[name]
            g[name] = k * raw
            if noisy:
                g[name] = g[name] + torch.randn(raw.shape, generator=generator) * raw.std()
    same(after, before, g)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_dgl(variant: str) -> None:
    alpha = 3.0 if variant == "paper" else 900.0  # far beyond the clip at 40
    before, after = step(DGL(alpha=alpha, variant=variant))
    w, y = leaves(before), data()[2]
    z_image, z_audio = features(w)
    nothing = torch.zeros_like
    alone = F.cross_entropy(fused(w, z_image, nothing(z_audio)), y) + F.cross_entropy(
        fused(w, nothing(z_image), z_audio), y
    )
    joint = F.cross_entropy(fused(w, z_image.detach(), z_audio.detach()), y)
    of_alone, of_joint = slopes(alpha * alone, w), slopes(joint, w)
    g = {k: of_joint[k] if k.startswith("fusion") else of_alone[k] for k in w}
    if variant == "official":
        norm = math.sqrt(sum(float((x * x).sum()) for x in g.values()))
        assert norm > 40
        g = {k: x * 40 / (norm + 1e-6) for k, x in g.items()}
    same(after, before, g)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_mmpareto(variant: str) -> None:
    gamma = 1.3
    before, after = step(MMPareto(gamma=gamma, variant=variant), start=2)
    w, y = leaves(before), data()[2]
    z_image, z_audio = features(w)
    multi = slopes(F.cross_entropy(fused(w, z_image, z_audio), y), w)
    total = dict(multi)
    conflicts = 0
    for m, z in (("image", z_image), ("audio", z_audio)):
        logits = z @ w[f"heads.{m}.weight"].T + w[f"heads.{m}.bias"]
        own = slopes(F.cross_entropy(logits, y), w)
        total = {k: total[k] + own[k] for k in w}
        names = [k for k in w if k.startswith(f"encoders.{m}.")]
        a = torch.cat([multi[k].flatten() for k in names])
        b = torch.cat([own[k].flatten() for k in names])
        t = 0.5
        if float(a @ b) < 0:
            conflicts += 1
            t = float((b - a) @ b / ((a - b) @ (a - b)))
        whole = (a + b).norm() / (2 * t * a + 2 * (1 - t) * b).norm()
        for k in names:
            h = 2 * t * multi[k] + 2 * (1 - t) * own[k]
            one = max(1.0, float((multi[k] + own[k]).norm() / h.norm()))
            total[k] = gamma * h * (whole if variant == "paper" else one)
    assert conflicts == 1  # both cases are met
    same(after, before, total)
