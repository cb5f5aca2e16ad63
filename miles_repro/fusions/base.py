"""What every fusion g_AB is: features in, fused logits and unimodal logits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """g_AB of the paper (Eq. 2): fuse the encoders' features, then one linear layer.

    A subclass takes ``dims`` (modality -> feature width, in order) and ``num_classes``.
    ``min_modalities``/``max_modalities`` are checked before a run starts.
    """

    min_modalities: ClassVar[int] = 1
    max_modalities: ClassVar[int | None] = None

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        self.dims = dict(dims)
        self.num_classes = num_classes

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features (B, d_m) for every modality -> fused logits (B, num_classes)."""
        raise NotImplementedError

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits (B, num_classes) of each modality alone: the other features set to zero.

        Defined for any fusion; linear fusions override it with their closed form.
        """
        zeros = {m: torch.zeros_like(z) for m, z in features.items()}
        return {m: self.forward({**zeros, m: z}) for m, z in features.items()}
