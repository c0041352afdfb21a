"""Where points of an image are after it was mirrored, scaled and padded: for each axis, new = scale * old + offset.

Coordinates count pixel edges: pixel i covers i .. i + 1, as boxes do. scikit-image's transforms have no whole-pixel boxes
and no masks of samples, which is all of this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from data_partitions.exams import Box

_ROUNDING = 1e-6  # an edge this close to a whole number is that number


@dataclass(frozen=True)
class Geometry:
    """From an image to a processed one of `shape` (height, width). rows, columns: (scale, offset), scale not 0."""

    shape: tuple[int, int]
    rows: tuple[float, float] = (1.0, 0.0)
    columns: tuple[float, float] = (1.0, 0.0)

    def then(self, after: Geometry) -> Geometry:
        """This geometry, and `after` on what it gives."""
        return Geometry(after.shape, _joined(self.rows, after.rows), _joined(self.columns, after.columns))

    def box(self, box: Box) -> Box:
        """The smallest box of whole pixels around a transformed box, inside the new image."""
        top, bottom = _edges(self.rows, box.top, box.bottom)
        left, right = _edges(self.columns, box.left, box.right)
        return Box(top, left, bottom, right).clipped(self.shape)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Transformed (k, 2) of (y, x), float32."""
        scale = np.array([self.rows[0], self.columns[0]])
        offset = np.array([self.rows[1], self.columns[1]])
        return (points * scale + offset).astype(np.float32)

    def sampled(self, mask: np.ndarray, mask_step: int, step: int) -> np.ndarray:
        """A coarse mask of the original (every `mask_step`-th pixel) as one of the processed image (every `step`-th).

        False where the processed image shows nothing of the original.
        """
        rows = _sources(self.rows, self.shape[0], step) // mask_step
        columns = _sources(self.columns, self.shape[1], step) // mask_step
        inside_rows, inside_columns = (rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1])
        picked = mask[np.ix_(rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1))]
        return picked & inside_rows[:, None] & inside_columns[None]


def _joined(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return first[0] * second[0], first[1] * second[0] + second[1]


def _edges(axis: tuple[float, float], low: int, high: int) -> tuple[int, int]:
    a, b = sorted((axis[0] * low + axis[1], axis[0] * high + axis[1]))
    return math.floor(a + _ROUNDING), math.ceil(b - _ROUNDING)


def _sources(axis: tuple[float, float], size: int, step: int) -> np.ndarray:
    """Index in the original of every `step`-th pixel's middle."""
    return np.floor((np.arange(0, size, step) + 0.5 - axis[1]) / axis[0]).astype(np.int64)
