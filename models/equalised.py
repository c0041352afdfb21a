"""Layers with an equalised learning rate (Karras et al. 2018), and the standard deviation over a minibatch.

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
from models.fir import taps_of

SLOPE = 0.2
# Of leaky ReLU: keeps the variance of what passes through it.
GAIN = math.sqrt(2)


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
    """Appends one channel: by how much the images of a group differ, as a mean over all features.

    (n, c, h, w) to (n, c + 1, h, w). Groups are neighbours in the batch, as equal as can be and of at most `group` images; an
    image alone differs by 0.
    """

    def __init__(self, group: int = 4):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        groups = x.to(torch.promote_types(x.dtype, torch.float32)).tensor_split(math.ceil(len(x) / self.group))
        deviations = [(one.var(0, unbiased=False) + 1e-8).sqrt().mean().expand(len(one)) for one in groups]
        channel = torch.cat(deviations).to(x.dtype)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return torch.cat([x, channel], dim=1)
