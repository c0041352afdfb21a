"""Adaptive augmentation: each transformation against a formula, derivatives, and how its probability moves."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from basics.image_shape import ImageShape
from models import ada
from models.ada import AdaptiveAugmentation, augment, resampled
from models.generative import GenerativeModel


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=4, channels=3, height=16, width=16, dtype=torch.float64):
    return torch.randn(n, channels, height, width, generator=stream(n), dtype=dtype)


def smooth(n=3, channels=1, height=40, width=48):
    """Waves so long that resampling keeps them."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    waves = [torch.cos(2 * math.pi * (y + k / 3)) * torch.sin(2 * math.pi * (x + k / 5)) for k in range(n * channels)]
    return torch.stack(waves).view(n, channels, height, width).double()


# -- what is done to images ----------------------------------------------------------------------------------------


def test_without_probability_nothing_changes():
    x = images()
    assert augment(x, 0.0, stream(), colour=True) is x


def test_with_a_small_one_most_images_stay_as_they_are_to_the_bit():
    x = images(400, 1, 8, 8)
    same = (augment(x, 0.02, stream(), colour=True) == x).flatten(1).all(1)
    # bg has 3 + 6 chances of p, of which mirror and turn do nothing in 1/2 and 1/4; colour has 3.
    assert 0.6 < same.float().mean() < 0.95


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (20, 16)])
@pytest.mark.parametrize("colour", [False, True])
def test_any_shape(channels, size, colour):
    x = images(5, channels, *size, dtype=torch.float32)
    found = augment(x, 1.0, stream(), colour=colour)
    assert found.shape == x.shape and found.isfinite().all() and not torch.equal(found, x)
    assert torch.equal(found, augment(x, 1.0, stream(), colour=colour))
    half = augment(x.bfloat16(), 1.0, stream(), colour=colour)
    assert half.dtype == torch.float32


def test_an_empty_batch():
    assert augment(images(0), 1.0, stream(), colour=True).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("size", [(12, 12), (12, 20)])
def test_blitting_moves_pixels_and_invents_none(size):
    x = torch.arange(size[0] * size[1], dtype=torch.float32).view(1, 1, *size).expand(200, -1, -1, -1)
    found = ada._blitted(x, ada._Draws(x, 1.0, stream()))
    neighbours = {1, -1, size[1], -size[1]}
    seen = set()
    for image in found[:, 0]:
        # Away from the border, neighbours in the result were neighbours in the image: no pixel was lost between.
        middle = image[4:8, 4:8]
        steps = {int(v) for v in (middle[:, 1:] - middle[:, :-1]).flatten()}
        assert len(steps) == 1 and steps <= neighbours
        seen |= steps
    square = size[0] == size[1]
    assert seen == (neighbours if square else {1, -1}), "only squares are turned by a quarter"


def test_the_parts_of_blitting_alone(monkeypatch):
    """A draw of one value each: mirror, three quarter turns, and a shift of two pixels down and one to the left."""
    x = images(1, 2, 16, 16)

    class Fixed(ada._Draws):
        def __init__(self, *values):
            self.values, self.n, self.p, self.rng = list(values), 1, 1.0, stream()

        def uniform(self, low, high):
            return torch.zeros(1)

        def kept(self, value, neutral, probability=None):
            return torch.full((1,), float(self.values.pop(0)))

    torch.testing.assert_close(ada._blitted(x, Fixed(1, 0, 0, 0)), x.flip(3))
    for turns in range(4):
        torch.testing.assert_close(ada._blitted(x, Fixed(0, turns, 0, 0)), torch.rot90(x, turns, (2, 3)))
    shifted = ada._blitted(x, Fixed(0, 0, 2, -1))
    torch.testing.assert_close(shifted[:, :, 2:, :-1], x[:, :, :-2, 1:])
    torch.testing.assert_close(shifted[:, :, 0], shifted[:, :, 4])  # reflected at the first row of the image
    torch.testing.assert_close(shifted[:, :, :, -1], shifted[:, :, :, -3])


