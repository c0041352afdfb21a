"""Traditional augmentation: range, reproducibility, what it may and may not change."""

import pytest
import torch

from models import augmentation
from models.augmentation import traditional


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_shape_range_and_stream(channels, memory_format):
    images = (torch.rand(8, channels, 32, 32, generator=stream(1)) * 2 - 1).contiguous(memory_format=memory_format)
    original = images.clone()
    out = traditional(images, stream())
    assert out.shape == images.shape and out.min() >= -1 and out.max() <= 1
    assert torch.equal(images, original)
    assert torch.equal(out, traditional(images, stream())) and not torch.equal(out, traditional(images, stream(5)))


@pytest.fixture
def only(monkeypatch):
    """Function: switch every kind off but the named ones."""

    def switch(**limits):
        for name in ("ROTATION_DEGREES", "SCALE", "SHIFT", "CONTRAST", "BRIGHTNESS", "COLOUR"):
            monkeypatch.setattr(augmentation, name, limits.get(name, 0.0))

    return switch


def test_without_limits_only_mirroring_is_left(only):
    only()
    image = torch.rand(1, 1, 8, 8, generator=stream())
    mirrored = {image, image.flip(3), image.flip(2), image.flip(2, 3)}
    seen = set()
    for out in traditional(image.repeat(64, 1, 1, 1), stream()):
        matches = [i for i, m in enumerate(mirrored) if torch.allclose(out, m[0], atol=1e-5)]
        assert len(matches) == 1
        seen |= set(matches)
    assert len(seen) == 4


def test_a_quarter_turn_is_a_rotation(only, monkeypatch):
    """An angle of +-90 degrees, when it is drawn exactly, turns and mirrors pixels without mixing them."""
    only(ROTATION_DEGREES=90.0)
    image = torch.rand(1, 1, 8, 8, generator=stream())
    monkeypatch.setattr(augmentation.torch, "rand", lambda *shape, generator: torch.ones(shape))
    out = traditional(image, stream())
    assert any(torch.allclose(out, torch.rot90(image, k, (2, 3)), atol=1e-4) for k in (1, 3))


def test_shift_stays_within_its_limit(only):
    only(SHIFT=0.25)
    image = torch.full((1, 1, 32, 32), -1.0)
    image[..., 15:17, 15:17] = 1.0
    out = traditional(image.repeat(200, 1, 1, 1), stream()) + 1
    centre = (out.sum(2) * torch.arange(32)).sum(-1) / out.sum((2, 3))
    assert (centre - 15.5).abs().max() <= 8.1 and (centre - 15.5).abs().max() > 6


def test_contrast_keeps_the_mean_and_brightness_moves_it(only):
    images = torch.rand(64, 1, 8, 8, generator=stream()) * 0.4 - 0.2
    only(CONTRAST=0.3)
    out = traditional(images, stream())
    torch.testing.assert_close(out.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-5, rtol=0)
    factor = out.std((1, 2, 3)) / images.std((1, 2, 3))
    assert 0.7 < factor.min() < 0.8 and 1.25 < factor.max() < 1.36
    only(BRIGHTNESS=0.2)
    moved = traditional(images, stream()).mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert moved.abs().max() <= 0.2001 and moved.std() > 0.08


def test_colour_changes_only_colour_images(only):
    only(COLOUR=0.1)
    grey = torch.zeros(8, 1, 4, 4)
    assert traditional(grey, stream()).abs().max() < 1e-6
    colour = traditional(torch.zeros(8, 3, 4, 4), stream())
    assert colour.std(1).max() > 0.01 and colour.abs().max() <= 0.1001
