"""3x3 convolutions by matrix products, with and without doubling or halving: faster in training than torch's own on a CPU.

On a CPU torch's gradient of a 3x3 weight takes two to six times as long as the convolution itself. Written as matrix products,
of which torch makes the gradients, both directions run at the speed of those:

    convolve         Winograd's from 16 pixels on; the nine taps side by side below
    convolve_up      nine products for each pixel of the small image, added where they overlap, then the filter
    convolve_down    the filter, then the nine taps of every second pixel side by side

Nothing is inserted between pixels, and no filter is folded into a weight, which would make 9 taps 36. Results differ from
torch's own by rounding. Elsewhere than on a CPU, and in bf16 (too coarse for Winograd's fractions), torch's own are used.

Tensors are (n, channels, height, width), channels last in memory; weights (outputs, inputs, 3, 3).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.fir import blur
from models.linear_operator import linear
from models.winograd import winograd

# Fewer pixels than this along a side, and transforming the weight costs more than Winograd saves.
_WINOGRAD_FROM = 16


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """A 3x3 convolution that keeps height and width."""
    if not _by_products(x):
        return F.conv2d(x, weight, padding=1)
    if min(x.shape[2:]) < _WINOGRAD_FROM:
        return _taps_product(F.pad(x, (1, 1, 1, 1)), weight, 1)
    return _first(winograd(_last(x).contiguous(), weight.permute(2, 3, 1, 0)))


def convolve_up(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """The image doubled by `fir.up`, then a 3x3 convolution; `kernel` is that of `fir.taps_of`."""
    turned = weight.flip(2, 3)
    if _by_products(x):
        n, _, h, w = x.shape
        outputs = len(weight)
        products = _last(x).reshape(n * h * w, -1) @ turned.permute(1, 2, 3, 0).reshape(-1, 9 * outputs)
        whole = linear(
            products.view(n, h, w, 3, 3, outputs), lambda taps: _spread(taps, 2), lambda image: _taps(image, 2)
        )
        x = _first(whole)
    else:
        x = F.conv_transpose2d(x, turned.transpose(0, 1), stride=2)
    return blur(x, kernel * 4, padding=1)


def convolve_down(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """The image filtered, then a 3x3 convolution in steps of two; height and width are even."""
    x = blur(x, kernel, padding=2)
    return _taps_product(x, weight, 2) if _by_products(x) else F.conv2d(x, weight, stride=2)


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution; weight (outputs, inputs, 1, 1)."""
    return _first(_last(x) @ weight[:, :, 0, 0].t()) if _by_products(x) else F.conv2d(x, weight)


def _by_products(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype != torch.bfloat16 and not torch.is_autocast_enabled("cpu")


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


# -- nine taps -----------------------------------------------------------------------------------------------------


def _taps_product(x: Tensor, weight: Tensor, step: int) -> Tensor:
    """A 3x3 convolution without a border."""
    taps = linear(_last(x), lambda image: _taps(image, step), lambda taps: _spread(taps, step))
    n, h, w = taps.shape[:3]
    products = taps.reshape(n * h * w, -1) @ weight.permute(2, 3, 1, 0).reshape(-1, len(weight))
    return _first(products.view(n, h, w, -1))


def _taps(image: Tensor, step: int) -> Tensor:
    """(n, H, W, c) to (n, h, w, 3, 3, c): what each position of a 3x3 window sees; H = step (h - 1) + 3."""
    n, height, width, c = image.shape
    h, w = (height - 3) // step + 1, (width - 3) // step + 1
    taps = image.new_empty(n, h, w, 3, 3, c)
    for row in range(3):
        for column in range(3):
            taps[:, :, :, row, column] = image[:, row : row + step * h : step, column : column + step * w : step][
                :, :h, :w
            ]
    return taps


def _spread(taps: Tensor, step: int) -> Tensor:
    """The transpose of `_taps`."""
    n, h, w, _, _, c = taps.shape
    image = taps.new_zeros(n, step * (h - 1) + 3, step * (w - 1) + 3, c)
    for row in range(3):
        for column in range(3):
            image[:, row : row + step * (h - 1) + 1 : step, column : column + step * (w - 1) + 1 : step] += taps[
                :, :, :, row, column
            ]
    return image
