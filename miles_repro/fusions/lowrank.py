"""Low-rank multilinear fusion: products across modalities without their outer product."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from miles_repro.fusions.base import Fusion


class LowRank(Fusion):
    """h = sum over r of prod over m of (U_m,r z_m + c_m,r), y = W h + b (Liu et al., ACL 2018).

    A constant 1 is appended to each feature there, which is the bias c here; it starts at 1, so
    that a product begins near one and a modality whose feature is zero leaves the others' alone.
    Two modalities: bilinear. Unimodal logits: other features zero. For any number of modalities.

    Args:
        width: of h.
        rank: summands of the decomposition.
    """

    def __init__(
        self, dims: Mapping[str, int], num_classes: int, width: int = 64, rank: int = 4
    ) -> None:
        super().__init__(dims, num_classes)
        self.width, self.rank = width, rank
        self.factor = nn.ModuleDict({m: nn.Linear(d, rank * width) for m, d in dims.items()})
        for factor in self.factor.values():
            nn.init.ones_(factor.bias)  # type: ignore[arg-type]
        self.linear = nn.Linear(width, num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        factors = torch.stack([self.factor[m](features[m]) for m in self.dims])
        product = factors.prod(dim=0).unflatten(1, (self.rank, self.width))
        return self.linear(product.sum(dim=1))
