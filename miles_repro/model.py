"""The multimodal network: encoders, fusion, optional unimodal heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from miles_repro.fusions.base import Fusion
from miles_repro.seeding import derive

Heads = Literal["none", "trained"]


@dataclass
class Output:
    """What one forward pass gives.

    features: modality -> z_m (B, d_m); fused: logits y_AB (B, C);
    unimodal: modality -> logits y_m (B, C), computed when first asked for.
    """

    features: dict[str, Tensor]
    fused: Tensor
    _unimodal: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = field(repr=False)

    @cached_property
    def unimodal(self) -> dict[str, Tensor]:
        return self._unimodal(self.features)


class Multimodal(nn.Module):
    """Encoders z_m = f_m(x_m) (Eq. 1), fusion y_AB = g_AB(z_A, z_B) (Eq. 2), unimodal heads.

    heads: modality -> linear head whose loss also trains the encoder (Eq. 3); without any,
    unimodal logits come from the fusion (logit split, or the other features zeroed).
    ``own``: modules of the balancing strategy's, by group name.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: Fusion,
        heads: Mapping[str, nn.Module],
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.heads = nn.ModuleDict(heads)
        self.own = nn.ModuleDict()

    @property
    def modalities(self) -> list[str]:
        return list(self.encoders)

    def encode(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: encoder(x[m]) for m, encoder in self.encoders.items()}

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not self.heads:
            return self.fusion.unimodal(features)
        return {m: head(features[m]) for m, head in self.heads.items()}

    def fuse(self, features: dict[str, Tensor]) -> Output:
        return Output(features, self.fusion(features), self.unimodal)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        return self.fuse(self.encode(x))

    def adopt(self, modules: Mapping[str, nn.Module]) -> None:
        """Make modules of a strategy's, by group name, part of the model.

        Raises ValueError for a name that is taken.
        """
        for group, module in modules.items():
            if group in self.parts():
                raise ValueError(f"the model has a group {group} already")
            self.own[group.replace(".", "/")] = module  # torch allows no dot in a module's name

    def parts(self) -> dict[str, nn.Module]:
        """Named parameter groups: ``encoder.<m>``, ``head.<m>``, ``fusion``, a strategy's own."""
        return {
            **{f"encoder.{m}": encoder for m, encoder in self.encoders.items()},
            **{f"head.{m}": head for m, head in self.heads.items()},
            "fusion": self.fusion,
            **{group.replace("/", "."): module for group, module in self.own.items()},
        }


def build_model(
    encoders: Mapping[str, Callable[[], nn.Module]],
    fusion: Callable[[dict[str, int], int], Fusion],
    num_classes: int,
    heads: Heads,
    seed: int,
) -> Multimodal:
    """Build every part from its own seed, so that two strategies start from the same encoders."""
    built: dict[str, nn.Module] = {}
    for m, make in encoders.items():
        torch.manual_seed(derive(seed, "encoder", m))
        built[m] = make()
    dims = {m: int(encoder.dim) for m, encoder in built.items()}  # type: ignore[arg-type]
    torch.manual_seed(derive(seed, "fusion"))
    fused = fusion(dims, num_classes)
    linear: dict[str, nn.Module] = {}
    if heads != "none":
        for m, d in dims.items():
            torch.manual_seed(derive(seed, "head", m))
            linear[m] = nn.Linear(d, num_classes)
    return Multimodal(built, fused, linear)
