"""Square patches around lesions and in healthy tissue: which pixels of an image make one training example.

The recipe is that of Szafranowska et al., "Sharing generative models instead of private data" (2022): a square around
the lesion's bounding box with a margin, its side from the LARGER of height and width, translated back inside the image;
healthy boxes from images without any finding, with at most 40 % background. In training each box is zoomed by N(.2,
.33) and translated by N(0, .25) of its side, both clipped to +-.33, then resized by area.

Departures, each where the published code contradicts its own text: the translation is symmetric (the code only ever
moved up and left), the margin is applied once per side, and a jittered crop keeps the whole lesion wherever the image
allows. Healthy boxes have the sizes of lesion boxes and lie in the same part of the body, with as much background:
otherwise size, skin line and film edge would reveal the class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image as PillowImage
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data_partitions.exams import Box, Lesion
from data_partitions.preprocessing import Step

TISSUE_STEP = 8  # pixels between the samples of a tissue mask; gives shares of a box to a few per cent
CANDIDATES = 32  # positions tried for a healthy box in one image
SCATTER = 0.08  # of those positions around the lesion's, standard deviation in sizes of the body


class PatchTask(BaseModel):
    """What is to be classified, and how patches are cut; the field names are the keys of the scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "lesion"
    label: Literal["lesion", "malignancy"] = "lesion"
    lesions: Literal["all", "mass", "calcification"] = "all"
    image_size: int = Field(64, ge=16, le=256)
    channels: Literal[1, 3] = 1
    margin_px: int = Field(60, ge=0)
    margin_mm: float | None = Field(None, ge=0, description="used instead of margin_px where the pixel size is known")
    healthy_per_lesion: float = Field(1.0, gt=0)
    max_background: float = Field(0.4, ge=0, le=1)
    crops: int = Field(4, ge=1, le=64, description="jittered crops stored per training box")
    zoom: tuple[float, float] = Field((0.2, 0.33), description="mean and standard deviation, of the side")
    shift: tuple[float, float] = Field((0.0, 0.25), description="mean and standard deviation, of the side")
    clip: float = Field(0.33, ge=0, lt=1, description="bound of zoom and shift, of the side")
    whole_image: bool = Field(False, description="each image is one patch: its central square")
    keep_breast: bool = Field(
        False, description="whole images: squares around the breast, in training `crops` random ones (paper 003)"
    )
    minimum_px: int = Field(0, ge=0, description="smallest side of a square around a lesion (paper 001: 128)")
    preprocess: tuple[Step, ...] = Field((), description="steps on whole images, in order; see `preprocessing`")

    @field_validator("name")
    @classmethod
    def _is_a_file_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", value):
            raise ValueError(
                f"name {value!r} cannot be a file's name everywhere; start with a letter and use at most 40 letters, "
                "digits, - and _"
            )
        return value

    @model_validator(mode="after")
    def _breasts_are_on_whole_images(self) -> PatchTask:
        if self.keep_breast and not self.whole_image:
            raise ValueError("keep_breast is for whole images; set `whole_image: true` or leave it out")
        return self

    def margin(self, spacing_mm: float | None) -> int:
        """Margin around a lesion in pixels of an image with this pixel size."""
        if self.margin_mm is not None and spacing_mm:
            return round(self.margin_mm / spacing_mm)
        return self.margin_px

    def wants(self, lesion: Lesion) -> bool:
        """Whether the task uses this lesion: of its kind, and with a known label where one is needed."""
        return self.lesions in ("all", lesion.kind) and (self.label == "lesion" or lesion.malignant is not None)


