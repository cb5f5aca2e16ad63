"""ResNets: layouts against their definitions, gradients, local weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_kit import assert_gradient_everywhere
from torch import nn

from miles_repro.encoders.resnet import ResNetEncoder, resnet
from miles_repro.errors import UserError

# depth: (feature width, convolutions on the longest path incl. stem)
RESNETS = {6: (128, 5), 10: (512, 9), 18: (512, 17), 50: (2048, 49)}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def basic_resnet_size(blocks: list[int], in_channels: int) -> int:
    """Parameters of a BasicBlock ResNet without classifier, counted from its definition."""
    total = in_channels * 64 * 49 + 2 * 64
    width_in = 64
    for stage, n in enumerate(blocks):
        width = 64 * 2**stage
        for i in range(n):
            total += 9 * width_in * width + 9 * width * width + 4 * width
            if i == 0 and width_in != width:  # 1x1 shortcut with its BatchNorm
                total += width_in * width + 2 * width
            width_in = width
    return total


def saved_resnet(folder: Path, depth: int = 6) -> tuple[Path, ResNetEncoder]:
    torch.manual_seed(1)
    source = resnet(depth=depth).eval()
    state = source.state_dict() | {"fc.weight": torch.ones(5, source.dim), "fc.bias": torch.ones(5)}
    path = folder / "weights.pth"
    torch.save(state, path)
    return path, source


class Payload:
    """Something a weights file has no business holding."""


@pytest.mark.parametrize("depth", RESNETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet_shape_and_gradient(depth: int, channels: int) -> None:
    torch.manual_seed(0)
    encoder = resnet(depth=depth, in_channels=channels)
    out = encoder(torch.randn(3, channels, 32, 40))
    assert out.shape == (3, encoder.dim) == (3, RESNETS[depth][0])
    assert_gradient_everywhere(encoder, out)


@pytest.mark.parametrize("depth", RESNETS)
def test_depth_counts_weighted_layers(depth: int) -> None:
    main_path = [
        name
        for name, module in resnet(depth=depth).named_modules()
        if isinstance(module, nn.Conv2d) and "downsample" not in name
    ]
    assert len(main_path) == RESNETS[depth][1] == depth - 1  # + the linear classifier


@pytest.mark.parametrize("depth, blocks", [(6, [1, 1]), (10, [1, 1, 1, 1]), (18, [2, 2, 2, 2])])
@pytest.mark.parametrize("channels", [1, 3])
def test_basic_resnet_sizes(depth: int, blocks: list[int], channels: int) -> None:
    assert count(resnet(depth=depth, in_channels=channels)) == basic_resnet_size(blocks, channels)


@pytest.mark.parametrize("depth, blocks, dim", [(10, [2, 2], 128), (6, [2], 64), (10, [1, 3], 128)])
def test_other_layouts_of_a_depth(depth: int, blocks: list[int], dim: int) -> None:
    encoder = resnet(depth, 1, blocks=blocks)
    assert count(encoder) == basic_resnet_size(blocks, 1)
    assert encoder(torch.zeros(2, 1, 28, 28)).shape == (2, dim)
    assert encoder.dim == dim


@pytest.mark.parametrize("blocks", [[1, 1], [2, 2, 2], [4, 0], [1, 1, 1, 1, 0]])
def test_blocks_that_do_not_make_the_depth_are_refused(blocks: list[int]) -> None:
    with pytest.raises(UserError, match="blocks="):
        resnet(10, blocks=blocks)


def test_published_sizes() -> None:
    # torchvision documents 11,689,512 and 25,557,032 parameters, with 1,000-way classifiers.
    assert count(resnet(depth=18)) == 11_689_512 - 512 * 1000 - 1000
    assert count(resnet(depth=50)) == 25_557_032 - 2048 * 1000 - 1000


def test_small_images_survive_the_strides() -> None:
    assert resnet(depth=10, in_channels=1).eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 512)


@pytest.mark.parametrize("depth", [0, 7, 34])
def test_unknown_depth_is_named(depth: int) -> None:
    with pytest.raises(UserError, match=f"depth {depth}.*6, 10, 18, 50"):
        resnet(depth=depth)


def test_no_channels() -> None:
    with pytest.raises(UserError, match="channel"):
        resnet(depth=6, in_channels=0)


def test_weights_are_loaded_and_the_classifier_ignored(tmp_path: Path) -> None:
    path, source = saved_resnet(tmp_path)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(resnet(6, weights=str(path)).eval()(x), source(x), rtol=0, atol=0)


def test_colour_weights_see_a_grey_image_as_its_grey_copy(tmp_path: Path) -> None:
    path, source = saved_resnet(tmp_path)
    grey = torch.randn(2, 1, 32, 32)
    encoder = resnet(6, in_channels=1, weights=str(path)).eval()
    torch.testing.assert_close(encoder(grey), source(grey.expand(-1, 3, -1, -1)))


def test_weights_of_another_layout_are_refused(tmp_path: Path) -> None:
    path, _ = saved_resnet(tmp_path)
    with pytest.raises(UserError, match="ResNet-10"):
        resnet(10, weights=str(path))
    with pytest.raises(UserError, match="2 input channels"):
        resnet(6, in_channels=2, weights=str(path))


@pytest.mark.parametrize("content", ["missing", "text", "object", "list", "nested", "cut"])
def test_unusable_weight_files_are_user_errors(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.pth"
    if content == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif content == "cut":
        torch.save({"conv1.weight": torch.zeros(100, 100)}, path)
        path.write_bytes(path.read_bytes()[:500])
    elif content != "missing":
        objects: dict[str, Any] = {"object": Payload(), "list": [1], "nested": {"state": {}}}
        torch.save(objects[content], path)
    with pytest.raises(UserError, match=r"w\.pth"):
        resnet(6, weights=str(path))


def test_importing_the_small_and_text_encoders_loads_no_heavy_package() -> None:
    code = (
        "import sys, miles_repro.encoders.text, miles_repro.encoders.small;"
        "sys.exit(any(m in sys.modules for m in ('torchvision', 'transformers', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
