"""DiffAugment: what each operation does, that a pair is changed alike, and derivatives against numeric ones."""

from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from models.diff_augment import DiffAugment


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def nothing(n, size):
    """Draws nothing: what is cut out lies outside."""
    one = torch.ones(n)
    return DiffAugment(0 * one, one, one, torch.zeros(n, 2, dtype=torch.long), torch.full((n, 2), 999), size)


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def images(request):
    return torch.randn(4, request.param, 8, 6, generator=stream(1))


def test_nothing_drawn_changes_nothing(images):
    torch.testing.assert_close(nothing(4, (8, 6))(images), images)


def test_colour_of_each_image(images):
    values = torch.tensor([0.1, -0.3, 0.5, 0.0])
    brighter = replace(nothing(4, (8, 6)), brightness=values)(images)
    torch.testing.assert_close(brighter - images, values[:, None, None, None].expand(images.shape))
    factor = torch.tensor([0.5, 1.5, 0.7, 1.0])
    contrast = replace(nothing(4, (8, 6)), contrast=factor)(images)
    torch.testing.assert_close(contrast.mean((1, 2, 3)), images.mean((1, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(contrast.std((1, 2, 3)), factor * images.std((1, 2, 3)))
    grey = replace(nothing(4, (8, 6)), saturation=torch.zeros(4))(images)
    torch.testing.assert_close(grey, images.mean(1, keepdim=True).expand(images.shape))


def test_images_are_moved_and_zeros_come_in(images):
    shift = torch.tensor([[1, 0], [0, -2], [3, 2], [0, 0]])
    moved = replace(nothing(4, (8, 6)), shift=shift)(images)
    for one, image, (down, right) in zip(moved, images, shift.tolist(), strict=True):
        for row in range(8):
            for column in range(6):
                inside = 0 <= row - down < 8 and 0 <= column - right < 6
                expected = image[:, row - down, column - right] if inside else torch.zeros(len(image))
                torch.testing.assert_close(one[:, row, column], expected)


def test_half_of_each_side_is_cut_out(images):
    cut = torch.tensor([[0, 0], [2, 1], [6, 4], [-2, -1]])
    left = replace(nothing(4, (8, 6)), cut=cut)(images)
    for one, image, (row, column) in zip(left, images, cut.tolist(), strict=True):
        expected = image.clone()
        expected[:, max(0, row) : max(0, row + 4), max(0, column) : max(0, column + 3)] = 0
        torch.testing.assert_close(one, expected)


def test_what_is_drawn_has_the_paper_s_ranges():
    drawn = DiffAugment.drawn(4000, (32, 16), stream())
    for values, low, high in ((drawn.brightness, -0.5, 0.5), (drawn.saturation, 0, 2), (drawn.contrast, 0.5, 1.5)):
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
    assert [sorted(set(axis.tolist())) for axis in drawn.shift.T] == [list(range(-4, 5)), list(range(-2, 3))]
    # The middle is any place of the image; half of a hole may lie outside.
    assert [(int(axis.min()), int(axis.max())) for axis in drawn.cut.T] == [(-8, 24), (-4, 12)]
    kept = drawn(torch.ones(4000, 1, 32, 16) * 9)  # what is cut out, or came in, is 0
    assert 0.05 < float((kept == 0).float().mean()) < 0.5


def test_a_pair_is_changed_alike_and_each_image_differently(images):
    drawn = DiffAugment.drawn(4, (8, 6), stream())
    assert torch.equal(drawn(images), drawn(images))
    assert torch.equal(drawn(images), DiffAugment.drawn(4, (8, 6), stream())(images))
    same = DiffAugment.drawn(4, (8, 6), stream())(images[:1].expand(4, -1, -1, -1))
    assert not any(torch.equal(same[0], other) for other in same[1:])


def test_first_and_second_derivatives():
    drawn = DiffAugment.drawn(2, (4, 6), stream(3))
    images = torch.randn(2, 2, 4, 6, dtype=torch.float64, generator=stream(4)).requires_grad_()
    assert gradcheck(drawn, images) and gradgradcheck(lambda x: drawn(x).square(), images)
