"""Convolutions whose input channels are scaled by a style, and whose outputs are brought back to unit variance (StyleGAN2).

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), section 2.2: the weight of each image is
w'[o, i] = s[i] w[o, i], divided by its norm over inputs and taps. Here not the weights are scaled but what goes in and comes out:

    y[o] = d[o] * conv(s * x, w)[o],    d[o] = 1 / sqrt(sum_i s[i]^2 sum_taps w[o, i]^2)

which is the same, with one weight for all images of a batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.convolution import convolve, convolve_up, pointwise
from models.fir import taps_of
from models.style_equalised import GAIN, EqualLinear, leaky


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """d (n, outputs) of a weight (outputs, inputs, k, k) and styles (n, inputs), in single precision at least."""
    with torch.autocast(weight.device.type, enabled=False):
        power = weight.square().sum((2, 3))
        return (style.to(weight.dtype).square() @ power.t() + 1e-8).rsqrt()


class StyledConv2d(nn.Module):
    """A modulated 3x3 convolution, noise, bias and leaky ReLU: (n, inputs, h, w) to (n, outputs, h, w).

    Args:
        codes: values of a code w.
        doubles: height and width, before the convolution.
    """

    kernel: Tensor

    def __init__(self, inputs: int, outputs: int, codes: int, *, doubles: bool, noise: bool):
        super().__init__()
        self.style = EqualLinear(codes, inputs, bias=1.0)
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(outputs, inputs, 3, 3)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.strength = nn.Parameter(torch.zeros(())) if noise else None
        self.doubles, self.on_style = doubles, 1 / math.sqrt(9 * inputs)
        if doubles:
            self.register_buffer("kernel", taps_of(), persistent=False)

    def forward(self, x: Tensor, code: Tensor, noise: Tensor | None) -> Tensor:
        """Args: code (n, codes); noise (n or 1, 1, height, width) of the result, or None."""
        style = self.style(code) * self.on_style
        x = x * style[:, :, None, None]
        x = convolve_up(x, self.weight, self.kernel) if self.doubles else convolve(x, self.weight)
        # Leaky ReLU passes a gain on, so the scales before it bear it.
        scale = (demodulation(self.weight, style) * GAIN).to(x.dtype)
        x = torch.addcmul((self.bias * GAIN).to(x.dtype)[:, None, None], x, scale[:, :, None, None])
        if self.strength is not None and noise is not None:
            x = x + noise * (self.strength * GAIN)
        return leaky(x)


class ToImage(nn.Module):
    """A modulated 1x1 convolution, not demodulated: (n, inputs, h, w) to (n, channels, h, w)."""

    def __init__(self, inputs: int, channels: int, codes: int):
        super().__init__()
        self.style = EqualLinear(codes, inputs, bias=1.0)
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(channels, inputs, 1, 1)))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.on_style = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        style = self.style(code) * self.on_style
        return pointwise(x * style[:, :, None, None], self.weight) + self.bias[:, None, None]
