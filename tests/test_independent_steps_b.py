"""One step of AGM and of PMR beside the same step written out line by line.

Nothing of the strategies' modules is used but the strategy itself.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from rows import context
from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.fusions.concat import Concat
from miles_repro.strategies.agm import AGM
from miles_repro.strategies.pmr import PMR
from miles_repro.strategy import Strategy

LR, CLASSES = 0.1, 3


def network(strategy: Strategy) -> tuple[Context, Batch, nn.Module, nn.Module, nn.Linear]:
    """A run on two encoders of two layers, a batch, and copies of its modules."""
    torch.manual_seed(7)
    a = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    v = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    fusion = Concat({"a": 3, "v": 2}, CLASSES)
    x = {"a": torch.randn(8, 4) + 1, "v": torch.randn(8, 5)}
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    with torch.no_grad():
        for _ in range(3):  # running statistics unlike those of the batch
            a(torch.randn(8, 4) + 1)
        fusion.linear.weight.mul_(3)
    twins = copy.deepcopy((a, v, fusion.linear))
    ctx = context(strategy, {"a": a, "v": v}, fusion, lr=LR)
    return ctx, Batch(x, y, torch.arange(8)), *twins


def step_by_hand(loss: Tensor, *modules: nn.Module, clip: float | None = None) -> None:
    parameters = [p for module in modules for p in module.parameters()]
    gradients = torch.autograd.grad(loss, parameters)
    norm = math.sqrt(sum(float(g.pow(2).sum()) for g in gradients))
    factor = 1.0 if clip is None or norm < clip else clip / norm
    with torch.no_grad():
        for p, g in zip(parameters, gradients, strict=True):
            p -= LR * factor * g


def assert_same(ctx: Context, a: nn.Module, v: nn.Module, head: nn.Linear) -> None:
    for found, expected in (
        (ctx.model.encoders["a"], a),
        (ctx.model.encoders["v"], v),
        (ctx.model.fusion.linear, head),
    ):
        for (name, mine), theirs in zip(
            found.state_dict().items(), expected.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("scale, clipped", [(1.0, False), (40.0, True)])
def test_agm(scale: float, clipped: bool) -> None:
    ctx, batch, a, v, head = network(AGM(alpha=1.3, clip=0.5))
    batch.x["v"] *= scale
    with torch.no_grad():
        for h in (head, ctx.model.fusion.linear):
            h.weight.mul_(scale)

    def logits(za: Tensor, zv: Tensor) -> Tensor:
        return torch.cat([za, zv], dim=1) @ head.weight.T + head.bias

    both = logits(a(batch.x["a"]), v(batch.x["v"]))
    a.eval()
    without_v = logits(a(batch.x["a"]), v(0 * batch.x["v"]))
    without_a = logits(a(0 * batch.x["a"]), v(batch.x["v"]))
    phi_a = 0.5 * (both - without_a + without_v)
    phi_v = 0.5 * (both - without_v + without_a)
    rows = torch.arange(8)
    p_a, p_v = (phi.detach().softmax(1)[rows, batch.y].clamp(min=1e-8) for phi in (phi_a, phi_v))
    s_a, s_v = float(-p_a.log().mean()), float(-p_v.log().mean())
    k_a = math.exp(1.3 * min(1 - math.exp(s_v - s_a), 10))
    k_v = math.exp(1.3 * min(1 - math.exp(s_a - s_v), 10))
    assert k_a != pytest.approx(k_v, rel=0.05)
    phi_a.register_hook(lambda g: k_a * g)
    phi_v.register_hook(lambda g: k_v * g)
    loss = F.cross_entropy(phi_a + phi_v, batch.y)
    largest = torch.autograd.grad(loss, head.weight, retain_graph=True)[0].abs().max()
    assert bool(largest > 1) == clipped
    step_by_hand(loss, a, v, head, clip=0.5 if clipped else None)

    ctx.hooks.step(ctx, batch)  # type: ignore[attr-defined]
    assert_same(ctx, a, v, head)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_pmr(variant: str) -> None:
    strategy = PMR(variant=variant, alpha=0.7, mu=0.4, regularised=1.0)
    ctx, batch, a, v, head = network(strategy)
    prototypes = {"a": torch.randn(CLASSES, 3), "v": torch.randn(CLASSES, 2)}
    strategy.prototypes, strategy.known = prototypes, torch.ones(CLASSES, dtype=torch.bool)

    z = {"a": a(batch.x["a"]), "v": v(batch.x["v"])}
    p = {
        m: torch.stack(
            [
                F.softmax(-torch.stack([(one - c).pow(2).sum().sqrt() for c in prototypes[m]]), 0)
                for one in z[m]
            ]
        )
        for m in z
    }
    own = {m: torch.stack([p[m][i, int(c)] for i, c in enumerate(batch.y)]) for m in z}
    rho = (own["a"].sum() / own["v"].sum()).item()
    weak, strong = ("a", "v") if rho < 1 else ("v", "a")
    w = min(max(1 / rho, rho) - 1, 1.0) if variant == "paper" else 1.0
    assert w > 0
    loss = F.cross_entropy(torch.cat([z["a"], z["v"]], 1) @ head.weight.T + head.bias, batch.y)
    loss = loss + 0.7 * w * -own[weak].log().mean()
    if variant == "paper":
        loss = loss - 0.4 * w * -(p[strong] * p[strong].log()).sum(1).mean()
    step_by_hand(loss, a, v, head)

    ctx.hooks.step(ctx, batch)  # type: ignore[attr-defined]
    assert_same(ctx, a, v, head)
