"""Encoders of sequences of feature vectors, (B, T, D) float -> (B, dim), of any length.

A step that is NaN throughout is padding: prepared sequences are padded so, and training
statistics leave such steps out. Norms act within a step, and padding takes no step of the GRU, no
attention and no share of the pooled mean: a row's feature does not depend on how far it is padded
(a test compares). A row of nothing but padding is legal and encodes to a constant.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from miles_repro.errors import UserError


class _Sequence(nn.Module):
    def __init__(self, in_features: int, dim: int) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise UserError(f"a sequence encoder needs an even dim, got {dim}")
        self.dim = dim
        self.expects = f"(steps, {in_features})"
        self.embed = nn.Sequential(nn.Linear(in_features, dim), nn.LayerNorm(dim))

    def forward(self, x: Tensor) -> Tensor:
        there = ~x.isnan().all(dim=2)
        states = self.states(self.embed(x.nan_to_num()), there)
        return (states * there[..., None]).sum(dim=1) / there.sum(dim=1).clamp(min=1)[:, None]

    def states(self, x: Tensor, there: Tensor) -> Tensor:
        """Embedded steps (B, T, dim) and which of them are there (B, T) -> (B, T, dim)."""
        raise NotImplementedError


class GRU(_Sequence):
    """Bidirectional GRU over embedded steps; the feature is the mean of its states.

    Padding stands behind a sequence: steps after the last that is there are not read.

    Args:
        in_features: width D of a step.
        dim: of the feature, half from each direction.
        layers: of the GRU.
    """

    def __init__(self, in_features: int, dim: int = 128, layers: int = 1) -> None:
        super().__init__(in_features, dim)
        self.gru = nn.GRU(dim, dim // 2, layers, batch_first=True, bidirectional=True)

    def states(self, x: Tensor, there: Tensor) -> Tensor:
        steps = torch.arange(1, x.shape[1] + 1, device=x.device)
        lengths = (there * steps).amax(dim=1).clamp(min=1)  # packing refuses length 0
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])[
            0
        ]


class Transformer(_Sequence):
    """Pre-norm Transformer (Vaswani et al. 2017) over embedded steps with sinusoidal positions.

    Args:
        in_features: width D of a step.
        dim: of the feature and of every layer.
        layers, heads, dropout: of the Transformer.
    """

    def __init__(
        self,
        in_features: int,
        dim: int = 128,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, dim)
        if dim % heads:
            raise UserError(f"a Transformer's dim {dim} must be a multiple of its heads {heads}")
        layer = nn.TransformerEncoderLayer(
            dim, heads, 2 * dim, dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, layers, norm=nn.LayerNorm(dim), enable_nested_tensor=False
        )

    def states(self, x: Tensor, there: Tensor) -> Tensor:
        seen = there.clone()
        seen[:, 0] |= ~there.any(dim=1)  # attention to nothing would be NaN
        return self.layers(x + positions(x.shape[1], self.dim).to(x), src_key_padding_mask=~seen)


def positions(steps: int, dim: int) -> Tensor:
    """Sines and cosines of Vaswani et al. (2017), (steps, dim)."""
    at = torch.arange(steps)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    return torch.stack([torch.sin(at * rate), torch.cos(at * rate)], dim=2).flatten(1)
