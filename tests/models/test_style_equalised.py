"""Equalised learning rates and the minibatch standard deviation, in closed form."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from models.style_equalised import GAIN, EqualConv2d, EqualLinear, MinibatchDeviation, leaky, unit_norm


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("inputs", [16, 512])
def test_outputs_have_unit_variance_whatever_the_inputs(inputs):
    x = torch.randn(2000, inputs)
    assert EqualLinear(inputs, 200)(x).std().item() == pytest.approx(1, abs=0.05)
    assert EqualLinear(inputs, 200, rate=0.01)(x).std().item() == pytest.approx(1, abs=0.05)
    image = torch.randn(4, inputs, 16, 16)
    inner = EqualConv2d(inputs, 64, 3)(image)[:, :, 1:-1, 1:-1]
    assert inner.std().item() == pytest.approx(1, abs=0.08)
    assert EqualConv2d(inputs, 64, 1, gain=2.0)(image).std().item() == pytest.approx(2, abs=0.15)


def test_the_gain_of_leaky_relu_keeps_the_mean_square():
    x = torch.randn(100_000)
    assert leaky(x * GAIN).square().mean().item() == pytest.approx((1 + 0.2**2), abs=0.02)


def test_one_step_of_adam_moves_every_layer_by_the_same_share():
    """The weight that acts moves by rate / sqrt(inputs) beside its own size of 1 / sqrt(inputs); a layer's rate is a factor."""
    for inputs, rate in ((10, 1.0), (1000, 1.0), (1000, 0.01)):
        layer = EqualLinear(inputs, 8, rate=rate)
        acting = layer.weight.detach() * layer.on_weight
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.003)
        layer(torch.ones(1, inputs)).sum().backward()
        optimizer.step()
        moved = (layer.weight.detach() * layer.on_weight - acting).abs().mean()
        assert moved * math.sqrt(inputs) == pytest.approx(0.003 * rate, rel=1e-3)
        assert acting.std() * math.sqrt(inputs) == pytest.approx(1, abs=0.15)


def test_a_layer_is_the_plain_one_with_scaled_weights():
    layer, x = EqualConv2d(6, 5, 3, gain=1.5), torch.randn(2, 6, 8, 8)
    with torch.no_grad():
        layer.bias.normal_()
    expected = 1.5 * F.conv2d(x, layer.weight / math.sqrt(54), layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    linear = EqualLinear(6, 5, rate=0.1, bias=1.0, gain=2.0)
    x = torch.randn(3, 6)
    torch.testing.assert_close(linear(x), 2 * F.linear(x, 0.1 * linear.weight / math.sqrt(6), torch.ones(5)))


def test_unit_norm():
    x = torch.randn(5, 7) * 30
    torch.testing.assert_close(unit_norm(x).square().mean(1), torch.ones(5))


# -- minibatch standard deviation ----------------------------------------------------------------------------------


def test_equal_images_differ_by_nothing_and_opposite_ones_by_their_size():
    same = torch.randn(1, 3, 4, 5).expand(4, -1, -1, -1)
    assert MinibatchDeviation()(same)[:, -1].abs().max() <= 1.001e-4  # the root of what keeps its slope finite
    x = torch.full((2, 3, 4, 5), 2.5)
    x[1] *= -1
    found = MinibatchDeviation()(x)
    assert found.shape == (2, 4, 4, 5) and torch.equal(found[:, :3], x)
    torch.testing.assert_close(found[:, 3], torch.full((2, 4, 5), 2.5))


def test_groups_are_neighbours_and_nearly_equal():
    x = torch.randn(10, 3, 4, 4)
    found = MinibatchDeviation(4)(x)[:, -1, 0, 0]
    groups = (x[:4], x[4:7], x[7:])
    expected = [g.std(0, unbiased=False).mean() for g in groups for _ in g]
    torch.testing.assert_close(found, torch.stack(expected))
    alone = MinibatchDeviation(4)(x[:1])
    assert alone.shape == (1, 4, 4, 4) and alone[0, -1].abs().max() <= 1.001e-4


def test_derivatives():
    x = torch.randn(4, 2, 2, 2, dtype=torch.float64, requires_grad=True)

    def deviation(x):
        return (x * 1.0 - MinibatchDeviation(2)(x)[:, -1:]).square()

    assert gradcheck(deviation, x, atol=1e-4) and gradgradcheck(deviation, x, atol=1e-4)
