"""Gated fusion: one modality opens and closes the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from miles_repro.fusions.base import Fusion


class Gated(Fusion):
    """y_AB = W (sigmoid(U z_A) * V z_B) + b (Kiela et al., AAAI 2018).

    ``gate`` names the modality that gates; default: the first one. ``width`` is the common
    width of U and V; default: the widest feature. Unimodal logits: other feature zero.
    """

    min_modalities: ClassVar[int] = 2
    max_modalities: ClassVar[int | None] = 2

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        gate: str | None = None,
        width: int | None = None,
    ) -> None:
        super().__init__(dims, num_classes)
        self.gate = gate or next(iter(dims))
        if self.gate not in dims:
            raise ValueError(f"gate={gate!r} is not a modality of {list(dims)}")
        self.target = next(m for m in dims if m != self.gate)
        width = width or max(dims.values())
        self.to_gate = nn.Linear(dims[self.gate], width)
        self.to_value = nn.Linear(dims[self.target], width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        gate = torch.sigmoid(self.to_gate(features[self.gate]))
        return self.linear(gate * self.to_value(features[self.target]))
