"""Boxes of one shape: where a patch of height x width may lie on an image. Their size is given by the smaller side.

The functions say "square", as the papers do; of a task whose images are rectangles it is a box of their shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_partitions.errors import DataError
from data_partitions.exams import Box


@dataclass(frozen=True)
class Frame:
    """Boxes that have the shape of height x width; their size is given by the smaller side."""

    height: int
    width: int

    def sides(self, side: int) -> tuple[int, int]:
        """Height and width of a box whose smaller side has so many pixels."""
        smaller = min(self.height, self.width)
        return round(side * self.height / smaller), round(side * self.width / smaller)

    def largest(self, shape: tuple[int, int]) -> int:
        """Smaller side of the largest box inside an image of `shape`.

        Raises:
            DataError: "image_size": the image is too narrow for any.
        """
        smaller = min(self.height, self.width)
        side = min(int(shape[0] * smaller / self.height), int(shape[1] * smaller / self.width))
        while self._fits(side + 1, shape):  # rounding may go either way
            side += 1
        while side > 0 and not self._fits(side, shape):
            side -= 1
        if side < 1:
            raise DataError(
                "image_size",
                f"an image of {shape[0]}x{shape[1]} px holds no box of the shape {self.height}x{self.width}; change task.image_size",
            )
        return side

    def _fits(self, side: int, shape: tuple[int, int]) -> bool:
        return all(own <= limit for own, limit in zip(self.sides(side), shape, strict=True))

    def around(self, height: int, width: int) -> int:
        """Smaller side of the smallest box that covers height x width."""
        smaller = min(self.height, self.width)
        side = max(math.ceil(height * smaller / self.height), math.ceil(width * smaller / self.width))
        while side > 1 and self._covers(side - 1, height, width):
            side -= 1
        while not self._covers(side, height, width):
            side += 1
        return side

    def _covers(self, side: int, height: int, width: int) -> bool:
        return all(own >= wanted for own, wanted in zip(self.sides(side), (height, width), strict=True))

    def box(self, top: int, left: int, side: int, shape: tuple[int, int]) -> Box:
        """The box whose corner is as near to (top, left) as an image of `shape` allows."""
        height, width = self.sides(side)
        top, left = min(max(top, 0), shape[0] - height), min(max(left, 0), shape[1] - width)
        return Box(top, left, top + height, left + width)

    def centred(self, twice_row: int, twice_column: int, side: int, shape: tuple[int, int]) -> Box:
        """The box around a middle that is given as twice its row and column, which are whole."""
        height, width = self.sides(side)
        return self.box((twice_row - height) // 2, (twice_column - width) // 2, side, shape)


def square_around(box: Box, margin: int, shape: tuple[int, int], frame: Frame, minimum: int = 0) -> Box:
    """Square centred on `box` with `margin` pixels on the larger side, translated into an image of `shape`.

    Its side is at least `minimum`, and at most what the image allows; then the lesion may not fit.
    """
    side = min(max(max(box.height, box.width) + 2 * margin, minimum), frame.largest(shape))
    height, width = frame.sides(side)
    return frame.box(box.top + (box.height - height) // 2, box.left + (box.width - width) // 2, side, shape)


def central_square(shape: tuple[int, int], frame: Frame) -> Box:
    """The largest centred square of an image."""
    return frame.centred(shape[0], shape[1], frame.largest(shape), shape)


def square_around_body(body: Box, shape: tuple[int, int], frame: Frame, rng: np.random.Generator | None = None) -> Box:
    """A square that holds `body`, or as much of it as the image allows.

    Without rng the smallest, with the body in the middle. With it, a side uniform between that one's and the largest of the
    image, at a place uniform among those that keep the body: the random crops of paper 003.
    """
    most = frame.largest(shape)
    least = min(frame.around(body.height, body.width), most)
    if rng is None:
        return frame.centred(body.top + body.bottom, body.left + body.right, least, shape)
    side = int(rng.integers(least, most + 1))
    height, width = frame.sides(side)
    top, left = (
        int(rng.integers(first, last + 1))
        for first, last in (
            _starts(body.top, body.bottom, height, shape[0]), _starts(body.left, body.right, width, shape[1])
        )
    )  # fmt: skip
    return Box(top, left, top + height, left + width)


def _starts(low: int, high: int, side: int, size: int) -> tuple[int, int]:
    """First and last start of an interval of length `side` inside 0 .. size that covers low .. high or lies within it."""
    first, last = sorted((high - side, low))
    return max(first, 0), min(last, size - side)


def union(boxes: Sequence[Box]) -> Box:
    """Smallest box around all `boxes`."""
    return Box(
        min(b.top for b in boxes), min(b.left for b in boxes), max(b.bottom for b in boxes), max(b.right for b in boxes)
    )
