"""From contours and masks to the boxes of lesions: a connected area is one lesion.

The rule is that of Szafranowska et al. (2022): all outlines of one kind are painted into the image, and each connected
area (8 neighbours) is a lesion. Departures: a hole in an area is not a lesion of its own (the published code also took
inner contours), and an outline of two points is the line between them, not two dots.

A mask's areas are joined first where they nearly touch (a closing), by a distance that follows the size of the image: dots
and gaps of some 30 pixels at the rim of a lesion on scanned film belong to it, while on a picture of 200 pixels 30 pixels are
another lesion.

Pillow paints and scipy labels. scikit-image's polygons treat points on the border in their own way, so boxes could move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from data_partitions.exams import FAR, Box

NEIGHBOURS = np.ones((3, 3), dtype=bool)
CLOSED_PER_SIDE = 48  # a mask is closed by a square of the 48th part of its longer side ...
CLOSED_AT_MOST = 36  # ... in pixels: the masks of CBIS-DDSM, of 3,000 to 7,000 pixels, and all from 1,728 on
SHRUNK = 4  # the closing works on squares of this side where it is at least four of them, else on pixels


class Area(NamedTuple):
    """A connected area: its box, its number of pixels, and which of the outlines lie in it."""

    box: Box
    pixels: int
    outlines: tuple[int, ...]


def pixel_box(contour: np.ndarray) -> Box:
    """Box of the pixels that hold the points (k, 2) of (y, x); a pixel reaches from its whole number to the next."""
    near = np.clip(contour, -FAR, FAR)
    low, high = np.floor(near.min(axis=0)).astype(int), np.floor(near.max(axis=0)).astype(int)
    return Box(int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1)


def painted_areas(contours: Sequence[np.ndarray], shape: tuple[int, int]) -> list[Area]:
    """Connected areas of filled outlines, each (k, 2) of (y, x) in pixels, clipped to an image of `shape`.

    An outline that lies completely outside the image is in no area.
    """
    boxes = [pixel_box(contour).clipped(shape) for contour in contours]
    inside = [number for number, box in enumerate(boxes) if box.height > 0 and box.width > 0]
    if not inside:
        return []
    top, left = min(boxes[i].top for i in inside), min(boxes[i].left for i in inside)
    bottom, right = max(boxes[i].bottom for i in inside), max(boxes[i].right for i in inside)
    canvas = Image.new("1", (right - left, bottom - top))
    draw = ImageDraw.Draw(canvas)
    for number in inside:
        points = [(int(x) - left, int(y) - top) for y, x in np.floor(np.clip(contours[number], -FAR, FAR))]
        if len(points) == 1:
            draw.point(points, fill=1)
        elif len(points) == 2:
            draw.line(points, fill=1)
        else:
            draw.polygon(points, fill=1, outline=1)
    labels, _ = ndimage.label(np.asarray(canvas), NEIGHBOURS)
    sizes = np.bincount(labels.ravel())
    members: dict[int, list[int]] = {}
    for number in inside:
        found = _label_at(labels, contours[number], top, left)
        if found:
            members.setdefault(found, []).append(number)
    return [
        Area(
            Box(rows.start + top, columns.start + left, rows.stop + top, columns.stop + left),
            int(sizes[label]),
            tuple(members.get(label, ())),
        )
        for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1)
    ]


def closing_side(shape: tuple[int, int]) -> int:
    """Side in pixels of the square that closes a mask of `shape`: gaps narrower than it are closed; 1 closes none."""
    return max(1, min(CLOSED_AT_MOST, max(shape) // CLOSED_PER_SIDE))


def mask_areas(mask: np.ndarray) -> list[Area]:
    """The connected areas of a mask, bool (height, width), largest first, after a closing by `closing_side`.

    The closing joins dots and gaps at the rim, which masks of CBIS-DDSM have, to their lesion. On large masks it works on
    squares of `SHRUNK` pixels, so that which areas are joined may depend on where they lie by that much; the boxes are those of
    the mask's own pixels.
    """
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not len(rows):
        return []
    room = closing_side(mask.shape)
    unit = SHRUNK if room >= SHRUNK**2 else 1
    square = room // unit
    # Only the part with something in it, and room for the closing around it.
    top, left = max(0, int(rows[0]) - room) // unit * unit, max(0, int(columns[0]) - room) // unit * unit
    part = mask[top : int(rows[-1]) + 1 + room, left : int(columns[-1]) + 1 + room]
    height, width = -(-part.shape[0] // unit), -(-part.shape[1] // unit)
    padded = np.zeros((height * unit, width * unit), dtype=bool)
    padded[: part.shape[0], : part.shape[1]] = part
    # Any of its pixels, so that a lesion of one pixel is not lost between the squares.
    small = padded.reshape(height, unit, width, unit).any(axis=(1, 3))
    if square > 1:
        inner = (slice(square, -square), slice(square, -square))
        small = ndimage.binary_closing(np.pad(small, square), np.ones((square, square)))[inner]
    labels, count = ndimage.label(small, NEIGHBOURS)
    # The boxes are those of the mask's own pixels in each area.
    fine = labels.repeat(unit, axis=0).repeat(unit, axis=1)[: part.shape[0], : part.shape[1]] * part
    sizes = np.bincount(fine.ravel(), minlength=count + 1)
    found = [
        Area(
            Box(place[0].start + top, place[1].start + left, place[0].stop + top, place[1].stop + left), int(sizes[label]), ()
        )
        for label, place in enumerate(ndimage.find_objects(fine), start=1)
        if place is not None
    ]  # fmt: skip
    return sorted(found, key=lambda area: (-area.pixels, area.box))


def _label_at(labels: np.ndarray, contour: np.ndarray, top: int, left: int) -> int:
    """The area of an outline: that of the first of its points that lies on the canvas."""
    rows, columns = np.floor(np.clip(contour, -FAR, FAR)).astype(int).T
    rows, columns = rows - top, columns - left
    on = (rows >= 0) & (columns >= 0) & (rows < labels.shape[0]) & (columns < labels.shape[1])
    return int(labels[rows[on][0], columns[on][0]]) if on.any() else 0
