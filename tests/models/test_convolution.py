"""Convolutions by matrix products against torch's own, and derivatives of every order against numeric ones."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from models import convolution, fir
from models.convolution import convolve, convolve_down, convolve_up, pointwise

SIZES = [(4, 4), (5, 4), (8, 8), (16, 16), (18, 21), (32, 20)]


def normal(*shape, dtype=torch.float64):
    stream = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=stream, dtype=dtype).requires_grad_()


def inserted_up(x, weight, kernel):
    """Zeros between pixels, the filter over all that it reaches, and a convolution without a border."""
    n, c, h, w = x.shape
    sparse = x.new_zeros(n, c, 2 * h, 2 * w)
    sparse[:, :, ::2, ::2] = x
    wide = F.conv2d(F.pad(sparse, (3, 2, 3, 2)), 4 * kernel.to(x).expand(c, 1, 4, 4), groups=c)
    return F.conv2d(wide, weight)


def filtered_down(x, weight, kernel):
    c = x.shape[1]
    wide = F.conv2d(F.pad(x, (2, 2, 2, 2)), kernel.to(x).expand(c, 1, 4, 4), groups=c)
    return F.conv2d(wide, weight)[:, :, ::2, ::2]


CASES = {
    "same": (convolve, lambda x, w: F.conv2d(x, w, padding=1)),
    "up": (lambda x, w: convolve_up(x, w, fir.taps_of()), lambda x, w: inserted_up(x, w, fir.taps_of())),
    "down": (lambda x, w: convolve_down(x, w, fir.taps_of()), lambda x, w: filtered_down(x, w, fir.taps_of())),
}


def cases():
    return [(name, size) for name in CASES for size in SIZES if name != "down" or not any(side % 2 for side in size)]


@pytest.mark.parametrize(("name", "size"), cases())
@pytest.mark.parametrize("last", [False, True])
def test_values_and_gradients_are_those_of_torch(name, size, last):
    ours, theirs = CASES[name]
    x, weight = normal(3, 4, *size), normal(5, 4, 3, 3)
    given = x.contiguous(memory_format=torch.channels_last) if last else x
    found, expected = ours(given, weight), theirs(x, weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    g = normal(*expected.shape)
    for one, other in zip(
        torch.autograd.grad(found, (x, weight), g), torch.autograd.grad(expected, (x, weight), g), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("channels", [3, 160])
def test_transforms_by_blocks_and_at_once(channels):
    """Of weights in any order in memory, smaller and larger than a block; frozen weights, as in a generator's step, too."""
    x = normal(2, channels, 16, 16)
    weight = normal(channels, channels, 3, 3).detach().contiguous(memory_format=torch.channels_last)
    for given in (weight, weight.contiguous()):
        found, expected = convolve(x, given), F.conv2d(x, given, padding=1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        g = normal(*expected.shape)
        one, other = (torch.autograd.grad(y, x, g)[0] for y in (found, expected))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_single_precision_is_close_to_torch(name):
    """Winograd's fractions cost a digit: 1e-5 of the largest value."""
    ours, theirs = CASES[name]
    x, weight = (normal(*shape, dtype=torch.float32).detach() for shape in ((2, 64, 32, 32), (64, 64, 3, 3)))
    found, expected = ours(x, weight), theirs(x, weight)
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize(("name", "size"), [("same", (4, 5)), ("same", (17, 16)), ("up", (3, 4)), ("down", (4, 6))])
def test_first_and_second_derivatives_against_numeric_ones(name, size):
    inputs = normal(1, 2, *size), normal(2, 2, 3, 3)
    assert gradcheck(CASES[name][0], inputs, fast_mode=True)
    assert gradgradcheck(CASES[name][0], inputs, fast_mode=True)


def test_pointwise():
    x, weight = normal(3, 4, 5, 6), normal(2, 4, 1, 1)
    torch.testing.assert_close(pointwise(x, weight), F.conv2d(x, weight))
    assert gradgradcheck(pointwise, (x, weight), fast_mode=True)


def test_results_are_channels_last():
    x = normal(2, 8, 16, 16, dtype=torch.float32).detach().contiguous(memory_format=torch.channels_last)
    for ours, _ in CASES.values():
        assert ours(x, normal(4, 8, 3, 3, dtype=torch.float32)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", CASES)
def test_bf16_is_left_to_torch(name, monkeypatch):
    ours, theirs = CASES[name]
    x, weight = (normal(*shape, dtype=torch.float32).detach() for shape in ((2, 8, 16, 16), (4, 8, 3, 3)))
    for own in ("winograd", "_taps_product"):
        monkeypatch.setattr(convolution, own, None)
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(x, weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), theirs(x, weight), rtol=0.05, atol=0.2)


def test_transposes_are_transposes():
    """<A x, y> = <x, A' y>, for each operator that brings its own."""
    image = normal(2, 9, 11, 3).detach()
    pairs = [
        ((lambda x, s=step: convolution._taps(x, s)), (lambda t, s=step: convolution._spread(t, s))) for step in (1, 2)
    ]
    for operator, adjoint in pairs:
        forward = operator(image)
        y = normal(*forward.shape).detach()
        torch.testing.assert_close((forward * y).sum(), (image * adjoint(y)).sum())
