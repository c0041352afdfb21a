"""Contrast-limited adaptive histogram equalisation (Zuiderveld 1994), as dm-GAN's preprocessing has it.

The image is cut into tiles; each gets the curve that equalises its histogram after counts above a limit are spread over
all grey levels; between the middles of tiles the curves are blended linearly. Limits count as in OpenCV: 1 is the
mean count of a level (no contrast is added), larger is more. scikit-image's version has another limit and other rounding,
so patches would change.
"""

from __future__ import annotations

import numpy as np

LEVELS = 256


def clahe(grey: np.ndarray, clip_limit: float, tiles: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width), equalised tile by tile. tiles: (rows, columns) of them."""
    height, width = grey.shape
    rows, columns = min(tiles[0], height), min(tiles[1], width)
    tall, wide = -(-height // rows), -(-width // columns)
    # Tiles are of one size: the image is continued by its mirror image below and to the right.
    padded = np.pad(grey, ((0, tall * rows - height), (0, wide * columns - width)), mode="symmetric")
    curves = np.empty((rows, columns, LEVELS), dtype=np.float32)
    for row in range(rows):
        for column in range(columns):
            tile = padded[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
            curves[row, column] = curve(np.bincount(tile.ravel(), minlength=LEVELS), clip_limit)
    above, below, down = _between(height, tall, rows)
    left, right, across = _between(width, wide, columns)
    out = np.empty(grey.shape, dtype=np.uint8)
    for start in range(0, height, 256):  # in strips: four look-ups in floats take eight times the image's memory
        part = slice(start, min(start + 256, height))
        values = grey[part]
        a, b = above[part][:, None], below[part][:, None]
        share = down[part][:, None]
        upper = curves[a, left[None], values] * (1 - across) + curves[a, right[None], values] * across
        lower = curves[b, left[None], values] * (1 - across) + curves[b, right[None], values] * across
        out[part] = np.rint(upper * (1 - share) + lower * share)
    return out


def curve(counts: np.ndarray, clip_limit: float) -> np.ndarray:
    """float32 (256,) in 0 .. 255: the new grey level of each level, given how often each occurs."""
    total = int(counts.sum())
    limit = max(1.0, clip_limit * total / LEVELS)
    clipped = np.minimum(counts, limit).astype(np.float64)
    clipped += (total - clipped.sum()) / LEVELS
    return (clipped.cumsum() * ((LEVELS - 1) / total)).astype(np.float32)


def _between(size: int, tile: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every pixel along an axis: the tiles before and after it, and how far it is from the first's middle (0 .. 1)."""
    place = (np.arange(size) + 0.5) / tile - 0.5
    before = np.floor(place).astype(np.int64)
    share = (place - before).astype(np.float32)
    return before.clip(0, count - 1), (before + 1).clip(0, count - 1), share
