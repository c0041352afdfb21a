"""Fréchet distance between two sets of images, from sums that centres can add up.

    d(a, b) = |mean_a - mean_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2))

(Heusel et al., NeurIPS 2017: the squared 2-Wasserstein distance between two Gaussians with the sets' means and covariances.)
It needs the count, the sum and the sum of outer products of the features. Those of several centres add up to those of
their union, so the distance can be taken to images that nobody holds together.

**The distance is biased**: both covariances are estimated, and the fewer images, the larger the distance, by an amount
that depends on the features as well. So compare it only with distances for *the same number of images a side*: of another
generator, or of two halves of the real images (`half_split_floor`). A generator at that floor is as close to real images
as real images are to each other. Every table gives n.

**What sums tell.** The sum of one image is its features, and the sums of a few images still narrow them down. They count
as what leaves a centre, and may be sent for enough images only.

Not torchmetrics' or torch-fidelity's: theirs start from images and a network, and take roots of the product of the
covariances, which are inaccurate where these are singular.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg


@dataclass(frozen=True, eq=False)
class FeatureSums:
    """Sums of features over a set of images; `FeatureSums.of(a) + FeatureSums.of(b)` are the sums over both sets.

    Attributes:
        count: number of images.
        sum: float64 (d,).
        outer: float64 (d, d), sum of outer products.
    """

    count: int
    sum: np.ndarray
    outer: np.ndarray

    @staticmethod
    def of(features: np.ndarray) -> FeatureSums:
        """Sums of features (n, d); n may be 0.

        Raises:
            ValueError: not two dimensions, or NaN or infinity among the features.
        """
        if features.ndim != 2:
            raise ValueError(f"features have shape {features.shape}; they must be (images, dimensions)")
        if not np.isfinite(features).all():
            raise ValueError("features hold NaN or infinity, so no distance can be computed")
        # float64: the covariance is a difference of large numbers and loses rank in float32.
        features = features.astype(np.float64, copy=False)
        return FeatureSums(len(features), features.sum(axis=0), features.T @ features)

    def __add__(self, other: FeatureSums) -> FeatureSums:
        if self.sum.shape != other.sum.shape:
            raise ValueError(
                f"sums of {len(self.sum)} and of {len(other.sum)} dimensions cannot be added; use one feature space"
            )
        return FeatureSums(self.count + other.count, self.sum + other.sum, self.outer + other.outer)

    @property
    def mean(self) -> np.ndarray:
        """(d,).

        Raises:
            ValueError: no image.
        """
        if self.count < 1:
            raise ValueError("a mean needs at least 1 image and has 0")
        return self.sum / self.count

    @property
    def covariance(self) -> np.ndarray:
        """(d, d), unbiased.

        Raises:
            ValueError: fewer than two images.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images and has {self.count}")
        mean = self.mean
        return (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)

    def to_arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """The form in which they travel: `<prefix>.count` int64 (), `<prefix>.sum` float64 (d,), and `<prefix>.outer`
        float64 (d (d + 1) / 2,), the upper triangle row by row. Never compress them: rounding would swamp the covariance."""
        return {
            f"{prefix}.count": np.array(self.count, np.int64),
            f"{prefix}.sum": self.sum,
            f"{prefix}.outer": self.outer[np.triu_indices(len(self.sum))],
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray], prefix: str) -> FeatureSums:
        """Inverse of `to_arrays(prefix)`; other arrays are ignored.

        Raises:
            ValueError: an array is missing, or the shapes or dtypes do not match.
        """
        names = [f"{prefix}.{part}" for part in ("count", "sum", "outer")]
        for name in names:
            if name not in arrays:
                raise ValueError(f"array {name!r} is missing; sums travel as {', '.join(names)}")
        count, total, packed = (arrays[name] for name in names)
        dimensions = total.size
        if (
            (count.shape, total.shape, packed.shape) != ((), (dimensions,), (dimensions * (dimensions + 1) // 2,))
            or not np.issubdtype(count.dtype, np.integer)
            or (total.dtype, packed.dtype) != (np.float64, np.float64)
            or count < 0
        ):
            raise ValueError(
                f"arrays {prefix + '.*'!r} are not sums of features: count {count.dtype} {count.shape}, "
                f"sum {total.dtype} {total.shape}, outer {packed.dtype} {packed.shape}"
            )
        outer = np.zeros((dimensions, dimensions))
        outer[np.triu_indices(dimensions)] = packed
        return FeatureSums(int(count), total, outer + np.triu(outer, 1).T)


def frechet_distance(a: FeatureSums, b: FeatureSums) -> float:
    """Fréchet distance, 0 or more; symmetric.

    trace((C_a C_b)^(1/2)) is the sum of the singular values of C_a^(1/2) C_b^(1/2). Roots of symmetric matrices and singular
    values stay accurate where the covariances are singular, as they are with fewer images than dimensions; the root of
    the product, which is not symmetric, does not.

    Raises:
        ValueError: fewer than two images on a side, or different feature spaces.
    """
    for side in (a, b):
        if side.count < 2:
            raise ValueError(f"a Fréchet distance needs at least 2 images on each side; one has {side.count}")
    if a.sum.shape != b.sum.shape:
        raise ValueError(f"sums of {len(a.sum)} and of {len(b.sum)} dimensions; compare within one feature space")
    shift = a.mean - b.mean
    root_a, root_b = _root(a.covariance), _root(b.covariance)
    common = scipy.linalg.svdvals(root_a.T @ root_b).sum() if root_a.size and root_b.size else 0.0
    return max(0.0, float(shift @ shift + np.square(root_a).sum() + np.square(root_b).sum() - 2 * common))


def _root(covariance: np.ndarray) -> np.ndarray:
    """R (d, rank) with R R^T = covariance; directions without variance are left out."""
    values, vectors = scipy.linalg.eigh(covariance)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def split_in_halves(patients: np.ndarray, seed: int) -> np.ndarray:
    """Deal images out to two halves, all of a patient to the same one; bool (n,), True for the first half.

    Two images of one patient are more alike than images of two patients: with one in each half, the floor would be too
    low. In random order, each patient goes to the half that holds fewer images so far.

    Args:
        patients: (n,), the patient of each image.
    """
    groups, members = np.unique(patients, return_inverse=True)
    images = np.bincount(members, minlength=len(groups))
    first, held = np.zeros(len(groups), bool), [0, 0]
    for group in np.random.default_rng(seed).permutation(len(groups)):
        first[group] = held[0] <= held[1]
        held[0 if first[group] else 1] += int(images[group])
    return first[members]


def half_split_floor(first: FeatureSums, second: FeatureSums) -> float:
    """Distance between two patient-disjoint halves of the same real images: what a perfect generator would score.

    It holds for `first.count` and `second.count` images. Compare it with the distance between that many generated and that
    many real images: more images on either side shrink the distance without a better generator.
    """
    return frechet_distance(first, second)
