"""The optimizer's parameter groups and the learning-rate schedule of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from miles_repro.model import Multimodal

if TYPE_CHECKING:
    from miles_repro.config import OptimizerConfig


def build_optimizer(
    model: Multimodal, config: OptimizerConfig, device: torch.device
) -> torch.optim.Optimizer:
    """One parameter group a part of the model, each carrying its ``name``."""
    groups = [
        {"params": list(module.parameters()), "name": name}
        for name, module in model.parts().items()
    ]
    groups = [g for g in groups if g["params"]]
    fused = device.type in ("cpu", "cuda")
    if config.name == "adam":
        return torch.optim.Adam(
            groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused
        )
    if config.name == "adamw":
        return torch.optim.AdamW(
            groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused
        )
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=fused,
    )


@contextmanager
def merged_groups(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, groups that share all settings are one: a fused step costs one call a group.

    The groups differ in their rate at most, mostly not even in that. A step treats every
    parameter by itself, so no number changes; the optimizer's state belongs to parameters.
    """
    named = optimizer.param_groups
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for group in named:
        settings = {k: v for k, v in group.items() if k not in ("params", "name")}
        same = merged.setdefault(tuple(settings.values()), {"params": [], **settings})
        same["params"] += group["params"]
    optimizer.param_groups = list(merged.values())
    try:
        yield
    finally:
        optimizer.param_groups = named


def schedule(config: OptimizerConfig, epoch: int, epochs: int) -> float:
    """Factor of the global schedule in ``epoch`` (from 1) of ``epochs``.

    The rate of a group is always base x this factor x the strategy's factor.
    """
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))
    if config.schedule == "step":
        return config.step_gamma ** ((epoch - 1) // config.step_epochs)
    return 1.0
