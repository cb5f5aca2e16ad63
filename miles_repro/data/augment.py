"""Training augmentation as batched tensor operations, on the device the batch lies on.

An augmentation is a callable (x: float32 (B, C, H, W), generator) -> (B, C, H', W'). Its random
numbers are drawn on the generator's device from that generator alone, so a batch and a generator
state decide the result.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_TRIES = 10


class RandomResizedCropFlip:
    """A random crop stretched back to a square, mirrored half of the time.

    The augmentation the literature uses on CREMA-D's frames (Peng et al. 2022; the paper names
    none): the crop covers a share of the area drawn from ``scale`` at an aspect ratio drawn
    log-uniformly from ``ratio``. Each image has up to ten draws to fit; one that never fits is cut
    to the largest central crop of an allowed ratio.

    Args:
        size: side of the result in pixels.
        scale: least and greatest share of the image's area.
        ratio: least and greatest width / height of the crop.
        flip: probability of mirroring left and right.
    """

    def __init__(
        self,
        size: int = 224,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
    ) -> None:
        self.size, self.flip = size, flip
        self.scale, self.ratio = tuple(scale), tuple(ratio)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        boxes = self.draw_boxes(len(x), x.shape[2], x.shape[3], generator)
        mirror = torch.rand(len(x), generator=generator, device=generator.device) < self.flip
        return crop_resize(x, boxes.to(x.device), mirror.to(x.device), self.size)

    def draw_boxes(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Crops in whole pixels, (n, 4) as top, left, height, width; all inside the image."""
        device = generator.device
        draw = torch.rand(4, n, _TRIES, generator=generator, device=device)
        area = height * width * (self.scale[0] + draw[0] * (self.scale[1] - self.scale[0]))
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        aspect = torch.exp(low + draw[1] * (high - low))
        w = torch.round(torch.sqrt(area * aspect))
        h = torch.round(torch.sqrt(area / aspect))
        fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
        first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
        any_fits = fits.any(dim=1)
        central_h, central_w = self._central(height, width)
        h = torch.where(any_fits, h.gather(1, first)[:, 0], central_h)
        w = torch.where(any_fits, w.gather(1, first)[:, 0], central_w)
        # the offsets are whole numbers from 0 to what is left, all equally likely
        top = torch.floor(draw[2].gather(1, first)[:, 0] * (height - h + 1))
        left = torch.floor(draw[3].gather(1, first)[:, 0] * (width - w + 1))
        top = torch.where(any_fits, top, (height - central_h) // 2)
        left = torch.where(any_fits, left, (width - central_w) // 2)
        return torch.stack([top, left, h, w], dim=1)

    def _central(self, height: int, width: int) -> tuple[float, float]:
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        if aspect < width / height:
            return float(height), float(round(height * aspect))
        return float(round(width / aspect)), float(width)


def crop_resize(x: Tensor, boxes: Tensor, mirror: Tensor, size: int) -> Tensor:
    """Cut a box out of each image, stretch it bilinearly to a square, mirror where asked.

    One interpolation does all three. Pixels next to a crop's edge blend with their neighbours
    outside it, where cutting first would repeat the edge; nothing is smoothed when a crop is
    larger than ``size``.

    Args:
        x: images, float (B, C, H, W).
        boxes: top, left, height, width in pixels, (B, 4).
        mirror: whether to mirror left and right, bool (B,).
        size: side of the result in pixels.
    """
    height, width = x.shape[2:]
    top, left, h, w = boxes.to(x.dtype).unbind(dim=1)
    zero = torch.zeros_like(top)
    # from result to image, both in [-1, 1] from edge to edge
    sign = torch.where(mirror, -1.0, 1.0).to(x.dtype)
    across = torch.stack([sign * w / width, zero, (2 * left + w) / width - 1], dim=1)
    down = torch.stack([zero, h / height, (2 * top + h) / height - 1], dim=1)
    grid = F.affine_grid(
        torch.stack([across, down], dim=1), [len(x), x.shape[1], size, size], align_corners=False
    )
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
