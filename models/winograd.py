"""Winograd's F(4x4, 3x3): a 3x3 convolution by 36 products for every 16 pixels instead of 144 (Lavin and Gray 2016).

The image is cut into overlapping tiles of 6x6, which are transformed, multiplied with the transformed weight and transformed
back. The work goes by chunks of tiles that fit into a processor's cache. Convolution and gradient of the weight are each
other's derivatives, so there are derivatives of any order.

Images are (n, height, width, channels) and contiguous, weights (3, 3, inputs, outputs), without a step and with a border of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# For points 0, 1, -1, 2, -2 and infinity.
_INPUT = (
    (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
)  # fmt: skip
_WEIGHT = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)  # fmt: skip
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
# Values in a chunk for one of the 36 products: more leave the cache, fewer read the weight too often.
_CHUNK = 1 << 17
# Values that are transformed at once.
_BLOCK = 1 << 14


def winograd(image: Tensor, weight: Tensor) -> Tensor:
    """A convolution that keeps height and width: (n, h, w, inputs) to (n, h, w, outputs)."""
    return _Convolution.apply(image, weight)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(image, weight)
        return _convolution(image, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (g,), (image, weight) = gradients, ctx.saved_tensors
        to_image, to_weight = ctx.needs_input_grad
        return (
            _Convolution.apply(g, _turned(weight)) if to_image else None,
            _WeightGradient.apply(image, g) if to_weight else None,
        )


class _WeightGradient(torch.autograd.Function):
    """Of an image (n, h, w, inputs) and what comes back to the result (n, h, w, outputs)."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(image, g)
        return _weight_gradient(image, g)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (weight,), (image, g) = gradients, ctx.saved_tensors
        to_image, to_g = ctx.needs_input_grad
        return (
            _Convolution.apply(g, _turned(weight)) if to_image else None,
            _Convolution.apply(image, weight) if to_g else None,
        )


def _turned(weight: Tensor) -> Tensor:
    """Of the transposed convolution."""
    return weight.flip(0, 1).transpose(2, 3)


def _convolution(image: Tensor, weight: Tensor) -> Tensor:
    n, h, w, inputs = image.shape
    outputs = weight.shape[3]
    on_input, on_weight, on_output = _matrices(image.dtype)
    weights = _both_axes(on_weight, weight.reshape(3, 3, -1)).view(36, inputs, outputs)
    windows = _windows(image)
    down, across = windows.shape[3:5]
    result = image.new_empty(n, 4 * down, 4 * across, outputs)
    places = result.view(n, down, 4, across, 4, outputs).permute(2, 4, 0, 1, 3, 5)
    for some in _chunks(n, down, across, max(inputs, outputs)):
        tiles = windows[some]
        products = torch.bmm(_both_axes(on_input, tiles.reshape(6, 6, -1)).view(36, -1, inputs), weights)
        places[some] = _both_axes(on_output, products.view(6, 6, -1)).view(4, 4, *tiles.shape[2:5], outputs)
    return result if result.shape[1:3] == (h, w) else result[:, :h, :w].contiguous()


def _weight_gradient(image: Tensor, g: Tensor) -> Tensor:
    n, h, w, outputs = g.shape
    inputs = image.shape[3]
    on_input, on_weight, on_output = _matrices(image.dtype)
    windows = _windows(image)
    down, across = windows.shape[3:5]
    g = F.pad(g, (0, 0, 0, 4 * across - w, 0, 4 * down - h)).contiguous()
    places = g.view(n, down, 4, across, 4, outputs).permute(2, 4, 0, 1, 3, 5)
    total = image.new_zeros(36, inputs, outputs)
    for some in _chunks(n, down, across, max(inputs, outputs)):
        tiles = _both_axes(on_input, windows[some].reshape(6, 6, -1)).view(36, -1, inputs)
        back = _both_axes(on_output.t(), places[some].reshape(4, 4, -1)).view(36, -1, outputs)
        total.baddbmm_(tiles.transpose(1, 2), back)
    return _both_axes(on_weight.t(), total.view(6, 6, -1)).view(3, 3, inputs, outputs)


def _windows(image: Tensor) -> Tensor:
    """A view (6, 6, n, down, across, channels) of windows in steps of 4, from one pixel outside of the image on."""
    n, h, w, channels = image.shape
    down, across = -(-h // 4), -(-w // 4)
    padded = F.pad(image, (0, 0, 1, 4 * across + 1 - w, 1, 4 * down + 1 - h)).contiguous()
    by_image, by_row, by_column, _ = padded.stride()
    return padded.as_strided(
        (6, 6, n, down, across, channels), (by_row, by_column, by_image, 4 * by_row, 4 * by_column, 1)
    )


def _chunks(n: int, down: int, across: int, channels: int) -> Iterator[tuple[slice, ...]]:
    """Which images and rows of tiles make a chunk, as indices of (6, 6, n, down, ...)."""
    one_row = across * channels
    rows = max(1, min(down, _CHUNK // one_row))
    images = max(1, _CHUNK // (down * one_row))
    for image in range(0, n, images):
        for row in range(0, down, rows):
            yield slice(None), slice(None), slice(image, image + images), slice(row, row + rows)


def _both_axes(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix x matrix' of (k, k, values) along its first two axes: (rows, rows, values)."""
    rows, k = matrix.shape
    x, values = x.reshape(k, k, -1), x.shape[2]
    if values <= _BLOCK:
        return torch.bmm(matrix.expand(rows, rows, k), torch.mm(matrix, x.reshape(k, -1)).view(rows, k, -1))
    result = x.new_empty(rows, rows, values)
    half = x.new_empty(rows, k, _BLOCK)
    for start in range(0, values, _BLOCK):
        end = min(start + _BLOCK, values)
        # Along the second axis first, whose rows lie side by side.
        for row in range(k):
            torch.mm(matrix, x[row, :, start:end], out=half[:, row, : end - start])
        for row in range(rows):
            torch.mm(matrix, half[row, :, : end - start], out=result[:, row, start:end])
    return result


@cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    one, two, three = (torch.tensor(rows, dtype=torch.float64).to(dtype) for rows in (_INPUT, _WEIGHT, _OUTPUT))
    return one, two, three
