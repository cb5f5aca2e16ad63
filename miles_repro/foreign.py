"""A foreign loop's own modules and tensors, as strategies see the suite's."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from miles_repro.context import Context
from miles_repro.fusions.base import Fusion
from miles_repro.fusions.concat import Concat
from miles_repro.model import Multimodal
from miles_repro.strategy import Strategy
from miles_repro.tasks import Score, Task

Data = Mapping[str, tuple[Mapping[str, Tensor], Tensor]]
"""``train`` and ``val`` -> inputs (N, ...) by modality, labels (N,)."""


class Wrapped(Fusion):
    """A module from {modality: feature} to logits; unimodal logits: other features zero."""

    def __init__(self, module: nn.Module, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__({}, num_classes)
        self.module, self.dims = module, Widths(dims)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.module(features)


class Widths(dict[str, int]):
    """Modality -> width of its features, where it is known."""

    def __missing__(self, modality: str) -> int:
        raise ValueError(f"say how wide the features are: dims={{{modality!r}: .., ..}}")


def as_fusion(
    fusion: nn.Module, encoders: Mapping[str, nn.Module], dims: Mapping[str, int] | None
) -> Fusion:
    if isinstance(fusion, Fusion):
        return fusion
    widths = {m: int(getattr(e, "dim", 0)) for m, e in encoders.items()} | dict(dims or {})
    if not isinstance(fusion, nn.Linear):
        outputs = [m.out_features for m in fusion.modules() if isinstance(m, nn.Linear)]
        if not outputs:
            raise ValueError("fusion: give a Fusion, an nn.Linear, or a module that ends in one")
        return Wrapped(fusion, {m: width for m, width in widths.items() if width}, outputs[-1])
    if not all(widths.values()) or sum(widths.values()) != fusion.in_features:
        raise ValueError(
            f"fusion takes {fusion.in_features} features: say what each modality has of them, "
            f"dims={{{', '.join(f'{m!r}: ..' for m in encoders)}}}"
        )
    joined = Concat({m: widths[m] for m in encoders}, fusion.out_features)
    joined.linear = fusion
    return joined


def check(
    strategy: Strategy,
    encoders: Mapping[str, nn.Module],
    fusion: Fusion,
    task: Task,
    *,
    heads: bool,
    teachers: bool,
) -> None:
    """Raises ValueError where the strategy is not defined for what it is given."""
    needs, name = strategy.needs, type(strategy).__name__
    if needs.heads == "trained" and not heads:
        raise ValueError(f"{name} trains unimodal heads: pass heads={{modality: module}}")
    if needs.teachers and not teachers:
        raise ValueError(f"{name} learns from frozen unimodal models: pass teachers=")
    if not needs.min_modalities <= len(encoders) <= (needs.max_modalities or len(encoders)):
        raise ValueError(f"{name} is not defined for {len(encoders)} modalities")
    if needs.tasks is not None and task.name not in needs.tasks:
        raise ValueError(f"{name} is not defined for {task.name} tasks")
    if isinstance(fusion, Wrapped) or "late" not in (needs.fusions or ()):
        check_fusion(strategy, fusion, fusion)  # else it may put one of its own there


def check_fusion(strategy: Strategy, given: Fusion, used: Fusion) -> None:
    """Raises ValueError where a strategy for certain fusions works on another one."""
    kinds, kind = strategy.needs.fusions, type(used).__module__.rpartition(".")[2]
    if kinds is not None and kind not in kinds and used is given:
        raise ValueError(
            f"{type(strategy).__name__} is not defined for this fusion: pass one of "
            f"miles_repro.fusions, {' or '.join(sorted(kinds))}"
        )


class Parts(Mapping[str, Any]):
    """The splits given, if any: who asks for another learns what to pass."""

    def __init__(self, data: Data | None, device: torch.device, name: str) -> None:
        self.found = {k: Memory(x, y, device) for k, (x, y) in (data or {}).items()}
        self.name = name

    def __getitem__(self, split: str) -> Any:
        if split not in self.found:
            raise ValueError(f"{self.name} looks at the {split} split: pass data={{'{split}': ..}}")
        return self.found[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


class Memory:
    """A split in memory, read as the suite reads its own."""

    groups: Tensor | None = None

    def __init__(self, x: Mapping[str, Tensor], y: Tensor, device: torch.device) -> None:
        self.x, self.labels, self.device = dict(x), y.to(device), device

    def __len__(self) -> int:
        return len(self.labels)

    def within_memory(self, size: int) -> int:
        return size

    def batch(self, index: Tensor, only: str | None = None) -> tuple[dict[str, Tensor], Tensor]:
        names = self.x if only is None else (only,)
        x = {m: self.x[m][index.to(self.x[m].device)].to(self.device) for m in names}
        return x, self.labels[index.to(self.device)]

    def batches(self, order: Tensor, size: int, only: str | None = None) -> Iterator[Any]:
        for index in order.split(size):
            yield self.batch(index, only)


class Freezing:
    """Freezes what a strategy says, and wakes only what it has frozen itself."""

    def __init__(self) -> None:
        self._asleep: dict[str, list[nn.Parameter]] = {}

    def apply(self, parts: Mapping[str, nn.Module], frozen: Collection[str]) -> None:
        """Frozen parts to eval mode, others to training mode if anything in them trains."""
        for part, module in parts.items():
            if part in frozen:
                module.eval()
                if part not in self._asleep:
                    self._asleep[part] = [p for p in module.parameters() if p.requires_grad]
                    module.requires_grad_(False)
                continue
            for p in self._asleep.pop(part, ()):
                p.requires_grad_(True)
            if any(p.requires_grad for p in module.parameters()):
                module.train()


class Unmerged:
    """A foreign optimizer whose groups no step can merge: ``RateFactors`` acts on each of them.

    For ``isinstance`` it is what it stands for.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    def __getattr__(self, name: str) -> Any:
        if name == "_optimizer":  # while a copy is being made
            raise AttributeError(name)
        return getattr(self._optimizer, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._optimizer)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        """They stay as they are."""


def another(optimizer: Optimizer, groups: list[dict[str, Any]]) -> Optimizer:
    """An optimizer of the same kind and settings, for other parameters."""
    kind = type(optimizer)
    taken = inspect.signature(kind).parameters
    settings = {k: v for k, v in optimizer.defaults.items() if k in taken}
    return kind(groups, **settings)


def regrow(strategy: Strategy, ctx: Context) -> None:
    """Make again what a strategy, by the state it was given, had added to the model."""
    known = ctx.model.parts()
    with torch.random.fork_rng(devices=[]):
        for group, module in strategy.modules(ctx).items():
            if group not in known:
                ctx.add(module, group)


def brought(model: Multimodal, fusion: Fusion) -> nn.ModuleDict:
    """The modules of a model that are a strategy's: its own, and one in place of ``fusion``."""
    return nn.ModuleDict(
        {**model.own, **({} if model.fusion is fusion else {"fusion": model.fusion})}
    )


def scores(given: Mapping[str, float | Score]) -> dict[str, Score]:
    return {
        k: dict(v) if isinstance(v, Mapping) else {"metric": float(v), "loss": 1 - float(v)}
        for k, v in given.items()
    }
