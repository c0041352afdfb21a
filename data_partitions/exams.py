"""What a data source hands over: exams (one image each) with patient, lesions and acquisition, pixels on demand.

Boxes are (top, left, bottom, right) in pixels, half open: rows top .. bottom - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from basics.image_shape import Storage


class Box(NamedTuple):
    """Rows top .. bottom - 1 and columns left .. right - 1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def overlaps(self, other: Box) -> bool:
        return (
            self.top < other.bottom and other.top < self.bottom and self.left < other.right and other.left < self.right
        )

    def clipped(self, shape: tuple[int, int]) -> Box:
        """The part inside an image of `shape` (height, width)."""
        height, width = shape
        top, left = min(max(self.top, 0), height), min(max(self.left, 0), width)
        return Box(top, left, max(top, min(self.bottom, height)), max(left, min(self.right, width)))


FAR = 1e9  # pixels; points beyond it are as far outside every image as points at it


def bounding_box(contour: np.ndarray) -> Box:
    """Smallest box around points (k, 2) of (y, x) in pixels."""
    near = np.clip(contour, -FAR, FAR)
    low, high = np.floor(near.min(axis=0)).astype(int), np.ceil(near.max(axis=0)).astype(int)
    return Box(int(low[0]), int(low[1]), max(int(high[0]), int(low[0]) + 1), max(int(high[1]), int(low[1]) + 1))


KINDS = ("mass", "calcification", "distortion", "other")


@dataclass(frozen=True)
class Lesion:
    """One finding on one image. `kind`: mass, calcification, distortion or other; `contour`: (k, 2) of (y, x).

    diagnosis: the source's own word for what it is, where it has one.
    """

    box: Box
    kind: str = "other"
    malignant: bool | None = None
    birads: str = ""
    contour: np.ndarray | None = None
    diagnosis: str = ""


class Image(Protocol):
    """Pixels of one exam, decoded or rendered where they are asked for.

    An image that knows more than 256 levels has a method `deep_window`, too: `window` as uint16, of which 65535 is white.
    """

    def window(self, box: Box) -> np.ndarray:
        """uint8 (height, width, channels) of the part of the image inside `box`; `box` lies inside the image."""
        ...

    def tissue(self, step: int) -> np.ndarray:
        """bool (ceil(height / step), ceil(width / step)): which of every `step`-th pixels show the body."""
        ...


def stored_window(image: Image, box: Box, storage: Storage) -> np.ndarray:
    """A window as a task stores it: uint8 or uint16 (height, width, channels). Of an image of 256 levels each is kept (x 257)."""
    if storage == "uint8":
        return image.window(box)
    deep = getattr(image, "deep_window", None)
    return image.window(box).astype(np.uint16) * np.uint16(257) if deep is None else deep(box)


@dataclass(frozen=True)
class Exam:
    """One image of one patient.

    `healthy_sites` are places in healthy tissue that the source proposes for healthy boxes (drawn like lesions, but
    without one); None lets the extraction draw them. `usable_as_healthy` is False where a finding exists that was
    not located. `file` is the path below the source's folder, where the exam has a file of its own.
    """

    patient: str
    name: str
    shape: tuple[int, int]
    open: Callable[[], Image] = field(repr=False)
    view: str = ""
    laterality: str = ""
    density: str = ""
    age: float | None = None
    scanner: str = ""
    spacing_mm: float | None = None
    malignant: bool | None = None
    diagnosis: str = ""
    lesions: tuple[Lesion, ...] = ()
    healthy_sites: tuple[Lesion, ...] | None = None
    usable_as_healthy: bool = True
    site: str = ""
    split: str = ""
    file: str = ""


@dataclass(frozen=True)
class Cohort:
    """A centre's exams, what was left out or moved (counts, safe to show), and the names behind it (private).

    `groups` maps a patient to the group that no split may divide, where that is more than the patient. `for_test` are
    patients that the archive itself keeps for testing: they and their groups, and nobody else, are the test split.
    """

    exams: list[Exam]
    report: dict = field(default_factory=dict)
    private: dict = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    for_test: frozenset[str] = frozenset()

    def group(self, patient: str) -> str:
        return self.groups.get(patient, patient)
