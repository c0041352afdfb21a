"""Masks as files: what in them is a lesion. One reader for every source that has masks.

Foreground is what is above zero, and which values are above zero decides what a mask is:

    0 and 1, 0 and 255 (0 and 65535 of 16 bits)    binary: each connected area is a lesion
    all within 32 of 0 or of 255, some above 222    binary with the noise of compression: what is above 127
    any other whole numbers                         class numbers, each named in `mask_classes`; a number that it does not name is a
                                                    fault
    fractions from 0 to 1 (.npy, TIFF)              soft: what is above `mask_threshold`, 0.5 where it is left out

With `mask_threshold` every mask is soft: its share of the largest value (255, 65535 or 1). Values are those that are stored: the
numbers of a coloured palette, and of DICOM without window and inversion. Areas touch by any of 8 neighbours, and are joined over
small gaps (`contours.mask_areas`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_partitions.errors import BadFile
from data_partitions.exams import Box
from data_partitions.reading.contours import mask_areas
from data_partitions.reading.dicom_image import DicomImage
from data_partitions.reading.image_files import decoded, kind_of, opaque, opened, upright
from data_partitions.reading.limits import Limits
from data_partitions.reading.looks import looks
from data_partitions.reading.opening import guarded

NOISE = 32  # grey values that JPEG may leave beside 0 and 255
SOFT = 0.5
SHOWN = 5  # class numbers in a message
IGNORED = "none"


@dataclass(frozen=True)
class MaskRule:
    """How masks are read. classes: number -> the class's word, "none" for what is no lesion; threshold: of soft masks."""

    classes: Mapping[int, str] = field(default_factory=dict)
    threshold: float | None = None


class Found(NamedTuple):
    """One connected area of a mask: its box, its pixels and its class ("" in a binary mask)."""

    box: Box
    pixels: int
    name: str


class MaskLook(NamedTuple):
    """What one look at a mask showed: its size and areas, or what is wrong. facts: by the names in `facts`."""

    height: int
    width: int
    areas: list[tuple[list[int], int, str]]
    code: str = ""
    text: str = ""
    facts: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def found(self) -> list[Found]:
        return [Found(Box(*box), pixels, name) for box, pixels, name in self.areas]


def mask_looks(files: list[Path], cache: Path | None, rule: MaskRule, limits: Limits) -> list[MaskLook]:
    """A look at each mask; see `looks`."""
    settings = f"{sorted(rule.classes.items())} {rule.threshold}"
    return looks(files, cache, "masks", partial(_look, rule=rule), MaskLook, limits, settings)


def _look(file: Path, limits: Limits, rule: MaskRule) -> MaskLook:
    try:
        with guarded():
            values, facts = _values(file, limits)
            layers, more = _layers(values, rule)
            areas: list[Any] = [
                (list(area.box), area.pixels, name) for name, layer in layers for area in mask_areas(layer)
            ]
    except BadFile as error:
        return MaskLook(0, 0, [], error.code, str(error))
    height, width = values.shape
    return MaskLook(height, width, areas, facts=(*facts, *more))


def _values(file: Path, limits: Limits) -> tuple[np.ndarray, tuple[str, ...]]:
    """(height, width) of stored numbers, and what was changed. Raises BadFile."""
    kind, facts = kind_of(file), list[str]()
    if kind == "dicom":
        return DicomImage(file, limits).stored(), ()
    if kind == "array":
        pixels = decoded(file, limits).pixels
    else:
        with opened(file, limits) as picture:
            picture, facts = upright(picture)
            if picture.mode == "P" and not _is_grey(picture.getpalette() or []):
                pixels = np.asarray(picture)
            else:
                pixels, transparent = opaque(picture)
                facts += transparent
    if pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
        raise BadFile("bad_annotation", "is a mask in colours; export it with one channel of class numbers")
    return (pixels[..., 0] if pixels.ndim == 3 else pixels), tuple(facts)


def _is_grey(palette: list[int]) -> bool:
    colours = np.array(palette, dtype=np.int64).reshape(-1, 3)
    return bool(len(colours) and (colours == colours[:, :1]).all())


def _layers(values: np.ndarray, rule: MaskRule) -> tuple[list[tuple[str, np.ndarray]], tuple[str, ...]]:
    """(class, bool mask) of each class that occurs, and what was changed. Raises BadFile."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadFile("nan_pixels", "has pixels that are not finite; repair the mask")
    present = np.unique(values)
    whole = values.dtype.kind in "bui" or bool((present == np.rint(present)).all())
    if present[0] < 0 or (not whole and present[-1] > 1):
        raise BadFile(
            "bad_annotation",
            f"is a mask with values from {present[0]:g} to {present[-1]:g}; expected whole numbers, or fractions from 0 to 1",
        )
    if rule.threshold is not None or not whole:
        top = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
        return [("", values > (SOFT if rule.threshold is None else rule.threshold) * top)], ("soft_masks",)
    numbers = [int(number) for number in present if number]
    if numbers and set(numbers) <= set(rule.classes):
        named = [(rule.classes[number], number) for number in numbers]
        return [(name, values == number) for name, number in named if name != IGNORED], ()
    full = 65535 if values.dtype.itemsize > 1 and values.dtype.kind in "ui" else 255
    if numbers in ([], [1], [255], [full]):
        return [("", values > 0)], ()
    if values.dtype == np.uint8 and numbers[-1] > 255 - NOISE - 1 and all(
        number <= NOISE or number >= 255 - NOISE for number in numbers
    ):  # fmt: skip
        return [("", values > 127)], ("noisy_masks",)
    unknown = [number for number in numbers if number not in rule.classes]
    more = ", ..." if len(unknown) > SHOWN else ""
    raise BadFile(
        "bad_annotation",
        f"is a mask with the values {', '.join(map(str, unknown[:SHOWN]))}{more} beside 0; a mask has 0 and 1, 0 and 255, or classes "
        f"that are named: `mask_classes: {{{unknown[0]}: mass}}`; of a soft mask set `mask_threshold: {SOFT}`",
    )
