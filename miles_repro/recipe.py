"""How a run takes its steps: everything about training that is not the strategy's business."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from miles_repro.seeding import derive

Augment = Callable[[Tensor, torch.Generator], Tensor]
Schedule = Callable[[int, int], float]
"""(epoch from 1, epochs) -> factor on the global rate alpha."""


# Schedules. The rate of a group is always alpha x schedule(epoch) x the strategy's factor.


@dataclass(frozen=True)
class Constant:
    """The rate stays: the paper mentions no schedule."""

    def __call__(self, epoch: int, epochs: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 towards 0, after a linear rise over ``warmup`` x epochs."""

    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup} must be in [0, 1), a share of the epochs")

    def __call__(self, epoch: int, epochs: int) -> float:
        rising = round(self.warmup * epochs)
        if epoch <= rising:
            return epoch / (rising + 1)
        return 0.5 * (1 + math.cos(math.pi * (epoch - 1 - rising) / (epochs - rising)))


@dataclass(frozen=True)
class Step:
    """Times ``gamma`` after every ``every`` epochs."""

    every: int = 70
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 < self.gamma <= 1:
            raise ValueError(f"every={self.every}, gamma={self.gamma}: every >= 1, 0 < gamma <= 1")

    def __call__(self, epoch: int, epochs: int) -> float:
        return float(self.gamma ** ((epoch - 1) // self.every))


@dataclass
class Recipe:
    """lr: the global rate alpha; optimizer: parameter groups -> optimizer; amp: autocast type."""

    lr: float
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    batch_size: int
    epochs: int
    seed: int
    device: torch.device
    eval_batch_size: int = 512
    schedule: Schedule = field(default_factory=Constant)
    clip_norm: float | None = None
    augment: dict[str, Augment] = field(default_factory=dict)
    amp: torch.dtype | None = None
    channels_last: bool = False

    def order(self, n: int, *names: object) -> Tensor:
        """A permutation of range(n) that depends on the seed and ``names`` alone."""
        generator = torch.Generator().manual_seed(derive(self.seed, "order", *names))
        return torch.randperm(n, generator=generator)

    def augmenting(self, epoch: int) -> torch.Generator:
        """The generator of one epoch's augmentations."""
        return torch.Generator().manual_seed(derive(self.seed, "augment", epoch))

    def inputs(self, x: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """A training batch's inputs, augmented and in the memory format of the run."""
        for m, augment in self.augment.items():
            if m in x:
                x[m] = augment(x[m], generator)
        if not self.channels_last:
            return x
        return {
            m: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v
            for m, v in x.items()
        }

    def optimize(self, parts: Mapping[str, nn.Module]) -> torch.optim.Optimizer:
        """An optimizer with one parameter group a part, each carrying its ``name``."""
        groups = [
            {"params": list(module.parameters()), "name": name} for name, module in parts.items()
        ]
        return self.optimizer([g for g in groups if g["params"]])


@contextmanager
def merged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, groups of equal settings are one: on small models a call a group is most of a step.

    No number depends on it: every parameter has a state and an update of its own.
    """
    groups = optimizer.param_groups
    together: dict[tuple[Any, ...], dict[str, Any]] = {}
    for group in groups:
        settings = tuple(v for k, v in group.items() if k not in ("params", "name"))
        first = together.setdefault(settings, {**group, "params": []})
        first["params"] = first["params"] + group["params"]
    optimizer.param_groups = list(together.values())
    try:
        yield
    finally:
        optimizer.param_groups = groups


def fused(kind: type[torch.optim.Optimizer], device: torch.device) -> dict[str, bool]:
    """``fused=True`` for an optimizer that can take all its steps in one call here.

    Not for SGD: its fused kernel fails where a group's parameters first step at different times.
    """
    able = (
        kind is not torch.optim.SGD
        and "fused" in inspect.signature(kind).parameters
        and device.type in ("cpu", "cuda")
    )
    return {"fused": True} if able else {}
