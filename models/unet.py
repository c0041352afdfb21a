"""A small U-Net that predicts a velocity field: image, time and class in, an image-sized field out.

Made for few CPU minutes: it works on a pixel-unshuffled image (half the side, four times the channels), has one
residual block a level, and two with attention between them at the bottom. 1.7 M parameters at widths 64/96/128,
0.84 M at 32/64/96.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING = 128
_FREQUENCIES = 64
_GROUPS = 8


class UNet(nn.Module):
    """(x (n, channels, height, width), t (n,) in [0, 1], classes (n,) or None) -> (n, channels, height, width).

    `num_classes` is the index of "no class": it is what classifier-free guidance and an unconditional model use.

    Args:
        widths: channels at 1/2, 1/4, ... of the sides, which must be divisible by 2 ** len(widths).
        num_classes: None for an unconditional model.
    """

    frequencies: Tensor

    def __init__(self, channels: int, widths: Sequence[int], num_classes: int | None):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(2 * _FREQUENCIES, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, EMBEDDING)
        # Angles of t from one turn to a thousand: t in [0, 1] is resolved to a thousandth. Made on the CPU, even in a
        # network of shapes alone (`models.shapes_only`).
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(0, math.log(1000), _FREQUENCIES, device="cpu")), persistent=False
        )
        first, last = widths[0], widths[-1]
        self.enter = nn.Conv2d(4 * channels, first, 3, padding=1)
        self.down = nn.ModuleList(Residual(w, w) for w in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.bottom_in, self.attention, self.bottom_out = Residual(last, last), Attention(last), Residual(last, last)
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.grow = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.up = nn.ModuleList(Residual(2 * b, b) for _, b in pairs)
        self.leave = nn.Sequential(
            nn.GroupNorm(_GROUPS, first), nn.SiLU(), _zero(nn.Conv2d(first, 4 * channels, 3, padding=1))
        )

    def forward(self, x: Tensor, t: Tensor, classes: Tensor | None = None) -> Tensor:
        angles = t[:, None] * self.frequencies
        embedding = self.time(torch.cat([angles.cos(), angles.sin()], dim=1))
        if self.classes is not None:
            embedding = embedding + self.classes(classes)
        embedding = F.silu(embedding)
        h = self.enter(F.pixel_unshuffle(x, 2))
        skips = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            h = block(h, embedding)
            skips.append(h)
            h = shrink(h)
        h = self.bottom_out(self.attention(self.bottom_in(h, embedding)), embedding)
        for grow, block in zip(self.grow, self.up, strict=True):
            h = grow(F.interpolate(h, scale_factor=2, mode="nearest"))
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        return F.pixel_shuffle(self.leave(h), 2)


class Residual(nn.Module):
    """Two 3x3 convolutions with group norm; the embedding is added between them."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(_GROUPS, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.embed = nn.Linear(EMBEDDING, outputs)
        self.norm2, self.conv2 = nn.GroupNorm(_GROUPS, outputs), _zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.embed(embedding)[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """Self-attention over all positions, 32 channels a head."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = channels // 32
        self.norm, self.qkv = nn.GroupNorm(_GROUPS, channels), nn.Linear(channels, 3 * channels)
        self.out = _zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(n, height * width, c)
        q, k, v = self.qkv(tokens).view(n, -1, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, height * width, c)
        return x + self.out(mixed).view(n, height, width, c).permute(0, 3, 1, 2)


def _zero(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """The last layer of a branch starts at zero: a block starts as the identity, the network as the zero field."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
