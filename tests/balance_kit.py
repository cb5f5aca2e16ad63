"""Modules and an optimizer of somebody's own loop."""

from __future__ import annotations

import torch
from torch import nn

DIMS = {"image": 8, "audio": 8}


def parts() -> tuple[dict[str, nn.Module], nn.Module, dict[str, nn.Module]]:
    torch.manual_seed(0)
    encoders = {m: nn.Sequential(nn.Linear(4, 8), nn.ReLU()) for m in ("image", "audio")}
    return encoders, nn.Linear(16, 3), {m: nn.Linear(8, 3) for m in encoders}


def groups(*modules: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": list(m.parameters())} for m in modules], lr=0.1)
