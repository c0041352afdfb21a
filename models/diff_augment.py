"""Differentiable augmentation of real and generated images (Zhao et al., "Differentiable Augmentation for Data-Efficient
GAN Training", 2020): colour, translation, cutout.

The discriminator sees augmented images only, so it cannot learn the few real ones by heart, and the generator's gradient passes
through the same operations, so it learns images without them. Each image gets its own transformation. What is drawn can be
applied twice: a real image and the generated one beside it are changed in the same way, so that a pair is compared alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BRIGHTNESS = 0.5  # added, up to half of it in either direction; the range of images is 2
SATURATION = 1.0  # factor 1 +- of the difference from grey
CONTRAST = 0.5  # factor 1 +- of the difference from the mean
TRANSLATION = 1 / 8  # of the side
CUTOUT = 1 / 2  # of the side, around a point anywhere in the image


@dataclass(frozen=True)
class DiffAugment:
    """One transformation for each of n images.

    Attributes:
        brightness, saturation, contrast: (n,).
        shift: (n, 2), pixels downwards and to the right.
        cut: (n, 2), row and column of the first pixel that is cut out, which may lie outside.
        size: (height, width) of the images.
    """

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    shift: Tensor
    cut: Tensor
    size: tuple[int, int]

    @classmethod
    def drawn(cls, n: int, size: tuple[int, int], rng: torch.Generator) -> DiffAugment:
        """For images of (height, width).

        Args:
            rng: a CPU generator.
        """

        def uniform(around: float, limit: float) -> Tensor:
            return around + limit * (2 * torch.rand(n, generator=rng) - 1)

        def whole(low: int, high: int) -> Tensor:
            """Integers from low to high."""
            return torch.randint(low, high + 1, (n,), generator=rng)

        most = [int(side * TRANSLATION + 0.5) for side in size]
        holes = _holes(size)
        colour = uniform(0, BRIGHTNESS), uniform(1, SATURATION), uniform(1, CONTRAST)
        shift = torch.stack([whole(-limit, limit) for limit in most], dim=1)
        middle = torch.stack([whole(0, side - hole % 2) for side, hole in zip(size, holes, strict=True)], dim=1)
        return cls(*colour, shift, middle - torch.tensor(holes) // 2, size)

    def __call__(self, images: Tensor) -> Tensor:
        """Augmented images (n, channels, height, width), of any range that has 0 in its middle."""
        device = images.device
        brightness, saturation, contrast = (
            values.to(device, images.dtype)[:, None, None, None]
            for values in (self.brightness, self.saturation, self.contrast)
        )
        images = images + brightness
        grey = images.mean(dim=1, keepdim=True)
        images = torch.lerp(grey, images, saturation)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = torch.lerp(mean, images, contrast)
        images = _shifted(images, self.shift.to(device))
        return images * self._kept(device, images.dtype)

    def _kept(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """1 outside the part that is cut out, 0 in it: (n, 1, height, width)."""
        inside = []
        for axis, (side, hole) in enumerate(zip(self.size, _holes(self.size), strict=True)):
            place = torch.arange(side) - self.cut[:, axis, None]
            inside.append((place >= 0) & (place < hole))
        cut_out = inside[0][:, :, None] & inside[1][:, None, :]
        return (~cut_out).to(device, dtype)[:, None]


def _holes(size: tuple[int, int]) -> tuple[int, int]:
    """Sides of what is cut out."""
    height, width = (int(side * CUTOUT + 0.5) for side in size)
    return height, width


def _shifted(images: Tensor, shift: Tensor) -> Tensor:
    """Each image moved by (down, right) pixels; zeros come in."""
    for axis in (2, 3):
        side = images.shape[axis]
        source = torch.arange(side, device=images.device) - shift[:, axis - 2, None]
        view = [len(images), 1, 1, 1]
        view[axis] = side
        index = source.clamp(0, side - 1).view(view).expand(images.shape)
        images = images.gather(axis, index) * ((source >= 0) & (source < side)).view(view)
    return images
