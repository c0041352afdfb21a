"""Equalised layers against plain ones, closed forms, and derivatives against numeric ones."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from models.equalised import RELU_GAIN, EqualisedConv2d, EqualisedLinear, pixel_norm, with_minibatch_deviation


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: EqualisedLinear(300, 400), (2000, 300)),
        (lambda: EqualisedConv2d(30, 40), (4, 30, 20, 20)),
        (lambda: EqualisedConv2d(30, 40, 1), (4, 30, 20, 20)),
    ],
)
def test_weights_are_drawn_from_one_law_and_outputs_keep_he_s_variance(layer, shape):
    torch.manual_seed(0)
    built = layer()
    assert float(built.weight.detach().std()) == pytest.approx(1, abs=0.05) and not built.bias.any()
    out = built(random(*shape, seed=1, dtype=torch.float32))
    out = out[..., 1:-1, 1:-1] if out.dim() == 4 else out  # beyond the border there are zeros
    assert float(out.detach().var()) == pytest.approx(RELU_GAIN**2, rel=0.1)


def test_a_step_of_adam_moves_every_layer_by_the_same_share():
    """The point of it: weights have one scale, whatever the fan-in."""
    for inputs in (10, 1000):
        layer = EqualisedLinear(inputs, 200)
        start = layer.weight.detach().clone()
        optimizer = torch.optim.Adam(layer.parameters(), 0.01)
        layer(random(8, inputs, dtype=torch.float32)).square().sum().backward()
        optimizer.step()
        moved = float((layer.weight.detach() - start).norm() / start.norm())
        assert moved == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (2, 6)])
def test_resampling_within_a_convolution_is_resampling_beside_it(size):
    """To rounding, borders included."""
    up = EqualisedConv2d(3, 5, resample="up").double()
    down = EqualisedConv2d(3, 5, resample="down").double()
    for layer in (up, down):
        layer.bias.data.normal_()
    x, large = random(2, 3, *size), random(2, 3, 2 * size[0], 2 * size[1], seed=1)
    scale = math.sqrt(2 / 27)
    plain = conv2d(interpolate(x, scale_factor=2), up.weight * scale, up.bias, padding=1)
    torch.testing.assert_close(up(x), plain)
    plain = avg_pool2d(conv2d(large, down.weight * scale, down.bias, padding=1), 2)
    torch.testing.assert_close(down(large), plain)


@pytest.mark.parametrize("resample", ["none", "up", "down"])
def test_first_and_second_derivatives_of_convolutions(resample):
    layer = EqualisedConv2d(2, 2, resample=resample).double()
    x = random(1, 2, 4, 2).requires_grad_()

    def of(images, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (images,))

    inputs = (x, layer.weight, layer.bias)
    assert gradcheck(of, inputs) and gradgradcheck(of, inputs)


def test_pixel_norm_gives_each_position_the_mean_square_one():
    x = random(3, 8, 4, 5) * 10
    torch.testing.assert_close(pixel_norm(x.float()).square().mean(dim=1), torch.ones(3, 4, 5), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pixel_norm(3 * x.float()), pixel_norm(x.float()))
    assert not pixel_norm(torch.zeros(2, 8)).any()
    assert pixel_norm(torch.full((1, 4), 1e-4)).flatten()[0] == pytest.approx(1e-4 / math.sqrt(2e-8), rel=1e-4)


def test_derivatives_of_pixel_norm_and_deviation(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # stays float64
    norm, deviation = random(2, 3, 2).requires_grad_(), random(5, 2, 2, 1).requires_grad_()
    assert gradcheck(pixel_norm, norm) and gradgradcheck(pixel_norm, norm)
    of = lambda x: with_minibatch_deviation(x, 3)  # noqa: E731
    assert gradcheck(of, deviation) and gradgradcheck(of, deviation)


def test_the_deviation_of_a_group():
    x = random(8, 3, 2, 2, dtype=torch.float32)
    out = with_minibatch_deviation(x, 4)
    assert out.shape == (8, 4, 2, 2) and torch.equal(out[:, :3], x)
    for group in (slice(0, 4), slice(4, 8)):
        expected = x[group].std(dim=0, correction=0).mean()
        torch.testing.assert_close(out[group, 3], expected.expand(4, 2, 2), rtol=1e-4, atol=1e-5)
    assert with_minibatch_deviation(x[:1].expand(4, -1, -1, -1), 4)[:, 3].max() < 2e-4, "one image four times"


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (3, [3]), (5, [3, 2]), (6, [3, 3]), (7, [4, 3]), (9, [3, 3, 3])])
def test_groups_of_a_batch_that_does_not_divide_are_as_equal_as_can_be(n, sizes):
    x = random(n, 3, 2, 2, dtype=torch.float32)
    found = with_minibatch_deviation(x, 4)[:, 3, 0, 0]
    expected = torch.cat([part.std(dim=0, correction=0).mean().expand(len(part)) for part in x.split(sizes)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-4)


def test_sets_have_no_group_in_common():
    real, fake = random(6, 2, 2, 2, dtype=torch.float32), 9 + random(6, 2, 2, 2, seed=1, dtype=torch.float32)
    both = with_minibatch_deviation(torch.cat([real, fake]), 4, sets=2)
    alone = torch.cat([with_minibatch_deviation(real, 4), with_minibatch_deviation(fake, 4)])
    assert torch.equal(both, alone) and both[:, 2].max() < 2
