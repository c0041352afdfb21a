"""Doubling and halving images with a small low-pass filter, in plain operators of which second derivatives exist.

The filter is [1, 3, 3, 1] / 8 along both sides, as in StyleGAN2. Zeros lie outside of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TAPS = (1.0, 3.0, 3.0, 1.0)


def taps_of(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """The filter (4, 4), of sum 1."""
    taps = torch.tensor(TAPS, dtype=dtype, device=device)
    taps = taps / taps.sum()
    return torch.outer(taps, taps)


def _per_channel(x: Tensor, kernel: Tensor) -> Tensor:
    return kernel.to(x).expand(x.shape[1], 1, 4, 4)


def up(x: Tensor, kernel: Tensor) -> Tensor:
    """(n, c, h, w) to (n, c, 2h, 2w): an image's mean stays. `kernel` is that of `taps_of`."""
    return F.conv_transpose2d(x, _per_channel(x, kernel * 4), stride=2, padding=1, groups=x.shape[1])


def down(x: Tensor, kernel: Tensor) -> Tensor:
    """(n, c, 2h, 2w) to (n, c, h, w)."""
    return F.conv2d(x, _per_channel(x, kernel), stride=2, padding=1, groups=x.shape[1])


def blur(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """(n, c, h, w) to (n, c, h + 2 padding - 3, w + 2 padding - 3)."""
    return F.conv2d(x, _per_channel(x, kernel), padding=padding, groups=x.shape[1])
