"""Patches around lesions and in healthy tissue: which pixels of an image make one training example.

The recipe is that of Szafranowska et al., "Sharing generative models instead of private data" (2022): a square around
the lesion's bounding box with a margin, its side from the LARGER of height and width, translated back inside the image;
healthy boxes from images without any finding, with at most 40 % background. In training each box is zoomed by N(.2,
.33) and translated by N(0, .25) of its side, both clipped to +-.33, then resized by area.

Departures, each where the published code contradicts its own text: the translation is symmetric (the code only ever
moved up and left), the margin is applied once per side, and a jittered crop keeps the whole lesion wherever the image
allows. Healthy boxes have the sizes of lesion boxes and lie in the same part of the body, with as much background:
otherwise size, skin line and film edge would reveal the class.

Where a task's images are rectangles, "square" means a box of their shape, and its side is the smaller one: what a square of
that side would hold of the lesion, the rectangle holds too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from basics.image_shape import ImageShape, ImageSize, Storage
from data_partitions.classes import CLASSES_OF, HEALTHY, Label, check_classes, label_of, words_of_image, words_of_lesion
from data_partitions.exams import Box, Exam, Lesion
from data_partitions.frames import Frame
from data_partitions.preprocessing import Step

TISSUE_STEP = 8  # pixels between the samples of a tissue mask; gives shares of a box to a few per cent
CANDIDATES = 32  # positions tried for a healthy box in one image
SCATTER = 0.08  # of those positions around the lesion's, standard deviation in sizes of the body


class PatchTask(BaseModel):
    """What is to be classified, and how patches are cut; the field names are the keys of the scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "lesion"
    label: Label = Field("lesion", description="what classes are told apart by; diagnosis: by `classes`")
    classes: tuple[str, ...] = Field(
        CLASSES_OF["lesion"], description="in the order of their labels; of two the second is the positive one"
    )
    others: Literal["refuse", "leave_out"] = Field(
        "refuse", description="images and lesions that show none of the classes"
    )
    lesions: Literal["all", "mass", "calcification"] = "all"
    image_size: ImageSize = Field((64, 64), description="height and width in pixels, one number for a square")
    channels: Literal[1, 3] = 1
    storage: Storage = Field("uint8", description="levels of a stored patch; uint16 keeps what a detector saw")
    margin_px: int = Field(60, ge=0)
    margin_mm: float | None = Field(None, ge=0, description="used instead of margin_px where the pixel size is known")
    healthy_per_lesion: float = Field(1.0, gt=0)
    max_background: float = Field(0.4, ge=0, le=1)
    crops: int = Field(4, ge=1, le=64, description="jittered crops stored per training box")
    zoom: tuple[float, float] = Field((0.2, 0.33), description="mean and standard deviation, of the side")
    shift: tuple[float, float] = Field((0.0, 0.25), description="mean and standard deviation, of the side")
    clip: float = Field(0.33, ge=0, lt=1, description="bound of zoom and shift, of the side")
    whole_image: bool = Field(False, description="each image is one patch: the largest central one of the task's shape")
    keep_breast: bool = Field(
        False, description="whole images: boxes around the breast, in training `crops` random ones (paper 003)"
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

    @model_validator(mode="before")
    @classmethod
    def _classes_and_label(cls, data: Any) -> Any:
        """`label` alone names its classes, and `classes` alone their label."""
        if not isinstance(data, dict):
            return data
        if isinstance(data.get("classes"), str):
            raise ValueError(f"classes is {data['classes']!r}; give a list of names, such as [benign, malignant]")
        label, classes = data.get("label"), data.get("classes")
        for key in ("labels", "multi_label", "target", "features"):
            if key in data:
                raise ValueError(
                    f"{key} is not a key of a task: an image shows one class (no multi-label, no tabular data); name them in classes"
                )
        if classes is None:
            return data | ({"classes": CLASSES_OF[label]} if label in CLASSES_OF else {})
        if not isinstance(classes, list | tuple) or any(
            name is None or isinstance(name, bool | float) for name in classes
        ):
            raise ValueError(f"classes is {classes!r}; give a list of names, such as [benign, malignant]")
        if any(isinstance(name, list | tuple | dict) for name in classes):
            raise ValueError("classes holds a list: an image shows one class (no multi-label); give one name each")
        names = tuple(str(name) for name in classes)
        if label is None:
            found = next((label for label, own in CLASSES_OF.items() if own == names), "diagnosis")
            return data | {"classes": names, "label": found}
        return data | {"classes": names}

    @model_validator(mode="after")
    def _classes_fit(self) -> PatchTask:
        own = CLASSES_OF.get(self.label)
        if own is None and "classes" not in self.model_fields_set:
            raise ValueError("label diagnosis needs classes, such as classes: [mel, nv, bcc]")
        if own is not None and self.classes != own:
            raise ValueError(
                f"classes of label {self.label} are {', '.join(own)} in this order, not {', '.join(self.classes)}; leave them out, or "
                "set label: diagnosis"
            )
        check_classes(self.classes)
        if self.storage == "uint16" and any(step.step == "clahe" for step in self.preprocess):
            raise ValueError("storage is uint16, but clahe works on 256 levels; leave one of them out")
        return self

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
        """Whether the task uses this lesion: of its kind, and of one of its classes."""
        return self.lesions in ("all", lesion.kind) and self.label_of_lesion(lesion) is not None

    def label_of_lesion(self, lesion: Lesion) -> int | None:
        """Label of a lesion's patch; None where it shows none of the classes, or nobody knows which."""
        return label_of(words_of_lesion(lesion, self.label), self.classes)

    def label_of_image(self, exam: Exam) -> int | None:
        """Label of a whole image; likewise."""
        return label_of(words_of_image(exam, self.label), self.classes)

    @property
    def healthy(self) -> int | None:
        """Label of patches without a lesion; None: the task has none."""
        return label_of((HEALTHY,), self.classes)

    @property
    def shape(self) -> ImageShape:
        """Of a patch."""
        return ImageShape.of(self.image_size, self.channels)

    @property
    def frame(self) -> Frame:
        """Boxes of the shape of its patches."""
        return Frame(*self.image_size)


def jittered(square: Box, keep: Box, task: PatchTask, shape: tuple[int, int], rng: np.random.Generator) -> Box:
    """A zoomed and translated copy of `square` that stays inside the image and keeps `keep` where the image allows."""
    zoom, down, right = (
        float(np.clip(rng.normal(mean, deviation), -task.clip, task.clip))
        for mean, deviation in (task.zoom, task.shift, task.shift)
    )
    frame = task.frame
    side = round(min(square.height, square.width) * (1 + zoom))
    side = min(max(side, frame.around(keep.height, keep.width), 1), frame.largest(shape))
    height, width = frame.sides(side)
    middle_y, middle_x = (square.top + square.bottom) / 2, (square.left + square.right) / 2
    top = _kept(round(middle_y + down * square.height - height / 2), height, keep.top, keep.bottom)
    left = _kept(round(middle_x + right * square.width - width / 2), width, keep.left, keep.right)
    return frame.box(top, left, side, shape)


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
    """A square of `side` that lies in this body about where a lesion's square lies in another.

    Of CANDIDATES squares scattered around that place, those with at most `task.max_background` and clear of `taken` are
    allowed, and the one whose background is closest to the lesion's square is returned; None where none is allowed.
    """
    if tissue.empty:
        return None
    frame = task.frame
    side = min(side, frame.largest(shape))
    height, width = frame.sides(side)
    allowed: list[tuple[float, Box]] = []
    for offset in rng.normal(0, SCATTER, (CANDIDATES, 2)):
        row, column = tissue.middle(like.down + offset[0], like.inwards + offset[1])
        square = frame.box(round(row - height / 2), round(column - width / 2), side, shape)
        share = tissue.background(square)
        if share <= task.max_background and not any(square.overlaps(other) for other in taken):
            allowed.append((abs(share - like.background), square))
    return min(allowed)[1] if allowed else None


def _kept(start: int, side: int, low: int, high: int) -> int:
    """Nearest start of an interval of length `side` that covers low .. high; `side` is at least high - low, or the
    image's whole side."""
    return min(max(start, high - side), low)
