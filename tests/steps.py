"""Golden vectors that give a tiny model's weights before and after a step: to modules and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from miles_repro.context import Batch
from miles_repro.fusions.concat import Concat

Weights = Mapping[str, Any]


def a_batch(given: Weights) -> Batch:
    """Inputs ``x_<modality>`` and labels ``y``."""
    x = {k[2:]: torch.tensor(v) for k, v in given.items() if k.startswith("x_")}
    y = torch.tensor(given["y"])
    return Batch(x, y, torch.arange(len(y)))


def a_linear(given: Weights) -> nn.Linear:
    """``weight`` (out, in) and, where there is one, ``bias``."""
    rows, columns = torch.tensor(given["weight"]).shape
    layer = nn.Linear(columns, rows, bias="bias" in given)
    layer.load_state_dict({k: torch.tensor(v) for k, v in given.items()})
    return layer


def encoders(model: Weights, modalities: Sequence[str] = ("a", "v")) -> dict[str, nn.Module]:
    """The linear encoders ``encoder_<modality>``."""
    return {m: a_linear(model[f"encoder_{m}"]) for m in modalities}


def a_concat(model: Weights, modalities: Sequence[str] = ("a", "v")) -> Concat:
    """The fusion whose linear layer is ``head``."""
    dims = {m: len(model[f"encoder_{m}"]["weight"]) for m in modalities}
    fusion = Concat(dims, len(model["head"]["weight"]))
    fusion.linear = a_linear(model["head"])
    return fusion


def assert_weights(modules: Mapping[str, nn.Module], want: Weights, tolerance: float) -> None:
    """Every expected ``<module>.<parameter>`` is there."""
    found: dict[str, Tensor] = {
        f"{name}.{k}": p.detach()
        for name, module in modules.items()
        for k, p in module.named_parameters()
    }
    for name, value in want.items():
        torch.testing.assert_close(found[name], torch.tensor(value), atol=tolerance, rtol=0)
