"""ResNet-6, -10, -18 and -50 encoders, assembled from torchvision's blocks.

The paper (sec. IV-B) names the depths and nothing else; layouts marked (inferred) are ours, and
``blocks`` gives another one of the same depth, such as [2, 2] for ResNet-10 or [2] for ResNet-6:

=====  ==========  =================  ====================  ====  =========================
depth  block       blocks per stage   stage widths          dim   used by the paper for
=====  ==========  =================  ====================  ====  =========================
6      BasicBlock  1, 1               64, 128               128   LUMA (inferred layout)
10     BasicBlock  1, 1, 1, 1         64, 128, 256, 512     512   S-MNIST (inferred layout)
18     BasicBlock  2, 2, 2, 2         64, 128, 256, 512     512   CREMA-D
50     Bottleneck  3, 4, 6, 3         256, 512, 1024, 2048  2048  MM-IMDb
=====  ==========  =================  ====================  ====  =========================

A depth counts the weighted layers of the longest path: the stem, two (BasicBlock) or three
(Bottleneck) convolutions per block, and the linear classifier, which belongs to the fusion and
not to the encoder. Every depth shares torchvision's stem (7x7 convolution of stride 2, BatchNorm,
ReLU, 3x3 max-pooling of stride 2) and ends in global average pooling.

This is the only module that imports torchvision, and it is imported only by configurations that
name a ResNet.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.resnet import (  # type: ignore[import-untyped]
    BasicBlock,
    Bottleneck,
    ResNet,
)

from miles_repro.errors import UserError

LAYOUTS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    6: (BasicBlock, (1, 1)),
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
}
_STAGES = 4
_BASE_WIDTH = 64
_RGB = 3


class ResNetEncoder(ResNet):
    """A ResNet without its classifier: images (B, in_channels, H, W) -> features (B, dim)."""

    def __init__(
        self, depth: int, in_channels: int = 3, blocks: Sequence[int] | None = None
    ) -> None:
        if depth not in LAYOUTS:
            known = ", ".join(map(str, LAYOUTS))
            raise UserError(f"no ResNet of depth {depth}; choose one of {known}")
        if in_channels < 1:
            raise UserError(f"a ResNet needs at least one input channel, got {in_channels}")
        block, inferred = LAYOUTS[depth]
        blocks = tuple(blocks or inferred)
        per_block = 2 if block is BasicBlock else 3
        if not 1 <= len(blocks) <= _STAGES or min(blocks) < 1:
            raise UserError(f"blocks={list(blocks)}: one number from 1 for each of 1 to 4 stages")
        if 2 + per_block * sum(blocks) != depth:
            fit = (depth - 2) // per_block
            raise UserError(f"blocks={list(blocks)}: a ResNet-{depth} has {fit} blocks in all")
        super().__init__(block, list(blocks) + [1] * (_STAGES - len(blocks)))
        # torchvision always builds four stages; shallower layouts leave the last ones out.
        for stage in range(len(blocks), _STAGES):
            setattr(self, f"layer{stage + 1}", nn.Identity())
        if in_channels != _RGB:
            self.conv1 = nn.Conv2d(in_channels, _BASE_WIDTH, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.fc = nn.Identity()
        self.depth = depth
        self.dim = _BASE_WIDTH * 2 ** (len(blocks) - 1) * block.expansion


def resnet(
    depth: int = 18,
    in_channels: int = 3,
    weights: str | None = None,
    blocks: Sequence[int] | None = None,
) -> ResNetEncoder:
    """Encoder of the given depth, from scratch or from a local file.

    Args:
        depth: 6, 10, 18 or 50.
        in_channels: channels of the input; 1 for spectrograms, 3 for colour images.
        weights: path of a state dict with torchvision's parameter names (for example the
            ImageNet weights torchvision publishes), or None for random initialisation. A
            classifier (``fc.*``) in the file is ignored. Where the file's stem reads three
            channels and the encoder one, its filters are summed over the channels, which
            answers a grey image exactly as the original answers its grey copy in RGB.
        blocks: number of blocks in each stage, where it is not the table's.

    Raises:
        UserError: unknown depth, blocks that do not make it, or a file that is missing,
            unreadable or of another layout.
    """
    encoder = ResNetEncoder(depth, in_channels, blocks)
    if weights is not None:
        _load(encoder, Path(weights))
    return encoder


def _load(encoder: ResNetEncoder, path: Path) -> None:
    state = {k: v for k, v in _read_state(path).items() if not k.startswith("fc.")}
    stem = state.get("conv1.weight")
    if stem is not None and stem.ndim == 4 and encoder.conv1.in_channels == 1:
        state["conv1.weight"] = stem.sum(dim=1, keepdim=True)
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} does not hold weights of a ResNet-{encoder.depth} with "
            f"{encoder.conv1.in_channels} input channels: {detail}"
        ) from error


def _read_state(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise UserError(
            f"ResNet weights not found at {path}: download a state dict there, "
            "or leave `weights` empty to train from scratch"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path} is not a PyTorch file of plain tensors: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} is not a state dict (parameter name -> tensor)")
    return state
