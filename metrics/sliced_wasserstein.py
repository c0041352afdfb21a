"""Sliced Wasserstein distance between patches of two sets of images at several resolutions (Karras et al. 2018, section 5).

    pyramid      Laplacian: an image less its blurred half, doubled again; the smallest level, of 16 pixels or more, is the image itself
    patches      128 of 7x7 pixels from each level of each image, at random places
    normalised   each channel of a set's patches to mean 0 and standard deviation 1, set by set: what differs is structure; brightness and
                 contrast of a level go unseen
    distance     mean over 4 times 128 random directions of the distance between the sorted projections of both sets

A small distance means that both sets look alike at that resolution, in their variety, too. It has no unit and grows where there
are few images: compare it with the distance between two halves of the real ones, and among sets of one size.
Karras et al. print it times 1,000.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

PATCH = 7
PATCHES = 128
SMALLEST_LEVEL = 16
REPEATS, DIRECTIONS = 4, 128
_KERNEL = np.array([1, 4, 6, 4, 1]) / 16
# Images taken apart at a time.
_AT_A_TIME = 256

Size = tuple[int, int]


def sliced_wasserstein(ours: np.ndarray, theirs: np.ndarray, rng: np.random.Generator) -> dict[Size, float]:
    """The distance at each level, by (height, width), from the finest to the coarsest.

    Args:
        ours, theirs: uint8 or uint16 (n, channels, height, width), equally many of one shape, sides of 16 or more.
        rng: of the places of patches, the same in both sets, and of the directions.

    Raises:
        ValueError: the sets differ in number, shape or type.
    """
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise ValueError(
            f"sets of {ours.shape} {ours.dtype} and {theirs.shape} {theirs.dtype} cannot be compared; give equally many images of one "
            "shape and type"
        )
    places = int(rng.integers(2**63))
    mine, other = (_patches(images, np.random.default_rng(places)) for images in (ours, theirs))
    return {size: distance_of_projections(_normalised(mine[size]), _normalised(other[size]), rng) for size in mine}


def distance_of_projections(ours: np.ndarray, theirs: np.ndarray, rng: np.random.Generator) -> float:
    """Mean Wasserstein-1 distance of projections on random directions, of two sets of points (n, dimensions).

    Sets that differ by a shift v have |v| times the mean |cosine| between v and a direction.
    """
    found = []
    for _ in range(REPEATS):
        directions = rng.standard_normal((ours.shape[1], DIRECTIONS)).astype(ours.dtype)
        directions /= np.linalg.norm(directions, axis=0)
        mine, other = (np.sort(points @ directions, axis=0) for points in (ours, theirs))
        found.append(np.abs(mine - other).mean(dtype=np.float64))
    return float(np.mean(found))


def laplacian_pyramid(images: np.ndarray) -> list[np.ndarray]:
    """Levels of float (n, channels, height, width), from the finest on, which add up to the images: see `_doubled`."""
    levels, fine = [], images
    while all(side % 2 == 0 and side // 2 >= SMALLEST_LEVEL for side in fine.shape[2:]):
        coarse = _blurred(fine)[:, :, ::2, ::2]
        levels.append(fine - _doubled(coarse))
        fine = coarse
    return [*levels, fine]


def _blurred(images: np.ndarray) -> np.ndarray:
    for axis in (2, 3):
        images = correlate1d(images, _KERNEL, axis=axis, mode="mirror")
    return images


def _doubled(images: np.ndarray) -> np.ndarray:
    """Sides twice as long: zeros between the pixels, blurred, times 4."""
    n, channels, height, width = images.shape
    wide = np.zeros((n, channels, 2 * height, 2 * width), images.dtype)
    wide[:, :, ::2, ::2] = images
    return 4 * _blurred(wide)


def _patches(images: np.ndarray, rng: np.random.Generator) -> dict[Size, np.ndarray]:
    """Of each level, float32 (n * PATCHES, channels, 7, 7)."""
    found: dict[Size, list[np.ndarray]] = {}
    for start in range(0, len(images), _AT_A_TIME):
        part = images[start : start + _AT_A_TIME].astype(np.float32)
        for level in laplacian_pyramid(part):
            height, width = level.shape[2:]
            windows = np.lib.stride_tricks.sliding_window_view(level, (PATCH, PATCH), axis=(2, 3))
            which = np.repeat(np.arange(len(part)), PATCHES)
            rows, columns = (rng.integers(side - PATCH + 1, size=len(which)) for side in (height, width))
            found.setdefault((height, width), []).append(windows[which, :, rows, columns])
    return {size: np.concatenate(parts) for size, parts in found.items()}


def _normalised(patches: np.ndarray) -> np.ndarray:
    """(n, channels, 7, 7) to (n, channels * 49), each channel with mean 0 and standard deviation 1."""
    mean = patches.mean(axis=(0, 2, 3), keepdims=True)
    deviation = patches.std(axis=(0, 2, 3), keepdims=True)
    return ((patches - mean) / np.maximum(deviation, 1e-8)).reshape(len(patches), -1)
