"""MMTM: each modality's features are gated by all of them; then every modality votes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from miles_repro.fusions.base import Fusion


class MMTM(Fusion):
    """y = mean over m of W_m (g_m * z_m) + b_m, g_m = sigmoid(E_m relu(S [z_1; ..; z_M])).

    Squeeze S and excitations E_m of the multimodal transfer module (Joze et al., CVPR 2020), on the
    encoders' features alone, gates as in Wu et al. (ICML 2022): without the factor 2. ``ratio``:
    S has 2 sum(d_m) / ratio outputs. Unimodal logits: a modality's own vote with the other
    features at zero.

    ``regate``, where set, replaces the gates (modality -> (B, d_m)) of training passes.
    """

    min_modalities: ClassVar[int] = 2

    def __init__(self, dims: Mapping[str, int], num_classes: int, ratio: float = 4.0) -> None:
        super().__init__(dims, num_classes)
        if ratio <= 0:
            raise ValueError(f"ratio={ratio} must be above 0")
        total = sum(dims.values())
        squeezed = max(1, int(2 * total / ratio))
        self.squeeze = nn.Linear(total, squeezed)
        self.excite = nn.ModuleDict({m: nn.Linear(squeezed, d) for m, d in dims.items()})
        self.linear = nn.ModuleDict({m: nn.Linear(d, num_classes) for m, d in dims.items()})
        self.regate: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None

    def gates(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """g_m (B, d_m) of every modality."""
        squeezed = self.squeeze(torch.cat([features[m] for m in self.dims], dim=1)).relu()
        return {m: excite(squeezed).sigmoid() for m, excite in self.excite.items()}

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        gates = self.gates(features)
        if self.training and self.regate is not None:
            gates = self.regate(gates)
        votes = [self.linear[m](gates[m] * features[m]) for m in self.dims]
        return torch.stack(votes).mean(dim=0)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        zeros = {m: torch.zeros_like(z) for m, z in features.items()}
        alone = {m: self.gates({**zeros, m: z})[m] * z for m, z in features.items()}
        return {m: self.linear[m](z) for m, z in alone.items()}
