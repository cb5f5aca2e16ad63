"""Networks small enough to write down: the ones that golden vectors are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from rows import Vector, context
from torch import Tensor, nn

from miles_repro.context import Batch, Context, Teacher
from miles_repro.fusions.base import Fusion
from miles_repro.fusions.concat import Concat
from miles_repro.model import Multimodal
from miles_repro.strategy import Strategy

MODALITIES = ("a", "v")


def linear(weight: Any, bias: Any = None) -> nn.Linear:
    """A linear layer with these numbers, weight (out, in)."""
    w = torch.tensor(weight, dtype=torch.float32)
    layer = nn.Linear(w.shape[1], w.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(w)
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias, dtype=torch.float32))
    return layer


def concat(weight: Any, bias: Any, widths: Mapping[str, int] | None = None) -> Concat:
    """Concatenation with this head; features of two values by default."""
    fusion = Concat(widths or dict.fromkeys(MODALITIES, 2), len(weight))
    fusion.linear = linear(weight, bias)
    return fusion


class Branches(Fusion):
    """f = scale x the sum of a linear layer a modality, each with its own bias."""

    def __init__(self, layers: Mapping[str, nn.Linear], scale: float = 1.0) -> None:
        first = next(iter(layers.values()))
        super().__init__({m: layer.in_features for m, layer in layers.items()}, first.out_features)
        self.layers, self.scale = nn.ModuleDict(layers), scale

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.scale * torch.stack(list(self.unimodal(features).values())).sum(0)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: layer(features[m]) for m, layer in self.layers.items()}


def branches(inputs: Mapping[str, Any], scale: float = 1.0) -> Branches:
    """From the vectors' W_x, b_x, W_y, b_y."""
    return Branches(
        {
            "a": linear(inputs["W_x"], inputs["b_x"]),
            "v": linear(inputs["W_y"], inputs["b_y"]),
        },
        scale,
    )


def batch_of(inputs: Mapping[str, Any], labels: Any = None) -> Batch:
    """x_a, x_v and the labels."""
    y = torch.tensor(inputs["y"] if labels is None else labels)
    x = {m: torch.tensor(inputs[f"x_{m}"]) for m in MODALITIES}
    return Batch(x, y, torch.arange(len(y)))


def encoders_of(inputs: Mapping[str, Any]) -> dict[str, nn.Module]:
    """Linear encoders without bias, from W_a and W_v."""
    return {m: linear(inputs[f"W_{m}"]) for m in MODALITIES}


def gradients(ctx: Context, batch: Batch) -> dict[str, Tensor]:
    """The true gradients that the strategy's step hands to the optimizer, by parameter."""
    found: dict[str, Tensor] = {}

    def update(groups: Any = None) -> None:
        found.update(
            {k: p.grad.clone() for k, p in ctx.model.named_parameters() if p.grad is not None}
        )

    ctx.update = update  # type: ignore[method-assign]
    assert isinstance(ctx.hooks, Strategy)
    ctx.hooks.step(ctx, batch)
    return found


def encoder_and_head(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Names of the vectors' encoder and head gradients -> our parameters."""
    return {
        **{f"W_{m}": f"encoders.{m}.weight" for m in MODALITIES},
        "W_head": "fusion.linear.weight",
        "b_head": "fusion.linear.bias",
    }


def close(found: Any, want: Any, v: Vector) -> None:
    """Equal within the vector's tolerance."""
    torch.testing.assert_close(
        torch.as_tensor(found), torch.tensor(want, dtype=torch.float32), atol=v["abs_tol"], rtol=0
    )


def close_gradients(found: Mapping[str, Tensor], v: Vector, names: Mapping[str, str]) -> None:
    """Every expected gradient, by the vectors' names and ours."""
    for key, want in v["expected"]["grad"].items():
        close(found[names[key]], want, v)


# --- vectors that give a whole model and its weights after a step -----------------------------


def trained_context(strategy: Strategy, v: Vector, **settings: Any) -> Context:
    """The vector's model as a run under SGD at its learning rate."""
    model = v["inputs"]["model"]
    layers = {k: linear(p["weight"], p["bias"]) for k, p in model.items()}
    return context(
        strategy,
        {m: layers[f"encoder_{m}"] for m in MODALITIES},
        concat(model["head"]["weight"], model["head"]["bias"]),
        heads={m: layers[f"aux_{m}"] for m in MODALITIES if f"aux_{m}" in layers},
        lr=v["hyperparameters"].get("lr", 0.1),
        **settings,
    )


def close_weights(model: Multimodal, v: Vector) -> None:
    """The model's weights are those the vector gives after its steps."""
    parts: Mapping[str, Callable[[str], str]] = {
        "encoders.": lambda k: f"encoder_{k}",
        "heads.": lambda k: f"aux_{k}",
        "fusion.linear.": lambda k: f"head.{k}",
    }
    want = v["expected"]["next_weights"]
    found = {
        rename(name.removeprefix(prefix)): p
        for name, p in model.named_parameters()
        for prefix, rename in parts.items()
        if name.startswith(prefix)
    }
    assert found.keys() == want.keys()
    for key, value in want.items():
        assert found[key].detach().numpy() == pytest.approx(
            torch.tensor(value).numpy(), abs=v["abs_tol"]
        )


class Given(Teacher):
    """A teacher that says what the vector says it does."""

    def __init__(self, features: Any, logits: Any = None, metric: float | None = None) -> None:
        super().__init__(nn.Identity(), nn.Identity(), metric)
        self.said = (torch.tensor(features), torch.tensor(logits or features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.said
