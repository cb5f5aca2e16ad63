"""A multilayer perceptron for feature vectors."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from miles_repro.errors import UserError

NORMS = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP(nn.Module):
    """``depth`` times linear, norm, ReLU, dropout: (B, ...) -> (B, ``dim``), dim = width.

    Args:
        in_features: numbers a sample, of whatever shape.
        width: of every layer.
        depth: layers, 1 or more.
        dropout: probability, after each ReLU.
        norm: ``layer``, ``batch`` or ``none``, before each ReLU.
    """

    def __init__(
        self,
        in_features: int,
        width: int = 128,
        depth: int = 2,
        dropout: float = 0.0,
        norm: Literal["none", "batch", "layer"] = "layer",
    ) -> None:
        super().__init__()
        if min(in_features, width, depth) < 1 or not 0 <= dropout < 1 or norm not in NORMS:
            raise UserError(
                f"an MLP needs in_features={in_features}, width={width} and depth={depth} of 1 or "
                f"more, dropout={dropout} in [0, 1) and norm={norm} among {', '.join(NORMS)}"
            )
        layers: list[nn.Module] = [nn.Flatten()]
        for layer in range(depth):
            layers.append(nn.Linear(width if layer else in_features, width))
            layers += [NORMS[norm](width)] if norm != "none" else []
            layers.append(nn.ReLU())
            layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers)
        self.dim = width
        self.expects = f"({in_features},) or as many numbers in another shape"

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