def square_around(box: Box, margin: int, shape: tuple[int, int], minimum: int = 0) -> Box:
    """Square centred on `box` with `margin` pixels on the larger side, translated into an image of `shape`.

    Its side is at least `minimum`, and at most the smaller side of the image; then the lesion may not fit.
    """
    side = min(max(max(box.height, box.width) + 2 * margin, minimum), *shape)
    return _square(box.top + (box.height - side) // 2, box.left + (box.width - side) // 2, side, shape)


def central_square(shape: tuple[int, int]) -> Box:
    """The largest centred square of an image."""
    side = min(shape)
    return _square((shape[0] - side) // 2, (shape[1] - side) // 2, side, shape)


def square_around_body(body: Box, shape: tuple[int, int], rng: np.random.Generator | None = None) -> Box:
    """A square that holds `body`, or as much of it as the image allows.

    Without rng the smallest, with the body in the middle. With it, a side uniform between that one's and the image's
    smaller side, at a place uniform among those that keep the body: the random crops of paper 003.
    """
    least, most = min(max(body.height, body.width), *shape), min(shape)
    if rng is None:
        return _square((body.top + body.bottom - least) // 2, (body.left + body.right - least) // 2, least, shape)
    side = int(rng.integers(least, most + 1))
    top, left = (
        int(rng.integers(first, last + 1))
        for first, last in (
            _starts(body.top, body.bottom, side, shape[0]), _starts(body.left, body.right, side, shape[1])
        )
    )  # fmt: skip
    return Box(top, left, top + side, left + side)


def _starts(low: int, high: int, side: int, size: int) -> tuple[int, int]:
    """First and last start of an interval of length `side` inside 0 .. size that covers low .. high or lies within it."""
    first, last = sorted((high - side, low))
    return max(first, 0), min(last, size - side)


def jittered(square: Box, keep: Box, task: PatchTask, shape: tuple[int, int], rng: np.random.Generator) -> Box:
    """A zoomed and translated copy of `square` that stays inside the image and keeps `keep` where the image allows."""
    zoom, down, right = (
        float(np.clip(rng.normal(mean, deviation), -task.clip, task.clip))
        for mean, deviation in (task.zoom, task.shift, task.shift)
    )
    side = round(square.height * (1 + zoom))
    side = min(max(side, keep.height, keep.width, 1), *shape)
    middle_y, middle_x = (square.top + square.bottom) / 2, (square.left + square.right) / 2
    top = _kept(round(middle_y + down * square.height - side / 2), side, keep.top, keep.bottom)
    left = _kept(round(middle_x + right * square.width - side / 2), side, keep.left, keep.right)
    return _square(top, left, side, shape)


def union(boxes: Sequence[Box]) -> Box:
    """Smallest box around all `boxes`."""
    return Box(
        min(b.top for b in boxes), min(b.left for b in boxes), max(b.bottom for b in boxes), max(b.right for b in boxes)
    )


def resized(pixels: np.ndarray, size: int, channels: int) -> np.ndarray:
    """uint8 (side, side, c) to uint8 (channels, size, size): the mean over each output pixel's area.

    Smaller than `size`, where an area mean would only repeat pixels, it is bilinear. Colour becomes luminance (ITU-R
    601), and one channel becomes three equal ones, when `channels` asks for it.
    """
    picture = PillowImage.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture = picture.convert("L" if channels == 1 else "RGB")
    method = PillowImage.Resampling.BOX if pixels.shape[0] >= size else PillowImage.Resampling.BILINEAR
    out = np.asarray(picture.resize((size, size), method))
    return out[None] if channels == 1 else np.moveaxis(out, 2, 0)


class Place(NamedTuple):
    """Where a square lies in a body, relative to its size and side, and how much of the square is background."""

    down: float  # of the middle, in heights of the body, from its top
    inwards: float  # of the middle, in widths of the body, from its straight side (the chest wall)
    background: float  # share of the square


class TissueMap:
    """Where the body is in one image, from its coarse tissue mask: every `step`-th row and column.

    mask: bool (rows, columns). Counts of any box are read off a summed-area table.
    """

    def __init__(self, mask: np.ndarray, step: int) -> None:
        self.step = step
        self.shape = mask.shape
        self.sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.int32)
        inside = self.sums[1:, 1:]
        np.cumsum(np.cumsum(mask, axis=1, dtype=np.int32), axis=0, out=inside)
        rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        self.empty = not len(rows)
        if not self.empty:
            self.top, self.height = rows[0] * step, (rows[-1] + 1 - rows[0]) * step
            self.left, self.width = columns[0] * step, (columns[-1] + 1 - columns[0]) * step
            # The chest wall is on the side with more of the body.
            middle = (columns[0] + columns[-1] + 1) // 2
            left = self.sums[-1, middle]
            self.wall_is_left = left >= self.sums[-1, -1] - left

    @property
    def box(self) -> Box:
        """Around the body, to the precision of the samples; the whole image without a body."""
        if self.empty:
            return Box(0, 0, self.shape[0] * self.step, self.shape[1] * self.step)
        return Box(*map(int, (self.top, self.left, self.top + self.height, self.left + self.width)))

    def background(self, square: Box) -> float:
        """Share of background in [0, 1], counted from the samples at or before the square's corner."""
        top, left = square.top // self.step, square.left // self.step
        bottom = min(max(top + 1, math.ceil(square.bottom / self.step)), self.shape[0])
        right = min(max(left + 1, math.ceil(square.right / self.step)), self.shape[1])
        inside = self.sums[bottom, right] - self.sums[top, right] - self.sums[bottom, left] + self.sums[top, left]
        return 1 - float(inside) / ((bottom - top) * (right - left))

    def place(self, square: Box) -> Place:
        """Where in the body a square lies; the middle of an image without a body."""
        if self.empty:
            return Place(0.5, 0.5, 1.0)
        down = ((square.top + square.bottom) / 2 - self.top) / self.height
        across = ((square.left + square.right) / 2 - self.left) / self.width
        return Place(float(down), float(across if self.wall_is_left else 1 - across), self.background(square))

    def middle(self, down: float, inwards: float) -> tuple[float, float]:
        """Row and column of a place in this body."""
        across = inwards if self.wall_is_left else 1 - inwards
        return self.top + down * self.height, self.left + across * self.width


def healthy_square(
    side: int, like: Place, tissue: TissueMap, shape: tuple[int, int], task: PatchTask, taken: Sequence[Box],
    rng: np.random.Generator,
) -> Box | None:  # fmt: skip
    """A square of `side` pixels that lies in this body about where a lesion's square lies in another.

    Of CANDIDATES squares scattered around that place, those with at most `task.max_background` and clear of `taken` are
    allowed, and the one whose background is closest to the lesion's square is returned; None where none is allowed.
    """
    if tissue.empty:
        return None
    side = min(side, *shape)
    allowed: list[tuple[float, Box]] = []
    for offset in rng.normal(0, SCATTER, (CANDIDATES, 2)):
        row, column = tissue.middle(like.down + offset[0], like.inwards + offset[1])
        square = _square(round(row - side / 2), round(column - side / 2), side, shape)
        share = tissue.background(square)
        if share <= task.max_background and not any(square.overlaps(other) for other in taken):
            allowed.append((abs(share - like.background), square))
    return min(allowed)[1] if allowed else None


def _kept(start: int, side: int, low: int, high: int) -> int:
    """Nearest start of an interval of length `side` that covers low .. high; `side` is at least high - low, or the
    image's whole side."""
    return min(max(start, high - side), low)


def _square(top: int, left: int, side: int, shape: tuple[int, int]) -> Box:
    top, left = min(max(top, 0), shape[0] - side), min(max(left, 0), shape[1] - side)
    return Box(top, left, top + side, left + side)
