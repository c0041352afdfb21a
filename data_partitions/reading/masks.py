"""Masks as files: what in them is a lesion. One reader for every source that has masks.

Foreground is what is above zero, and which values are above zero decides what a mask is:

    0 and 1, 0 and 255, 0 and the largest value     binary: each connected area is a lesion
    all within 32 of 0 or of 255, some above 222    binary with the noise of compression: what is above 127
    any other whole numbers                         a fault
    fractions from 0 to 1 (.npy, TIFF)              soft: what is above `mask_threshold`, 0.5 where it is left out

With `mask_classes` numbers are classes and nothing else: one that it does not name is a fault, and so are fractions. With
`mask_threshold` every mask is soft: a share of the largest value that its format can hold (255; 65535 of 16 bits; 2^BitsStored - 1 of
DICOM; 1 of fractions). Values are those that are stored: 0 and 1 of one bit, the numbers of a coloured palette, and of DICOM without
window and inversion. Areas touch by any of 8 neighbours, and are joined over small gaps (`contours.mask_areas`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as PillowImage

from data_partitions.errors import BadFile
from data_partitions.exams import Box
from data_partitions.reading.contours import mask_areas
from data_partitions.reading.dicom_image import DicomImage
from data_partitions.reading.image_files import (
    alpha,
    decoded,
    has_white_zero,
    is_deep_colour,
    kind_of,
    opaque,
    opened,
    upright,
)
from data_partitions.reading.limits import Limits
from data_partitions.reading.looks import looks
from data_partitions.reading.opening import check_finite, guarded

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
            stored = _stored(file, limits)
            layers, more = _layers(stored, rule)
            areas: list[Any] = [
                (list(area.box), area.pixels, name) for name, layer in layers for area in mask_areas(layer)
            ]
    except BadFile as error:
        return MaskLook(0, 0, [], error.code, str(error))
    height, width = stored.values.shape
    return MaskLook(height, width, areas, facts=(*stored.facts, *more))


class _Stored(NamedTuple):
    """What a mask's file holds: numbers (height, width), the largest that its format can hold, and what was changed."""

    values: np.ndarray
    top: int
    facts: tuple[str, ...] = ()


def _stored(file: Path, limits: Limits) -> _Stored:
    """Raises BadFile."""
    kind, facts = kind_of(file), list[str]()
    if kind == "dicom":
        image = DicomImage(file, limits)
        return _Stored(image.stored(), image.largest)
    if kind == "array":
        pixels = decoded(file, limits).pixels
    else:
        with opened(file, limits) as picture:
            if has_white_zero(picture):
                raise BadFile(
                    "bad_annotation",
                    "is a mask in which 0 is white (PhotometricInterpretation WhiteIsZero): whether its lesions are what is white or "
                    "what is above 0 is not known; export it with black as 0",
                )
            if is_deep_colour(picture):
                raise BadFile(
                    "bad_annotation", "is a mask with several channels of 16 bits; export it with one channel"
                )
            picture, facts = upright(picture)
            if picture.mode == "P" and not _is_grey(picture.getpalette() or []):
                pixels = _numbers_of_colours(picture)
            else:
                pixels, transparent = opaque(picture)
                if transparent and not pixels.any() and len(np.unique(alpha(picture))) > 1:
                    raise BadFile(
                        "bad_annotation",
                        "is a black mask with a shape in its transparency alone; export it as white on black",
                    )
                facts += transparent
    if pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
        raise BadFile("bad_annotation", "is a mask in colours; export it with one channel of class numbers")
    return _Stored(pixels[..., 0] if pixels.ndim == 3 else pixels, _top(pixels.dtype), tuple(facts))


def _top(dtype: np.dtype) -> int:
    """The largest value of a format that Pillow or numpy read as `dtype`: 16 bits where they read more (PGM), 1 of fractions."""
    if dtype.kind not in "ui":
        return 1
    return int(min(np.iinfo(dtype).max, 2**16 - 1))


def _is_grey(palette: list[int]) -> bool:
    colours = np.array(palette, dtype=np.int64).reshape(-1, 3)
    return bool(len(colours) and (colours == colours[:, :1]).all())


def _numbers_of_colours(picture: PillowImage.Image) -> np.ndarray:
    """The numbers of a coloured palette, in which 0 has to be the background. Raises BadFile."""
    numbers = np.asarray(picture)
    colours = np.array(picture.getpalette(), dtype=np.int64).reshape(-1, 3)
    black = [int(number) for number in np.unique(numbers) if number < len(colours) and not colours[number].any()]
    if black and colours[0].any():
        raise BadFile(
            "bad_annotation",
            f"is a mask whose palette has a colour for 0 and black for {black[0]}; export it with 0 for the background",
        )
    return numbers


def _layers(stored: _Stored, rule: MaskRule) -> tuple[list[tuple[str, np.ndarray]], tuple[str, ...]]:
    """(class, bool mask) of each class that occurs, and what was changed. Raises BadFile."""
    values = stored.values
    if values.dtype.kind == "f":
        check_finite(values, "repair the mask")
    present = np.unique(values)
    whole = values.dtype.kind in "bui" or bool((present == np.rint(present)).all())
    if present[0] < 0 or (not whole and (present[-1] > 1 or rule.classes)):
        raise BadFile(
            "bad_annotation",
            f"is a mask with values from {present[0]:g} to {present[-1]:g}; expected whole numbers"
            + ("" if rule.classes else ", or fractions from 0 to 1"),
        )
    numbers = [int(number) for number in present if number] if whole else []
    if rule.classes:  # numbers are classes, whatever else they look like
        unnamed = [number for number in numbers if number not in rule.classes]
        if unnamed:
            raise BadFile(
                "bad_annotation",
                f"is a mask with the values {_few(unnamed)} beside 0, which `mask_classes` does not name; add them, as in "
                f"`mask_classes: {{{unnamed[0]}: mass}}`, or `{unnamed[0]}: {IGNORED}` for what is no lesion",
            )
        named = [(rule.classes[number], number) for number in numbers]
        return [(name, values == number) for name, number in named if name != IGNORED], ()
    if rule.threshold is not None or not whole:
        _check_range(stored, float(present[-1]))
        return [("", values > (SOFT if rule.threshold is None else rule.threshold) * stored.top)], ("soft_masks",)
    if numbers in ([], [1], [255], [stored.top]):
        return [("", values > 0)], ()
    if values.dtype == np.uint8 and stored.top == 255 and numbers[-1] > 255 - NOISE - 1 and all(
        number <= NOISE or number >= 255 - NOISE for number in numbers
    ):  # fmt: skip
        return [("", values > 127)], ("noisy_masks",)
    raise BadFile(
        "bad_annotation",
        f"is a mask with the values {_few(numbers)} beside 0; a mask has 0 and 1, 0 and 255, or classes that are named: "
        f"`mask_classes: {{{numbers[0]}: mass}}`; of a soft mask set `mask_threshold: {SOFT}`",
    )


def _check_range(stored: _Stored, largest: float) -> None:
    """Raises BadFile where a soft mask's largest value says that it has another range than its format.

    A mask of 0 to 255 in 16 bits would be empty under any threshold, and its image healthy. Fractions may be as small as they are.
    """
    if largest > stored.top or (stored.top > 1 and 0 < largest * 2 <= stored.top):
        raise BadFile(
            "bad_annotation",
            f"is a soft mask whose largest value is {largest:g}, and its file holds 0 to {stored.top}: what its values are shares of is "
            "not known; save it over the whole range, or leave `mask_threshold` out of a mask that is not soft",
        )


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")
