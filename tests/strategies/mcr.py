"""MCR: divergences, and every term's gradients through a small model."""

import pytest
import torch
from rows import Row, Vector, context
from steps import a_batch, a_linear
from torch import Tensor, nn

from miles_repro.context import Context
from miles_repro.fusions.concat import Concat
from miles_repro.model import Output
from miles_repro.strategies.mcr import MCR, contrast, divergence, perturbed
from miles_repro.tasks import Multiclass, Multilabel


def model(v: Vector, strategy: MCR) -> tuple[Context, Output]:
    i = v["inputs"]
    fusion = Concat(dict.fromkeys("av", 2), 3)
    if "head_a" in i:
        weight = torch.cat([torch.tensor(i["head_a"]), torch.tensor(i["head_v"])], dim=1)
        fusion.linear = a_linear({"weight": weight.tolist(), "bias": i["head_bias"]})
    encoders: dict[str, nn.Module] = {m: a_linear({"weight": i[f"W_{m}"]}) for m in "av"}
    ctx = context(strategy, encoders, fusion)
    strategy.on_epoch_start(ctx)
    return ctx, ctx.forward(a_batch({**i, "y": i["labels"]}))


def drawn(v: Vector) -> dict[str, Tensor]:
    return {m: torch.tensor([v["inputs"][f"perm_{m}"]]) for m in "av"}


def assert_gradients(v: Vector, ctx: Context, loss: Tensor) -> None:
    want, value = v["expected"], v["expected"].get("loss", v["expected"].get("value"))
    assert float(loss.detach()) == pytest.approx(value, abs=v["abs_tol"])
    loss.backward()
    assert isinstance(ctx.model.fusion, Concat)
    head, found = ctx.model.fusion.linear, {}
    for m, encoder in ctx.model.encoders.items():
        found[f"W_{m}"] = encoder.weight.grad
    if head.weight.grad is not None:
        found["head_a"], found["head_v"] = head.weight.grad.split(2, dim=1)
        found["head_bias"] = head.bias.grad
    if "rebuild" in ctx.model.parts():
        rebuild = ctx.model.parts()["rebuild"]
        found["h1"], found["h2"] = (p.grad for p in rebuild.parameters())
    for key, grad in want["grad"].items():
        torch.testing.assert_close(found[key], torch.tensor(grad), atol=v["abs_tol"], rtol=0)


def values(v: Vector) -> None:
    ctx, out = model(v, MCR())
    want, close = v["expected"], {"atol": v["abs_tol"], "rtol": 0}
    torch.testing.assert_close(out.fused, torch.tensor(want["logits"]), **close)
    own = torch.arange(4)[None]
    for m in "av":
        rows = {**dict.fromkeys("av", own), m: drawn(v)[m]}
        f = perturbed(ctx.model.fusion, out.features, rows, None)
        torch.testing.assert_close(f, torch.tensor(want[f"logits_perm_{m}"]), **close)
        j = float(divergence(ctx.task, out.fused, f).detach())
        assert j == pytest.approx(want[f"jsd_{m}"], abs=v["abs_tol"])
    two = torch.tensor([[0.3], [-1.2]]), torch.tensor([[1.0], [0.4]])  # one label is two classes
    pairs = [torch.cat([f, torch.zeros_like(f)], dim=1) for f in two]
    torch.testing.assert_close(
        divergence(Multilabel(1), *two), divergence(Multiclass(2), *pairs), **close
    )


def game(v: Vector) -> None:
    strategy = MCR(game=v["hyperparameters"]["strategy"], w_c=0.0)
    ctx, out = model(v, strategy)
    assert_gradients(v, ctx, strategy.regulariser(ctx, out, drawn(v)))


def contrastive(v: Vector) -> None:
    ctx, out = model(v, MCR())
    loss = contrast(list(out.features.values()), torch.tensor(v["inputs"]["labels"]))
    assert_gradients(v, ctx, loss)


def rebuilding(v: Vector) -> None:
    strategy = MCR(w_b=v["hyperparameters"]["lib"])
    ctx, out = model(v, strategy)
    for p, key in zip(ctx.model.parts()["rebuild"].parameters(), ("h1", "h2"), strict=True):
        p.data = torch.tensor(v["inputs"][key])
    assert_gradients(v, ctx, strategy.rebuilding(ctx, out))


ROW = Row(
    needed=("strategy.w_b=0.1",),
    like="vanilla_aux",
    touches=[
        {
            *("encoder.image", "head.image", "encoder.audio", "head.audio", "fusion"),
            *("align.image", "align.audio", "rebuild"),
        }
    ],
    neutral=[
        (dict.fromkeys((f"strategy.{k}" for k in ("lam", "w_u", "w_c", "w_b")), 0.0), "vanilla"),
        (
            {
                **dict.fromkeys((f"strategy.{k}" for k in ("lam", "w_c", "w_b")), 0.0),
                "strategy.w_u": 1.0,
            },
            "vanilla_aux",
        ),
    ],
    golden={
        "mcr_jsd": values,
        "mcr_greedy": game,
        "mcr_collaborative": game,
        "mcr_contrastive": contrastive,
        "mcr_ceb": rebuilding,
    },
)
