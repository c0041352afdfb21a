"""Are synthetic images near copies of the real images that a model learned from?

A copy lies nearer to a training image than the images of different patients lie to each other (Meehan et al., "A non-parametric test to
detect data-copying in generative models", AISTATS 2020; Alaa et al., "How faithful is your synthetic data?", ICML 2022). So the distance
of each synthetic image to its nearest training image is compared with the distances of real images to the nearest of another patient.
Finds plain copies, also mirrored, brighter, or with another contrast; not those that are shifted, turned, or true in a detail only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

# A synthetic image nearer than this share of the real ones is a near copy.
QUANTILE = 0.01
# Images are compared at this size: a blurred copy is one, too.
_SIDE = 32
# Real images whose nearest one is looked for: enough for the quantile.
_REFERENCE = 512
_BATCH = 512
# Too many near copies by chance: with this probability at most.
_CHANCE = 0.01


@dataclass(frozen=True)
class NearCopies:
    """How many of the synthetic images are near copies."""

    images: int
    near: int

    def __add__(self, other: NearCopies) -> NearCopies:
        return NearCopies(self.images + other.images, self.near + other.near)

    def more_than(self, share: float) -> bool:
        """Whether a model of which this share of all images are near copies would hardly have given so many."""
        return self.near > 0 and share < 1 and float(bdtrc(self.near - 1, self.images, share)) < _CHANCE


def near_copies(
    synthetic: np.ndarray, real: np.ndarray, patients: np.ndarray, quantile: float = QUANTILE
) -> NearCopies:
    """Count the near copies among images of one class.

    Args:
        synthetic, real: (n, channels, height, width), of one size.
        patients: (n,), of the real images. Of one patient alone every image counts as a near copy: nothing says how far is far.
    """
    if not len(synthetic):
        return NearCopies(0, 0)
    own, made = _directions(real), _directions(synthetic)
    if len(np.unique(patients)) < 2:
        return NearCopies(len(made), len(made))
    chosen = np.linspace(0, len(own) - 1, min(len(own), _REFERENCE)).astype(int)
    likeness = _likeness(own[chosen], own)
    likeness[patients[chosen][:, None] == patients[None]] = -1.0
    limit = float(np.quantile(likeness.max(axis=1), 1 - quantile, method="higher"))
    return NearCopies(len(made), int((_likeness(made, own).max(axis=1) > limit).sum()))


def _directions(images: np.ndarray) -> np.ndarray:
    """float32 (n, c, h, w): block means, of mean 0 and norm 1, so that brightness and contrast do not count; flat images are 0."""
    height, width = images.shape[2:]
    rows, columns = (np.arange(min(_SIDE, side)) * side // min(_SIDE, side) for side in (height, width))
    parts = [images[start : start + _BATCH].astype(np.float32) for start in range(0, max(1, len(images)), _BATCH)]
    small = np.concatenate([np.add.reduceat(np.add.reduceat(part, rows, axis=2), columns, axis=3) for part in parts])
    small /= np.diff([*rows, height])[:, None] * np.diff([*columns, width])[None]
    small -= small.mean(axis=(1, 2, 3), keepdims=True)
    norm = np.sqrt(np.square(small).sum(axis=(1, 2, 3), keepdims=True))
    return small / np.maximum(norm, 1e-6)


def _likeness(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Correlation of each image, mirrored as is most alike, with each of the others: the distance is sqrt(2 - 2 r)."""
    flat = others.reshape(len(others), -1).T
    mirrored = [images, images[..., ::-1], images[..., ::-1, :], images[..., ::-1, ::-1]]
    return np.max([one.reshape(len(images), -1) @ flat for one in mirrored], axis=0)
