"""Traditional augmentation of a whole batch at once.

Rotation, mirroring, scale and shift are one affine resampling; contrast, brightness and (for colour images) the balance
of the channels one multiplication and addition. Every image gets its own values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

ROTATION_DEGREES = 20.0
SCALE = 0.15  # factor e^U(-SCALE, SCALE)
SHIFT = 0.08  # of the side
CONTRAST = 0.2  # factor e^U(-CONTRAST, CONTRAST) about the image's mean
BRIGHTNESS = 0.15  # added; the range is 2
COLOUR = 0.08  # added to each channel


def traditional(images: Tensor, rng: torch.Generator) -> Tensor:
    """Augment images.

    Args:
        images: float32 (n, channels, height, width) in [-1, 1].
        rng: a CPU generator.

    Returns:
        the same shape, range and device; what comes from outside an image is its reflection.
    """
    n, channels, height, width = images.shape
    tall = height / width  # a grid spans [-1, 1] along both sides; angles are those of pixels

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=rng) * 2 - 1) * limit

    angle, scale = uniform(math.radians(ROTATION_DEGREES)), uniform(SCALE).exp()
    mirror = (torch.rand(2, n, generator=rng) < 0.5) * 2.0 - 1.0
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    shift = uniform(2 * SHIFT, 2)
    affine = torch.stack(
        [cosine * mirror[0], -sine * mirror[1] * tall, shift[:, 0], sine * mirror[0] / tall, cosine * mirror[1], shift[:, 1]],
        dim=1,
    )  # fmt: skip
    contrast, brightness = uniform(CONTRAST, 1, 1, 1).exp(), uniform(BRIGHTNESS, 1, 1, 1)
    if channels > 1:
        brightness = brightness + uniform(COLOUR, channels, 1, 1)

    device = images.device
    grid = F.affine_grid(affine.view(n, 2, 3).to(device), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    factor = contrast.to(device)
    # mean + (x - mean) * factor + brightness, in one pass over the images
    return torch.addcmul(mean * (1 - factor) + brightness.to(device), moved, factor).clamp_(-1, 1)
