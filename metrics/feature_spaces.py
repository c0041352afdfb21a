"""Table of feature spaces in which sets of images are compared, none with weights that must be fetched.

A Fréchet distance in one of them is called `fd_<space>`. It is never called FID: that name belongs to one network, trained
on ImageNet. The spaces disagree about kinds of damage (the texture space is far more alarmed by noise than by a
collapse, the random network the other way round), so results give both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metrics import random_network, texture

SMALLEST_SIDE, LARGEST_SIDE = 16, 512


@dataclass(frozen=True)
class FeatureSpace:
    """A feature space; call it with uint8 images (n, 1 or 3, height, width), sides 16 to 512, for float64 (n, dimensions).

    An image's features do not depend on the others, nor on how many are handed over at a time.
    """

    name: str
    title: str
    dimensions: int
    function: Callable[[np.ndarray], np.ndarray]

    @property
    def distance(self) -> str:
        """Name of the Fréchet distance in this space, as results carry it."""
        return f"fd_{self.name}"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features of each image.

        Raises:
            ValueError: not uint8, not four dimensions, another number of channels, or a side out of range.
        """
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"images are {images.dtype} {images.shape}; they must be uint8 (n, channels, height, width)"
            )
        if images.shape[1] not in (1, 3):
            raise ValueError(f"images have {images.shape[1]} channels; features are defined for 1 and 3")
        if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in images.shape[2:]):
            height, width = images.shape[2:]
            raise ValueError(
                f"images of {height} x {width} pixels; features are defined for sides of {SMALLEST_SIDE} to {LARGEST_SIDE}"
            )
        return self.function(images)


FEATURE_SPACES: dict[str, FeatureSpace] = {
    space.name: space
    for space in (
        FeatureSpace("texture", "texture (59-d)", texture.DIMENSIONS, texture.texture),
        FeatureSpace("randnet", "random network (704-d)", random_network.DIMENSIONS, random_network.random_network),
    )
}
