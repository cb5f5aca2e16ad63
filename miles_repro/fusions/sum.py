"""Summation, the paper's fusion marked with a plus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miles_repro.fusions.base import Fusion


class Sum(Fusion):
    """y_AB = W (z_1 + .. + z_M) + b (MILES sec. IV-B).

    Features of unequal width are first projected, without bias, to the widest one: the paper
    does not say how it adds 768 and 2048 values. Unimodal logits are W z_m + b / M in training
    and evaluation alike (OGM-GE's code uses b in one and b / 2 in the other).

    Args:
        form: ``shared``, as above, or ``separate``: y_AB = sum over m of W_m z_m + b_m, what
            OGM-GE's code calls a sum (Peng et al., CVPR 2022). It needs no projection, and its
            terms are the unimodal logits.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        form: Literal["shared", "separate"] = "shared",
    ) -> None:
        super().__init__(dims, num_classes)
        if form not in ("shared", "separate"):
            raise ValueError(f"form={form}: shared or separate")
        self.form, width = form, max(dims.values())
        shared = form == "shared"
        self.project = nn.ModuleDict(
            {m: nn.Linear(d, width, bias=False) for m, d in dims.items() if shared and d != width}
        )
        if shared:
            self.linear = nn.Linear(width, num_classes)
        else:
            self.terms = nn.ModuleDict({m: nn.Linear(d, num_classes) for m, d in dims.items()})

    def projected(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What enters the linear layer: features (B, width), of the shared form all as wide."""
        return {
            m: self.project[m](features[m]) if m in self.project else features[m] for m in self.dims
        }

    def weight(self, modality: str) -> Tensor:
        """The weights (C, width) for one modality."""
        if self.form == "shared":
            return self.linear.weight
        return self.terms.get_parameter(f"{modality}.weight")

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        if self.form == "shared":
            return self.linear(torch.stack(list(self.projected(features).values())).sum(0))
        return torch.stack(list(self.unimodal(features).values())).sum(0)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.form == "separate":
            return {m: self.terms[m](features[m]) for m in self.dims}
        bias = self.linear.bias / len(self.dims)
        return {
            m: F.linear(z, self.linear.weight, bias) for m, z in self.projected(features).items()
        }
