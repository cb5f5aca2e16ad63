"""Concatenation, the paper's fusion marked with a circled plus."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miles_repro.fusions.base import Fusion


class Concat(Fusion):
    """y_AB = W [z_1; ..; z_M] + b (MILES sec. IV-B).

    Unimodal logits split the linear layer by columns, W_m z_m + b / M, as OGM-GE does
    (Peng et al., CVPR 2022, main.py); they sum to the fused logits.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        self.linear = nn.Linear(sum(dims.values()), num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.linear(torch.cat([features[m] for m in self.dims], dim=1))

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        blocks = self.linear.weight.split(list(self.dims.values()), dim=1)
        bias = self.linear.bias / len(self.dims)
        return {m: F.linear(features[m], w, bias) for m, w in zip(self.dims, blocks, strict=True)}
