"""Modulated convolutions against the formulation of the paper: a weight of its own for every image."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from models import fir
from models.convolution import convolve, convolve_up
from models.style_layers import StyledConv2d, ToImage, demodulation


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def per_image(x, weight, style, doubles, kernel):
    """Grouped convolution with weights (n outputs, inputs, 3, 3), each normalised."""
    n, c, h, w = x.shape
    weights = weight[None] * style[:, None, :, None, None]
    weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    if doubles:
        sparse = x.new_zeros(n, c, 2 * h, 2 * w)
        sparse[:, :, ::2, ::2] = x
        x = F.conv2d(F.pad(sparse, (3, 2, 3, 2)), 4 * kernel.expand(c, 1, 4, 4), groups=c)
    else:
        x = F.pad(x, (1, 1, 1, 1))
    y = F.conv2d(x.reshape(1, n * c, *x.shape[2:]), weights.flatten(0, 1), groups=n)
    return y.view(n, len(weight), *y.shape[2:])


@pytest.mark.parametrize("doubles", [False, True])
@pytest.mark.parametrize("size", [(5, 4), (16, 16)])
def test_it_is_a_convolution_with_weights_of_each_image(doubles, size):
    layer = StyledConv2d(6, 7, 8, doubles=doubles, noise=True).double()
    with torch.no_grad():
        layer.bias.normal_()
        layer.strength.fill_(0.7)
    x, code = torch.randn(3, 6, *size).double(), torch.randn(3, 8).double()
    noise = torch.randn(3, 1, *(side * (2 if doubles else 1) for side in size)).double()
    style = layer.style(code) / math.sqrt(54)
    y = per_image(x, layer.weight, style, doubles, fir.taps_of(torch.float64))
    expected = math.sqrt(2) * F.leaky_relu(y + 0.7 * noise + layer.bias[:, None, None], 0.2)
    torch.testing.assert_close(layer(x, code, noise), expected, rtol=1e-6, atol=1e-6)


def test_a_style_of_any_size_gives_unit_variance():
    layer = StyledConv2d(64, 32, 8, doubles=False, noise=False)
    x = torch.randn(4, 64, 16, 16)
    for size in (0.01, 1, 100):
        style = torch.randn(4, 64).abs() * size
        y = F.conv2d(x * style[:, :, None, None], layer.weight)
        assert (y * demodulation(layer.weight, style)[:, :, None, None]).std().item() == pytest.approx(1, abs=0.05)


def test_the_image_layer_keeps_the_size_of_its_style():
    layer = ToImage(6, 3, 8).double()
    x, code = torch.randn(2, 6, 4, 5).double(), torch.randn(2, 8).double()
    style = layer.style(code) / math.sqrt(6)
    expected = torch.einsum("nihw,oi,ni->nohw", x, layer.weight[:, :, 0, 0], style)
    torch.testing.assert_close(layer(x, code), expected)


@pytest.mark.parametrize("doubles", [False, True])
def test_derivatives(doubles):
    layer = StyledConv2d(2, 3, 4, doubles=doubles, noise=False).double()
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    code = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def run(x, code, weight):
        # Softened, as a leaky ReLU has a corner.
        style = layer.style(code)
        y = per(x * style[:, :, None, None], weight) * demodulation(weight, style)[:, :, None, None]
        return y.tanh()

    def per(x, weight):
        return convolve_up(x, weight, layer.kernel) if doubles else convolve(x, weight)

    inputs = (x, code, layer.weight.detach().requires_grad_())
    assert gradcheck(run, inputs, fast_mode=True) and gradgradcheck(run, inputs, fast_mode=True)