def test_the_filter_is_orthonormal_to_its_even_shifts():
    taps = torch.tensor(ada._SYM6, dtype=torch.float64)
    assert taps.sum().item() == pytest.approx(math.sqrt(2))
    for shift in range(0, 12, 2):
        assert (taps[shift:] @ taps[: 12 - shift]).item() == pytest.approx(float(shift == 0), abs=1e-9)


def still(n):
    return torch.eye(2).expand(n, -1, -1), torch.zeros(n, 2)


def test_resampling_without_motion_leaves_an_image_as_it_was():
    for x in (images(2, 3, 16, 20), smooth()):
        found = resampled(x, *still(len(x)))
        torch.testing.assert_close(found[:, :, 4:-4, 4:-4], x[:, :, 4:-4, 4:-4], rtol=0, atol=1e-6)


def test_resampling_a_constant_gives_it_everywhere():
    x = torch.full((3, 1, 16, 20), 0.7, dtype=torch.float64)
    matrix = torch.stack(
        [torch.tensor(m) for m in ([[1.3, 0.2], [0.1, 0.8]], [[0.0, -1], [1, 0]], [[2.0, 0], [0, 0.5]])]
    )
    torch.testing.assert_close(resampled(x, matrix, torch.full((3, 2), 0.3)), x, rtol=0, atol=1e-6)


