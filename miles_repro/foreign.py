"""A foreign loop's own modules and tensors, as strategies see the suite's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from miles_repro.fusions.base import Fusion
from miles_repro.fusions.concat import Concat

Data = Mapping[str, tuple[Mapping[str, Tensor], Tensor]]
"""``train`` and ``val`` -> inputs (N, ...) by modality, labels (N,)."""


class Wrapped(Fusion):
    """A module from {modality: feature} to logits; unimodal logits: other features zero."""

    def __init__(self, module: nn.Module, num_classes: int) -> None:
        super().__init__({}, num_classes)
        self.module = module

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.module(features)


def as_fusion(
    fusion: nn.Module, encoders: Mapping[str, nn.Module], dims: Mapping[str, int] | None
) -> Fusion:
    if isinstance(fusion, Fusion):
        return fusion
    if not isinstance(fusion, nn.Linear):
        outputs = [m.out_features for m in fusion.modules() if isinstance(m, nn.Linear)]
        if not outputs:
            raise ValueError("fusion: give a Fusion, an nn.Linear, or a module that ends in one")
        return Wrapped(fusion, outputs[-1])
    widths = {m: int(getattr(e, "dim", 0)) for m, e in encoders.items()} | dict(dims or {})
    if not all(widths.values()) or sum(widths.values()) != fusion.in_features:
        raise ValueError(
            f"fusion takes {fusion.in_features} features: say what each modality has of them, "
            f"dims={{{', '.join(f'{m!r}: ..' for m in encoders)}}}"
        )
    joined = Concat({m: widths[m] for m in encoders}, fusion.out_features)
    joined.linear = fusion
    return joined


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


class Unmerged:
    """A foreign optimizer whose groups no step can merge: ``RateFactors`` acts on each of them."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        """They stay as they are."""
