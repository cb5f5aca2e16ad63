"""Late fusion by a small Transformer whose tokens are the modalities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from miles_repro.fusions.base import Fusion


class Transformer(Fusion):
    """One token a modality and a class token, pre-norm layers, a linear layer on the class token.

    The simple baseline that "Fusion or Confusion?" (arXiv 2512.22991) finds hard to beat with
    elaborate methods; widths are ours. Unimodal logits: other features zero. For any number of
    modalities.

    Args:
        width: of the tokens, a multiple of ``heads``.
        layers, heads, dropout: of the Transformer.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dims, num_classes)
        if width % heads:
            raise ValueError(f"width={width} must be a multiple of heads={heads}")
        # the bias of a modality's projection says which one the token is of
        self.project = nn.ModuleDict({m: nn.Linear(d, width) for m, d in dims.items()})
        self.token = nn.Parameter(0.02 * torch.randn(width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        tokens = [self.project[m](features[m]) for m in self.dims]
        first = self.token.to(tokens[0].dtype).expand_as(tokens[0])
        return self.linear(self.norm(self.layers(torch.stack([first, *tokens], dim=1))[:, 0]))
