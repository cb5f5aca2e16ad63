"""A convolutional encoder small enough to train on one CPU core in seconds."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three 3x3 convolutions with batch norm, ReLU and pooling, then a 2x2 grid of features.

    Input (B, in_channels, H, W) float32 with H, W >= 4; output (B, ``dim``), dim = 16 * width.
    Any spatial size works, so images and spectral features share it.
    """

    def __init__(self, in_channels: int = 1, width: int = 8) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        previous = in_channels
        for i, channels in enumerate(widths):
            layers += [
                nn.Conv2d(previous, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            if i < 2:
                layers.append(nn.MaxPool2d(2))
            previous = channels
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.dim = 4 * widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MLP(nn.Module):
    """One hidden layer on the flattened sample: the cheapest encoder, for tests and benchmarks.

    Input (B, ...) with ``in_features`` values a sample; output (B, ``dim``).
    """

    def __init__(self, in_features: int, dim: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, dim), nn.ReLU())
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
