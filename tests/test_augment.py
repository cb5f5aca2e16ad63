"""Batched augmentation against the definition of a crop, and its random draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from miles_repro.data.augment import RandomResizedCropFlip, crop_resize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(*rows: tuple[int, int, int, int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


NO, YES = torch.tensor([False]), torch.tensor([True])


def test_the_whole_image_is_left_as_it_is() -> None:
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(crop_resize(x, boxes((0, 0, 16, 16)), NO, 16), x)


def test_mirroring_only() -> None:
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(crop_resize(x, boxes((0, 0, 16, 16)), YES, 16), x.flip(-1))


@pytest.mark.parametrize("box", [(0, 0, 8, 8), (3, 5, 7, 9), (8, 0, 8, 16), (15, 15, 1, 1)])
@pytest.mark.parametrize("mirror", [False, True])
def test_equals_cutting_then_stretching(box: tuple[int, int, int, int], mirror: bool) -> None:
    # of an image that is smooth across the crop's edge, or the edge rule would show
    x = torch.linspace(0, 1, 16).expand(1, 2, 16, 16) + torch.linspace(0, 3, 16)[:, None]
    top, left, h, w = box
    cut = F.interpolate(
        x[:, :, top : top + h, left : left + w], size=(12, 12), mode="bilinear", align_corners=False
    )
    cut = cut.flip(-1) if mirror else cut
    got = crop_resize(x, boxes(box), YES if mirror else NO, 12)
    edge = max(1, round(0.5 * 12 / min(h, w)))
    inner = slice(edge, 12 - edge)
    torch.testing.assert_close(got[..., inner, inner], cut[..., inner, inner], atol=1e-5, rtol=0)


def test_each_image_of_a_batch_gets_its_own_box() -> None:
    x = torch.rand(2, 1, 10, 10)
    both = crop_resize(x, boxes((0, 0, 5, 5), (4, 2, 6, 8)), torch.tensor([True, False]), 10)
    alone = [crop_resize(x[:1], boxes((0, 0, 5, 5)), YES, 10)]
    alone += [crop_resize(x[1:], boxes((4, 2, 6, 8)), NO, 10)]
    torch.testing.assert_close(both, torch.cat(alone))


def test_drawn_boxes_lie_inside() -> None:
    top, left, h, w = RandomResizedCropFlip(64).draw_boxes(4000, 96, 128, generator()).unbind(1)
    for low, length, side in ((top, h, 96), (left, w, 128)):
        assert (low >= 0).all()
        assert (low + length <= side).all()
        assert torch.equal(low, low.round())


@pytest.mark.parametrize("height, width", [(96, 128), (64, 64)])
def test_boxes_are_distributed_as_in_torchvision(height: int, width: int) -> None:
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    wanted = torch.tensor(
        [RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(4000)],
        dtype=torch.float32,
    )
    got = RandomResizedCropFlip(64).draw_boxes(4000, height, width, generator())
    for value in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0]):
        a, b = value(got), value(wanted)
        levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
        spread = b.std()
        assert ((a.quantile(levels) - b.quantile(levels)).abs() < 0.12 * spread).all()


def test_offsets_reach_every_place() -> None:
    crop = RandomResizedCropFlip(8, scale=(0.25, 0.25), ratio=(1, 1))
    top, left, h, w = crop.draw_boxes(3000, 8, 8, generator()).unbind(1)
    assert set(h.tolist()) == set(w.tolist()) == {4.0}
    for offset in (top, left):
        counts = torch.bincount(offset.long(), minlength=5)
        assert len(counts) == 5
        assert (counts > 500).all()  # 600 expected each


def test_what_never_fits_becomes_the_central_crop() -> None:
    # area 1 at aspect 2 never fits in a square
    box = RandomResizedCropFlip(8, scale=(1, 1), ratio=(2, 2)).draw_boxes(3, 8, 8, generator())
    assert box.tolist() == [[2, 0, 4, 8]] * 3
    box = RandomResizedCropFlip(8, scale=(1, 1), ratio=(0.5, 0.5)).draw_boxes(1, 8, 8, generator())
    assert box.tolist() == [[0, 2, 8, 4]]


def test_half_of_the_images_are_mirrored() -> None:
    x = torch.arange(4.0).expand(1000, 1, 4, 4)
    out = RandomResizedCropFlip(4, scale=(1, 1), ratio=(1, 1))(x, generator())
    mirrored = (out[:, 0, 0, 0] > out[:, 0, 0, 3]).float().mean()
    assert 0.45 < mirrored < 0.55


def test_the_generator_decides() -> None:
    augment = RandomResizedCropFlip(12)
    x = torch.rand(5, 3, 16, 16)
    first, again, other = (augment(x, generator(s)) for s in (1, 1, 2))
    assert first.shape == (5, 3, 12, 12)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    before = torch.get_rng_state()
    augment(x, generator())
    assert torch.equal(before, torch.get_rng_state())  # the global generator is left alone
