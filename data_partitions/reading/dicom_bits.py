"""Which bits of a DICOM word are a value, and which values are padding (PS3.3, C.7.6.3 and C.7.5.1.1.2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pydicom

from data_partitions.errors import BadFile
from data_partitions.reading.dicom_tags import whole


class Bits(NamedTuple):
    """Where the stored bits lie in a word: `stored` of them, the highest of which is number `high`, from 0."""

    allocated: int
    stored: int
    high: int

    @property
    def below(self) -> int:
        """Unused bits below the stored ones."""
        return self.high + 1 - self.stored


def stored_bits(dataset: pydicom.Dataset) -> Bits:
    """Where the stored bits lie. Raises BadFile where they cannot lie there."""
    allocated = int(dataset.get("BitsAllocated") or 0)
    stored = int(dataset.get("BitsStored") or allocated)
    high = dataset.get("HighBit")
    found = Bits(allocated, stored, stored - 1 if high in (None, "") else int(high))
    if not 0 < stored <= allocated or found.below < 0 or found.high >= allocated:
        raise BadFile(
            "bad_image",
            f"announces {stored} of {allocated} bits with HighBit {found.high}, which is impossible; export it again",
        )
    return found


def check_surplus(dataset: pydicom.Dataset, length: int) -> None:
    """Raises BadFile where uncompressed pixels of `length` bytes are a row or more longer than the size of the image says.

    Rows is too small then, or several images have no NumberOfFrames: a part would pass as the whole. Less than a row is filling.
    """
    frames = int(dataset.get("NumberOfFrames") or 1)
    row = int(dataset.Columns) * int(dataset.SamplesPerPixel) * stored_bits(dataset).allocated
    expected = row * int(dataset.Rows) * frames
    if length * 8 - expected >= max(row, 16):  # a single byte makes the length even
        raise BadFile(
            "bad_image",
            f"has {length:,} bytes of pixels, and {dataset.Rows} rows of {dataset.Columns} in {frames} frame{'s' * (frames > 1)} are "
            f"{-(-expected // 8):,}: its size or its number of frames is wrong; export it again",
        )


def without_unused_bits(words: np.ndarray, where: Bits, out: np.ndarray | None = None) -> np.ndarray:
    """The stored values in words of any size: unused bits above and below are dropped, and a sign is carried upwards.

    out: as for a ufunc; `words` itself where they may be changed.
    """
    width = 8 * words.dtype.itemsize
    up, down = width - 1 - where.high, width - where.stored
    if not up and not down:
        return words
    raised = np.left_shift(words, up, out=out)
    return np.right_shift(raised, down, out=raised)


def padding(dataset: pydicom.Dataset) -> tuple[int, int] | None:
    """First and last stored value that are padding; None where the file names none that can occur in it."""
    value, limit = (whole(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return None
    where, signed = stored_bits(dataset), bool(dataset.PixelRepresentation)
    least = -(2 ** (where.stored - 1)) if signed else 0
    ends = []
    for end in (value, value if limit is None else limit):
        if signed and end >= 2 ** (where.allocated - 1):  # written as an unsigned word
            end -= 2**where.allocated
        if not least <= end < least + 2**where.stored:
            return None
        ends.append(end)
    return min(ends), max(ends)


def is_padding(stored: np.ndarray, padded: tuple[int, int]) -> np.ndarray:
    """bool: which stored values are padding."""
    return (stored >= padded[0]) & (stored <= padded[1])
