"""Layers of progressive GANs (Karras et al. 2018): equalised learning rate, pixel norm, minibatch standard deviation.

A layer's weights are drawn from N(0, 1) and multiplied by gain / sqrt(fan-in), He's initial scale, whenever they are used.
Adam's steps have one size for all weights whatever their scale, so every layer learns at the same relative speed.

Resampling is part of a convolution: nearest-neighbour doubling before a 3x3 kernel is one transposed convolution with a
4x4 kernel, and the mean over 2x2 after it one strided convolution, each with 16 multiplications in the place of 36. The
numbers are the same up to rounding, also next to the border of zeros.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, linear, pad

Resample = Literal["none", "up", "down"]
# Of layers that a leaky ReLU follows.
RELU_GAIN = math.sqrt(2)
_SMALLEST_NORM = 1e-8


class EqualisedLinear(nn.Module):
    """(n, inputs) to (n, outputs)."""

    def __init__(self, inputs: int, outputs: int, gain: float = RELU_GAIN):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs).normal_())
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.scale, self.bias)


class EqualisedConv2d(nn.Module):
    """(n, inputs, h, w) to (n, outputs, h, w), or sides twice or half as long; zeros beyond the border.

    Args:
        kernel: side of it, odd.
        resample: up: each value is doubled in both directions first; down: means over 2x2 are taken last. Of 3x3 kernels.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, gain: float = RELU_GAIN, resample: Resample = "none"
    ):
        super().__init__()
        assert kernel == 3 or resample == "none", "resampling widens a kernel of 3 to one of 4"
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel).normal_())
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs * kernel**2)
        self.padding, self.resample = kernel // 2, resample

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if self.resample == "none":
            return conv2d(x, weight, self.bias, padding=self.padding)
        if self.resample == "down":
            return conv2d(x, _widened(weight) / 4, self.bias, stride=2, padding=1)
        # A transposed convolution applies its kernel turned by 180 degrees, which has inputs before outputs.
        return conv_transpose2d(x, _widened(weight).flip(2, 3).transpose(0, 1), self.bias, stride=2, padding=1)


def _widened(weight: Tensor) -> Tensor:
    """3x3 kernels summed over the four places that one value of a doubled map has: 4x4."""
    w = pad(weight, (1, 1, 1, 1))
    return w[:, :, 1:, 1:] + w[:, :, 1:, :-1] + w[:, :, :-1, 1:] + w[:, :, :-1, :-1]


def pixel_norm(x: Tensor) -> Tensor:
    """Each position's channels (n, c, ...) divided by their root mean square, in float32."""
    with torch.autocast(x.device.type, enabled=False):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + _SMALLEST_NORM)).to(x.dtype)


def with_minibatch_deviation(x: Tensor, group: int, sets: int = 1) -> Tensor:
    """One more channel: standard deviation over a group of images, as a mean over channels and positions.

    Neighbours in the batch are a group. Where they do not divide into groups of that size, groups are smaller, and differ by one image
    at most. Karras et al. take every (n / group)-th image, and refuse batches that do not divide.

    Args:
        x: (n, c, h, w).
        group: most images of a group.
        sets: equal parts of the batch whose images have no group in common, such as 2 for real and fake images.

    Returns:
        (n, c + 1, h, w).
    """
    deviations = torch.cat([_deviations(part, group) for part in x.chunk(sets)]) if len(x) else x.new_zeros(0)
    channel = deviations.to(x.dtype)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel], dim=1)


def _deviations(x: Tensor, group: int) -> Tensor:
    """Of each image's group: (n, ...) to float32 (n,)."""
    groups = -(-len(x) // group)
    size, larger = divmod(len(x), groups)
    found, first = [], 0
    for count, images in ((larger, size + 1), (groups - larger, size)):
        if count:
            part = (
                x[first : first + count * images]
                .to(torch.promote_types(x.dtype, torch.float32))
                .unflatten(0, (count, images))
            )
            variance = (part - part.mean(dim=1, keepdim=True)).square().mean(dim=1)
            found.append((variance + _SMALLEST_NORM).sqrt().flatten(1).mean(dim=1).repeat_interleave(images))
            first += count * images
    return torch.cat(found)
