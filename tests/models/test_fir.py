"""The low-pass filter: what it keeps, and that doubling and halving are each other's transpose."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from models import fir

KERNEL = fir.taps_of(torch.float64)


def inner(x, edge=2):
    return x[:, :, edge:-edge, edge:-edge]


def test_the_filter():
    assert KERNEL.sum() == pytest.approx(1) and torch.equal(KERNEL, KERNEL.flip(0, 1))
    assert KERNEL[0].tolist() == [1 / 64, 3 / 64, 3 / 64, 1 / 64]


def test_a_constant_stays_where_no_border_is_near():
    x = torch.full((2, 3, 10, 12), 1.7, dtype=torch.float64)
    doubled = fir.up(x, KERNEL)
    assert doubled.shape == (2, 3, 20, 24)
    torch.testing.assert_close(inner(doubled), inner(torch.full_like(doubled, 1.7)))
    back = fir.down(doubled, KERNEL)
    assert back.shape == x.shape
    torch.testing.assert_close(inner(back), inner(x))


def test_a_pixel_is_doubled_about_its_centre():
    """Nearest copies would have their weight at 8.5, too: no shift by half a pixel."""
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[0, 0, 4, 4] = 1
    doubled = fir.up(x, KERNEL)[0, 0]
    assert doubled.sum() == pytest.approx(4)
    assert (doubled.sum(0) * torch.arange(18)).sum() / 4 == pytest.approx(8.5)


def test_halving_is_a_quarter_of_the_transpose_of_doubling():
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 2, 10, 12, dtype=torch.float64)
    (transpose,) = torch.autograd.grad(fir.up(x, KERNEL), x, y)
    torch.testing.assert_close(transpose / 4, fir.down(y, KERNEL))


@pytest.mark.parametrize("which", [fir.up, fir.down, lambda x, k: fir.blur(x, k, 2)])
def test_derivatives(which):
    x = torch.randn(1, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: which(x, KERNEL).square(), x) and gradgradcheck(lambda x: which(x, KERNEL).square(), x)
