"""Summation, the paper's fusion marked with a plus."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miles_repro.fusions.base import Fusion


class Sum(Fusion):
    """y_AB = W (z_1 + .. + z_M) + b (MILES sec. IV-B).

    Features of unequal width are first projected, without bias, to the widest one: the paper
    does not say how it adds 768 and 2048 values. Unimodal logits are W z_m + b / M in training
    and evaluation alike (OGM-GE's code uses b in one and b / 2 in the other).
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        width = max(dims.values())
        self.project = nn.ModuleDict(
            {m: nn.Linear(d, width, bias=False) for m, d in dims.items() if d != width}
        )
        self.linear = nn.Linear(width, num_classes)

    def projected(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features (B, width), all as wide as the widest."""
        return {
            m: self.project[m](features[m]) if m in self.project else features[m] for m in self.dims
        }

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.linear(torch.stack(list(self.projected(features).values())).sum(0))

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        bias = self.linear.bias / len(self.dims)
        return {
            m: F.linear(z, self.linear.weight, bias) for m, z in self.projected(features).items()
        }
