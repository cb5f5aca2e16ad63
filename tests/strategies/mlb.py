"""MLB: coefficients, and a step's gradients in the paper's and the code's scope."""

import pytest
import torch
from rows import Row, Vector, context
from tiny_models import (
    MODALITIES,
    batch_of,
    close_gradients,
    concat,
    encoders_of,
    gradients,
    linear,
)
from torch import Tensor, nn

from miles_repro.context import Context
from miles_repro.strategies.mlb import MLB, coefficients


def numbers(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    if "scores" in i:
        scores = torch.tensor(i["scores"])
    else:
        y = torch.tensor(i["labels"])
        p = torch.tensor(i["logits"]).softmax(2)  # (M, B, C)
        scores = p[:, torch.arange(len(y)), y].mean(1)
        assert scores.tolist() == pytest.approx(want["scores"], abs=v["abs_tol"])
        want = want["coeff"]
    assert coefficients(scores, **h).tolist() == pytest.approx(want, abs=v["abs_tol"])


def start(strategy: MLB, v: Vector, optimizer: type[torch.optim.Optimizer]) -> Context:
    i = v["inputs"]
    weight = torch.cat([torch.tensor(i[f"head_{m}"]) for m in MODALITIES], dim=1)
    heads: dict[str, nn.Module] = {
        m: linear(i[f"aux_{m}_weight"], i[f"aux_{m}_bias"]) for m in MODALITIES
    }
    ctx = context(
        strategy,
        encoders_of(i),
        concat(weight.tolist(), i["head_bias"]),
        heads=heads,
        lr=0.1,
        optimizer=lambda groups: optimizer(groups, lr=0.1),  # type: ignore[call-arg]
    )
    strategy.on_epoch_start(ctx)
    return ctx


def scope(v: Vector) -> None:
    i, h = v["inputs"], v["hyperparameters"]
    variant = "official" if "official" in v["id"] else "paper"
    strategy = MLB(**h, variant=variant)
    ctx = start(strategy, v, torch.optim.SGD)
    batch = batch_of(i, i["labels"])
    found: dict[str, Tensor] = gradients(ctx, batch)
    columns = found.pop("fusion.linear.weight")
    found |= {f"columns.{m}": block for m, block in zip("av", columns.split(2, 1), strict=True)}
    names = {"head_bias": "fusion.linear.bias"}
    for m in MODALITIES:
        names |= {f"W_{m}": f"encoders.{m}.weight", f"head_{m}": f"columns.{m}"}
        names |= {f"aux_{m}_{k}": f"heads.{m}.{k}" for k in ("weight", "bias")}
    close_gradients(found, v, names)
    strategy.on_epoch_end(ctx, {}, {})
    want = v["expected"]["coeff"]
    assert list(strategy.log().values()) == pytest.approx(want, abs=v["abs_tol"])
    if variant == "paper":
        rates(v, want)


def rates(v: Vector, k: list[float]) -> None:
    """Under Adam the same factors stand on the encoders' rates, for one update."""
    strategy = MLB(**v["hyperparameters"])
    ctx = start(strategy, v, torch.optim.Adam)
    assert ctx.optimizer is not None
    groups, used = ctx.optimizer.param_groups, {}
    ctx.update = lambda groups=None: used.update(  # type: ignore[method-assign]
        {g["name"]: g["lr"] for g in ctx.optimizer.param_groups}  # type: ignore[union-attr]
    )
    strategy.step(ctx, batch_of(v["inputs"], v["inputs"]["labels"]))
    want = {"encoder.a": 0.1 * k[0], "encoder.v": 0.1 * k[1]}
    assert used == pytest.approx({**dict.fromkeys([g["name"] for g in groups], 0.1), **want})
    assert {g["lr"] for g in groups} == {0.1}


ROW = Row(
    like="vanilla_aux",
    touches=[{"encoder.image", "encoder.audio"}],
    neutral=[
        ({"strategy.alpha": 0.0}, "vanilla_aux"),
        ({"strategy.alpha": 0.0, "strategy.apply": "grad"}, "vanilla_aux"),
    ],
    golden={"mlb_0": numbers, "mlb_2": numbers, "mlb_three": numbers, "mlb_": scope},
)
