"""Table of feature spaces in which sets of images are compared. None needs weights that must be fetched.

A Fréchet distance in one of them is called `fd_<space>`, and never FID: that name belongs to one network, trained on
ImageNet. Measured on phantom mammography patches of 64 px, 370 images a side of one centre, as multiples of the
distance between two patient-disjoint halves of the real images (0.0228 and 0.0079):

                blur .5 / 1 / 2 px    noise .02 / .05    only 100 / 20 / 5 images    +10 grey levels    other scanners
    texture     45 / 475 / 1040       34 / 257           2.4 / 8.5 / 48              3.0                50, 123
    randnet     3.1 / 12 / 28         4.5 / 80           9.1 / 35 / 50               13                 16, 178

Both grow with every kind of damage. They disagree about which kind is worse, so results give both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from metrics import random_network, texture

SMALLEST_SIDE, LARGEST_SIDE = 16, 1280


@dataclass(frozen=True)
class FeatureSpace:
    """A feature space; call it with images (n, 1 or 3, height, width), sides 16 to 1280, for float64 (n, dimensions).

    Images are uint8; of uint16 the 256 levels that people see are measured.

    An image's features depend neither on the other images nor on how many are passed at a time.
    """

    name: str
    title: str
    dimensions: int
    function: Callable[[np.ndarray], np.ndarray]

    @property
    def distance(self) -> str:
        """Name of the Fréchet distance in this space, as in the results."""
        return f"fd_{self.name}"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features of each image.

        Raises:
            ValueError: neither uint8 nor uint16, not four dimensions, not 1 or 3 channels, or a side out of range.
        """
        if images.dtype == np.uint16:
            images = (images // 257).astype(np.uint8)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"images are {images.dtype} {images.shape}; they must be uint8 or uint16 (n, channels, height, width)"
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


def _known(space: str) -> str:
    if space not in FEATURE_SPACES:
        raise ValueError(f"no feature space {space!r}; known feature spaces: {', '.join(FEATURE_SPACES)}")
    return space


FeatureSpaceName = Annotated[str, AfterValidator(_known)]
