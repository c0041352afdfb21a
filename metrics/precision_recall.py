"""Precision and recall of generated images (Kynkäänniemi et al., NeurIPS 2019).

The support of a set is estimated as a union of balls: one around each feature, reaching to the k-th nearest other feature
of the set. Precision is the share of generated images in the support of the real ones: how many look real. Recall is the
share of real images in the support of the generated ones: how much of reality is covered. Recall shows a collapsed
generator best.

Both depend on the number of images and on the feature space; compare them only where these are the same. A single outlier
has a large ball; Naeem et al. (ICML 2020) describe the consequences. 1,000 images a side in 704 dimensions take about a
second on one core, and the time grows with the square.

Not torch-fidelity's: its distances come from inner products in float32, which puts copies of an image at a distance above 0.
Here they are at 0, so a collapse is seen for what it is.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

# Rows of the distance matrix at a time; with 10,000 images on the other side, 40 MB.
_ROWS_AT_A_TIME = 512


def precision_recall(real_features: np.ndarray, fake_features: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Precision and recall, each in [0, 1].

    Args:
        real_features, fake_features: (n, d) and (m, d), in the same feature space.
        k: neighbours that set the size of a ball; 3 in the paper.

    Raises:
        ValueError: k < 1, k or fewer images on a side, shapes that do not match, or NaN or infinity.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more")
    for side, features in (("real", real_features), ("generated", fake_features)):
        if features.ndim != 2 or features.shape[1] != real_features.shape[-1]:
            raise ValueError(
                f"{side} features have shape {features.shape}, the real ones {real_features.shape}; "
                "both must be (images, dimensions) in one feature space"
            )
        if len(features) <= k:
            raise ValueError(f"{len(features)} {side} images; with k = {k}, at least {k + 1} are needed")
        if not np.isfinite(features).all():
            raise ValueError(f"{side} features hold NaN or infinity")
    real_radii, fake_radii = _radii(real_features, k), _radii(fake_features, k)
    fake_is_covered = np.zeros(len(fake_features), bool)
    real_covered = 0
    for start in range(0, len(real_features), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        distances = cdist(real_features[rows], fake_features)
        fake_is_covered |= (distances <= real_radii[rows, None]).any(axis=0)
        real_covered += int((distances <= fake_radii).any(axis=1).sum())
    return float(fake_is_covered.mean()), real_covered / len(real_features)


def _radii(features: np.ndarray, k: int) -> np.ndarray:
    """Distance of each feature to its k-th nearest other one: (n,)."""
    radii = np.empty(len(features))
    for start in range(0, len(features), _ROWS_AT_A_TIME):
        distances = cdist(features[start : start + _ROWS_AT_A_TIME], features)
        # Index 0 is the feature itself, or a copy of it at the same distance of 0.
        radii[start : start + _ROWS_AT_A_TIME] = np.partition(distances, k, axis=1)[:, k]
    return radii
