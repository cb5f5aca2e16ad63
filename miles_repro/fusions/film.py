"""FiLM: one modality scales and shifts the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from miles_repro.fusions.base import Fusion


class FiLM(Fusion):
    """y_AB = W (gamma(z_A) * z_B + beta(z_A)) + b (Perez et al., AAAI 2018).

    ``condition`` names the modality that gives gamma and beta; default: the first one.
    Unimodal logits come from the base class (other feature zero): OGM-GE's own code cannot
    run on this fusion because it assumes a linear split.
    """

    min_modalities: ClassVar[int] = 2
    max_modalities: ClassVar[int | None] = 2

    def __init__(
        self, dims: Mapping[str, int], num_classes: int, condition: str | None = None
    ) -> None:
        super().__init__(dims, num_classes)
        self.condition = condition or next(iter(dims))
        if self.condition not in dims:
            raise ValueError(f"condition={condition!r} is not a modality of {list(dims)}")
        self.target = next(m for m in dims if m != self.condition)
        self.film = nn.Linear(dims[self.condition], 2 * dims[self.target])
        self.linear = nn.Linear(dims[self.target], num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        gamma, beta = self.film(features[self.condition]).chunk(2, dim=1)
        return self.linear(gamma * features[self.target] + beta)
