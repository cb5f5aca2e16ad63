"""A network of three parts, its optimizer, and MILES on it: for the scheduler's tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from miles_repro import MILES

LR = 0.1
IMAGE, AUDIO, FUSION = 0, 1, 2
Optimizer = torch.optim.Optimizer

SLOW_IMAGE = {"fused": 0.8, "image": 0.7, "audio": 0.3}
SLOW_AUDIO = {"fused": 0.8, "image": 0.3, "audio": 0.7}
EVEN = {"fused": 0.8, "image": 0.5, "audio": 0.5}
COURSE = [EVEN, SLOW_IMAGE, SLOW_IMAGE, SLOW_AUDIO, EVEN, SLOW_IMAGE, SLOW_AUDIO, SLOW_AUDIO]
"""Validation metrics after each epoch."""


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(3, 2) for name in ("image", "audio", "fusion")})


def optimizer_of(model: nn.ModuleDict, kind: Any = torch.optim.SGD, **options: Any) -> Optimizer:
    return kind([{"params": list(m.parameters())} for m in model.values()], lr=LR, **options)


def scheduler_of(model: nn.ModuleDict, optimizer: Optimizer, **options: Any) -> MILES:
    return MILES(optimizer, {m: model[m].parameters() for m in ("image", "audio")}, **options)


def take_step(model: nn.ModuleDict, optimizer: Optimizer) -> list[float]:
    """One step with a gradient of ones; returns how far each part's parameters moved."""
    before = [p.detach().clone() for p in (m.weight for m in model.values())]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    return [
        float((b - m.weight.detach()).mean()) for b, m in zip(before, model.values(), strict=True)
    ]


def wanted(package: str) -> Any:
    return pytest.importorskip(package, reason=f"MILES not tried with it: pip install {package}")
