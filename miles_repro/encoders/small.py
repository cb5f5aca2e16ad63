"""A convolutional encoder small enough to train on one CPU core in seconds."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three convolutions with batch norm and ReLU, then a 3x3 grid of features.

    Input (B, in_channels, H, W) float32 with H, W >= 4; output (B, ``dim``), dim = 36 * width.
    Any spatial size works, so images and spectral features share it. Made for CPUs: the stem
    strides, and norm and ReLU come after pooling, where a quarter of the values is left.
    """

    def __init__(self, in_channels: int = 1, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
        )
        self.dim = 36 * width

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