def moved_by(image, source):
    """Values of the smooth image at places (y, x) in pixels, from its formula."""
    height, width = image.shape[2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    yy, xx = source(y - height / 2, x - width / 2)
    yy, xx = (yy + height / 2 - 0.5) / height, (xx + width / 2 - 0.5) / width
    return torch.cos(2 * math.pi * yy) * torch.sin(2 * math.pi * xx)


@pytest.mark.parametrize(
    ("matrix", "shift", "source"),
    [
        ([[1.0, 0], [0, 1]], (0.1, 0.0), lambda y, x: (y, x - 4.8)),
        ([[1.0, 0], [0, 1]], (0.0, 0.05), lambda y, x: (y - 2.0, x)),
        ([[1.25, 0], [0, 0.8]], (0.0, 0.0), lambda y, x: (y / 0.8, x / 1.25)),
        ([[0.0, -1], [1, 0]], (0.0, 0.0), lambda y, x: (-x, y)),
    ],
)
def test_resampling_moves_as_its_matrix_says(matrix, shift, source):
    x = smooth(1)
    found = resampled(x, torch.tensor([matrix]), torch.tensor([shift]))[0, 0]
    expected = moved_by(x, source)
    # Where the source lies inside of the image.
    inside = resampled(torch.ones_like(x), torch.tensor([matrix]), torch.tensor([shift]))[0, 0] > 0.5
    inside[:14] = inside[-14:] = False
    inside[:, :14] = inside[:, -14:] = False
    assert inside.sum() > 100
    assert (found - expected)[inside].abs().max() < 0.02


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_is_one_affine_map_of_the_channels_for_each_image(channels):
    x = images(50, channels, 4, 4)
    found = ada._coloured(x, ada._Draws(x, 1.0, stream()))
    for one, other in zip(x, found, strict=True):
        design = torch.cat([one.flatten(1), torch.ones(1, 16, dtype=one.dtype)]).t()
        rest = other.flatten(1).t() - design @ torch.linalg.lstsq(design, other.flatten(1).t()).solution
        assert rest.abs().max() < 1e-6


def test_hue_and_saturation_leave_grey_alone(monkeypatch):
    grey = images(30, 1, 4, 4).expand(-1, 3, -1, -1).contiguous()
    for name in ("_BRIGHTNESS", "_CONTRAST"):
        monkeypatch.setattr(ada, name, 0.0)
    found = ada._coloured(grey, ada._Draws(grey, 1.0, stream()))
    inverted = (found[:, 0, 0, 0] * grey[:, 0, 0, 0]) < 0
    assert 5 < inverted.sum() < 25, "brightness is inverted half of the time"
    expected = torch.where(inverted[:, None, None, None], -grey, grey)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_hue_is_a_rotation():
    x = images(30, 3, 4, 4)

    class OnlyHue(ada._Draws):
        turn = 0

        def kept(self, value, neutral, probability=None):
            self.turn += 1
            return super().kept(value, neutral, 1.0 if self.turn == 4 else 0.0)

    found = ada._coloured(x, OnlyHue(x, 1.0, stream()))
    torch.testing.assert_close(found.square().sum(1), x.square().sum(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.sum(1), x.sum(1), atol=1e-5, rtol=0)
    assert (found - x).abs().max() > 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_derivatives(channels):
    x = images(2, channels, 6, 6).requires_grad_()

    def changed(x):
        return augment(x, 1.0, stream(3), colour=True).square()

    assert gradcheck(changed, x, fast_mode=True) and gradgradcheck(changed, x, fast_mode=True)


# -- its probability -----------------------------------------------------------------------------------------------


class Holder(GenerativeModel):
    def __init__(self):
        super().__init__({}, ImageShape(1, 32, 32), None)

    def phases(self):
        return []

    def draw(self, *_):
        raise NotImplementedError


def adaptive(target=0.6, kimg=1.0, pipe="bg"):
    holder = Holder()
    return holder, AdaptiveAugmentation(holder, pipe, target, kimg)


def run(ada_, holder, steps, batch, sign_of):
    """Probabilities after steps in which each image's score is positive or negative by `sign_of(probability)`."""
    path = []
    for step in range(1, steps + 1):
        ada_.see(sign_of(float(holder.augment_probability), batch))
        ada_.adapt(step)
        path.append(float(holder.augment_probability))
    return path


def test_it_goes_from_0_to_1_in_so_many_images_and_no_further():
    holder, one = adaptive(kimg=0.8)
    path = run(one, holder, 120, 8, lambda p, n: torch.ones(n))
    assert path[:3] == [0, 0, 0] and path[3] == pytest.approx(32 / 800)
    assert path[98] < 0.97 and path[99] == pytest.approx(1) == path[-1]
    back = run(one, holder, 120, 8, lambda p, n: -torch.ones(n))
    assert back[99] == pytest.approx(0, abs=1e-5) and back[-1] == 0


def test_it_stands_still_at_the_target():
    holder, one = adaptive(target=0.5)
    holder.augment_probability.fill_(0.3)
    path = run(one, holder, 20, 8, lambda p, n: torch.tensor([1.0] * 6 + [-1.0] * 2))
    assert path == [pytest.approx(0.3)] * 20


def test_expected_overshoot():
    """A discriminator whose mean sign falls with p: p rises straight to where it meets the target, passes it by less than one
    adaptation, and stays within that."""
    holder, one = adaptive(target=0.6, kimg=2.0)
    move = 4 * 50 / 2000

    def signs(p, n):
        positive = round(n * (1 - 0.7 * p))  # mean sign 1 - 1.4 p: .6 at p = .2857
        return torch.cat([torch.ones(positive), -torch.ones(n - positive)])

    path = run(one, holder, 200, 50, signs)
    arrival = next(step for step, p in enumerate(path, 1) if p > 0.2857)
    assert arrival == 4 * math.ceil(0.2857 / move)
    assert max(path) - 0.2857 <= move and min(path[arrival:]) >= 0.2857 - move - 0.01


def test_batches_of_any_size_count_by_their_images():
    holder, one = adaptive(kimg=1.0)
    for step, size in enumerate((1, 0, 9, 4), 1):
        one.see(torch.ones(size))
        one.adapt(step)
    assert float(holder.augment_probability) == pytest.approx(14 / 1000)
    one.adapt(8)  # nothing was seen since
    assert float(holder.augment_probability) == pytest.approx(14 / 1000)


def test_without_a_pipe_nothing_is_held():
    holder, one = adaptive(pipe="none")
    x = images()
    one.see(torch.ones(3))
    one.adapt(4)
    assert one(x, stream()) is x and not holder.held
    assert adaptive()[0].held == {"augment_probability": "local", "augment_signs": "local"}
