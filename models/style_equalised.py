"""Layers with an equalised learning rate as StyleGAN2 has them: a rate, a gain on the result, filtered halving (Karras et al. 2020).

Weights are drawn from N(0, 1) and scaled at run time by 1 / sqrt(inputs), so that one step of Adam moves every layer by the same
share of its range.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.convolution import convolve, convolve_down, pointwise
from models.equalised import RELU_GAIN, with_minibatch_deviation
from models.fir import taps_of

SLOPE = 0.2
GAIN = RELU_GAIN


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU of a slope of .2. A gain belongs into what comes before it, which saves a pass."""
    return F.leaky_relu(x, SLOPE)


def unit_norm(x: Tensor) -> Tensor:
    """(n, values) scaled to a mean square of 1 for each row."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class EqualLinear(nn.Module):
    """(n, inputs) to (n, outputs).

    Args:
        rate: factor of the learning rate, built into the layer: weights are drawn 1 / rate times as large.
        bias: its initial value.
        gain: of the result, e.g. that of the leaky ReLU that follows.
    """

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0, gain: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(outputs, inputs), 0.0, 1.0 / rate))
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.on_weight, self.on_bias = gain * rate / math.sqrt(inputs), gain * rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.on_weight, self.bias * self.on_bias)


class EqualConv2d(nn.Module):
    """A convolution with a kernel of 1 or 3: (n, inputs, h, w) to (n, outputs, h, w), or half as high and wide.

    Args:
        halves: filters, and keeps every second pixel; with a kernel of 3.
        gain: of the result.
    """

    kernel: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: Literal[1, 3],
        *,
        halves: bool = False,
        bias: bool = True,
        gain: float = 1.0,
    ):
        super().__init__()
        assert size == 3 or not halves, "a 1x1 convolution does not halve"
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(outputs, inputs, size, size)))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.size, self.halves, self.gain, self.on_weight = size, halves, gain, gain / math.sqrt(inputs * size**2)
        if halves:
            self.register_buffer("kernel", taps_of(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.size == 1:
            y = pointwise(x, self.weight)
        else:
            y = convolve_down(x, self.weight, self.kernel) if self.halves else convolve(x, self.weight)
        # The gain on the result, with the bias in one pass; scaling the weight would be one more.
        if self.bias is None:
            return y * self.on_weight
        return torch.add((self.bias * self.gain)[:, None, None].to(y.dtype), y, alpha=self.on_weight)


class MinibatchDeviation(nn.Module):
    """Appends one channel, see `with_minibatch_deviation`: (n, c, h, w) to (n, c + 1, h, w)."""

    def __init__(self, group: int = 4):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        return with_minibatch_deviation(x, self.group)
