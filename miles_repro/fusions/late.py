"""Late fusion: every modality votes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from miles_repro.fusions.base import Fusion


class Late(Fusion):
    """y = mean over m of W_m z_m + b_m: the mean of one linear classifier a modality.

    Unimodal logits are those of the classifiers themselves. For any number of modalities.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        self.linear = nn.ModuleDict({m: nn.Linear(d, num_classes) for m, d in dims.items()})

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(list(self.unimodal(features).values())).mean(dim=0)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self.linear[m](features[m]) for m in self.dims}
