"""A convolutional encoder small enough to train on one CPU core in seconds."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Two convolutions, each with max-pooling, batch norm and ReLU: a 3x3 grid of features.

    Input (B, in_channels, H, W) float32 with H, W >= 3; output (B, ``dim``), dim = 18 * channels.
    Any spatial size works, so images and spectral features share it. Made for CPUs: a wide stem
    that strides, as in ResNet, and everything that is not a convolution where few values are left.
    """

    def __init__(self, in_channels: int = 1, channels: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False),
            nn.AdaptiveMaxPool2d(3),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(inplace=True),
            nn.Flatten(),
        )
        self.dim = 18 * channels

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
