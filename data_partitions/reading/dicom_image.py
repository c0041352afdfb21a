"""A DICOM image that is read in part: a window costs the rows that it covers, not the whole image.

A full-field mammogram has 13 million pixels, and patches need few of them. The rows of an uncompressed file are read when a
box needs them; any other file is decoded once, whole. How a stored value is displayed (rescale, window or table,
MONOCHROME1, eight bits) is computed once for each of the at most 65,536 values by the functions of `dicom`; pixels look it
up.

The body is found on the displayed means of stored values, not on the means of displayed values: at the edges of a window
the two differ by less than the mask's coarse step.

Longer than most files, because it is one class: an image that is read in part, however it is stored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from data_partitions.errors import BadFile
from data_partitions.exams import Box
from data_partitions.reading import dicom
from data_partitions.reading.body import body_mask
from data_partitions.reading.dicom_bits import (
    Bits,
    check_surplus,
    is_padding,
    padding,
    stored_bits,
    without_unused_bits,
)
from data_partitions.reading.limits import DEFAULT, Limits
from data_partitions.reading.opening import check_bytes, check_finite, guarded

BAND = 32  # rows at a time: their values stay in a core's cache
SAMPLED = 16  # rows that tell images apart at first
PIXEL_DATA = b"\xe0\x7f\x10\x00"


class Rows(Protocol):
    """Stored values of one image, dtype uint8, int8, uint16 or int16."""

    shape: tuple[int, int]
    dtype: np.dtype

    def spans(self, spans: Iterable[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Rows top .. bottom - 1 of each (top, bottom), each (bottom - top, width) and valid until the next is asked for."""
        ...

    def whole(self) -> np.ndarray: ...

    def has_unused_bits(self, spans: Iterable[tuple[int, int]]) -> bool:
        """Whether bits are set in these rows that hold no values."""
        ...


class DicomImage:
    """One image as it is shown, 1 channel of 8 or 16 bits. Raises BadFile."""

    def __init__(self, path: Path, limits: Limits = DEFAULT, *, dark_background: bool = True) -> None:
        self.dark_background = dark_background
        check_bytes(path, limits)
        with guarded():
            with path.open("rb") as file:
                dataset = dicom.parsed(file, stop_before_pixels=True)
                self.header = dicom.greyscale_header(dataset, limits)
                rows: Rows | None = _rows_on_disk(path, file, dataset)
            if rows is None:
                dataset = dicom.parsed(path, stop_before_pixels=False)
                rows = _DecodedRows.of(dicom.stored_values(dataset), stored_bits(dataset))
            self.rows: Rows = rows
            self.shape = rows.shape
            self._dataset, self._shown_whole = dataset, None
            if rows.dtype.kind in "iu" and rows.dtype.itemsize <= 2:
                self.levels = self._levels(np.dtype(np.uint8))
            else:  # too many values for a table: the whole displayed image takes the place of the stored one
                if rows.dtype.kind == "f":
                    check_finite(rows.whole())
                self._shown_whole = dicom.shown_pixels(rows.whole(), dataset)
                self.rows = _DecodedRows(self._shown_whole.levels(np.dtype(np.uint8)))
                self.levels = np.arange(256, dtype=np.uint8)

    def facts(self) -> tuple[str, ...]:
        """What was changed or is doubtful, by the names in `facts`; unused bits are looked for in some rows alone."""
        found = ["unused_bits"] if self.rows.has_unused_bits(self._sampled()) else []
        padded = padding(self._dataset)
        if padded is not None and self._shown_whole is None:
            sampled = (is_padding(values, padded).any() for values in self.rows.spans(self._sampled()))
            found += ["padding"] if any(sampled) else []
        return (*self.header.facts, *found)

    def is_blank(self) -> bool:
        """Whether one grey value is all that is shown."""
        seen: set[int] = set()
        for spans in (self._sampled(), _bands(0, self.shape[0])):
            for values in self.rows.spans(spans):
                shown = np.empty(values.shape, dtype=self.levels.dtype)
                self._shown(values, shown, self.levels)
                seen |= {int(shown.min()), int(shown.max())}
                if len(seen) > 1:
                    return False
        return True

    def window(self, box: Box) -> np.ndarray:
        """uint8 (height, width, 1) of the part inside `box`."""
        return self._window(box, self.levels)

    def deep_window(self, box: Box) -> np.ndarray:
        """The same as uint16."""
        if self._shown_whole is not None:
            part = self._shown_whole.shown[box.top : box.bottom, box.left : box.right]
            return replace(self._shown_whole, shown=part).levels(np.dtype(np.uint16))[..., None]
        return self._window(box, self._deep_levels)

    def _window(self, box: Box, levels: np.ndarray) -> np.ndarray:
        out = np.empty((box.height, box.width), dtype=levels.dtype)
        bands = _bands(box.top, box.bottom)
        for (top, bottom), values in zip(bands, self.rows.spans(bands), strict=True):
            self._shown(values[:, box.left : box.right], out[top - box.top : bottom - box.top], levels)
        return out[..., None]

    @cached_property
    def _deep_levels(self) -> np.ndarray:
        return self._levels(np.dtype(np.uint16))

    def whole(self) -> np.ndarray:
        """uint8 (height, width, 1)."""
        return self.window(Box(0, 0, *self.shape))

    def stored(self) -> np.ndarray:
        """(height, width) of the values as they are stored; of files of more than 16 bits as they are shown."""
        return self.rows.whole()

    @property
    def largest(self) -> int:
        """The largest value that `stored` may have."""
        if self._shown_whole is not None:
            return 255
        return 2 ** (stored_bits(self._dataset).stored - int(self.rows.dtype.kind == "i")) - 1

    def tissue(self, step: int) -> np.ndarray:
        """bool (ceil(height / step), ceil(width / step)): which of every `step`-th pixels show the body."""
        height, width = self.shape
        if not self.dark_background:
            return np.ones((-(-height // step), -(-width // step)), dtype=bool)
        # The middle row of each block is enough to find a body.
        middles = np.minimum(np.arange(0, height, step) + step // 2, height - 1)
        rows = np.empty((len(middles), width), dtype=self.rows.dtype)
        for row, values in zip(rows, self.rows.spans((top, top + 1) for top in middles.tolist()), strict=True):
            row[:] = values[0]
        sums = np.zeros((len(rows), -(-width // step)), np.float32)
        for first in range(min(step, width)):
            part = rows[:, first::step]
            sums[:, : part.shape[1]] += part
        means = sums / np.minimum(step, width - np.arange(0, width, step)).astype(np.float32)
        grey = np.empty(means.shape, dtype=np.uint8)
        self._shown(np.rint(means).astype(self.rows.dtype), grey, self.levels)
        return body_mask(grey)

    def sample_digest(self) -> str:
        """Of some SAMPLED rows: differs only where images differ."""
        return self._digest([np.concatenate([values.copy() for values in self.rows.spans(self._sampled())])])

    def _sampled(self) -> list[tuple[int, int]]:
        return [(row, row + 1) for row in range(0, self.shape[0], max(1, self.shape[0] // SAMPLED))]

    def digest(self) -> str:
        """Of shape and all stored values: equal for equal images only."""
        return self._digest(self.rows.spans(_bands(0, self.shape[0])))

    def _digest(self, parts: Iterable[np.ndarray]) -> str:
        digest = hashlib.blake2b(repr((self.shape, self.rows.dtype.str)).encode(), digest_size=16)
        for values in parts:
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def _shown(self, values: np.ndarray, out: np.ndarray, levels: np.ndarray) -> None:
        places = values.view(_unsigned(self.rows.dtype)).astype(np.intp)
        # All places exist; with mode="raise" numpy would check each, and buffer `out`.
        np.take(levels, places, out=out, mode="clip")

    def _levels(self, depth: np.dtype) -> np.ndarray:
        """uint8 or uint16: what is shown of each stored value, in the order of the values as unsigned numbers."""
        dataset = self._dataset
        unsigned = _unsigned(self.rows.dtype)
        values = np.arange(2 ** (8 * unsigned.itemsize), dtype=np.int64).astype(unsigned).view(self.rows.dtype)
        extremes = None
        if not dicom.is_windowed(dataset):
            used = np.zeros(len(values), dtype=bool) if dataset.get("ModalityLUTSequence") else None
            low, high = self._extremes(used)
            # A table may turn the order of values over, so that every one of them has to be asked.
            asked = values[used] if used is not None and used.any() else np.array([low, high], dtype=values.dtype)
            rescaled = dicom.rescaled(asked[None], dataset)
            extremes = float(rescaled.min()), float(rescaled.max())
        return dicom.shown_pixels(values[None], dataset, extremes).levels(depth)[0]

    def _extremes(self, used: np.ndarray | None) -> tuple[int, int]:
        """Smallest and largest stored value without padding; marks those that occur in `used`, by unsigned number."""
        low, high = [], []
        padded = padding(self._dataset)
        for values in self.rows.spans(_bands(0, self.shape[0])):
            inside = values if padded is None else values[~is_padding(values, padded)]
            if inside.size:
                low.append(int(inside.min()))
                high.append(int(inside.max()))
            if used is not None:
                used[inside.view(_unsigned(inside.dtype))] = True
        return (min(low), max(high)) if low else (0, 0)


class _DecodedRows:
    """An image in memory. unused: whether bits were set that hold no values, and have been dropped."""

    def __init__(self, stored: np.ndarray, unused: bool = False) -> None:
        self.stored, self.shape, self.dtype = stored, (stored.shape[0], stored.shape[1]), stored.dtype
        self.unused = unused

    @classmethod
    def of(cls, decoded: np.ndarray, bits: Bits) -> _DecodedRows:
        """What a decoder made, without unused bits."""
        decoded = decoded.astype(decoded.dtype.newbyteorder("="), copy=False)
        if decoded.dtype.kind not in "iu":
            return cls(decoded)
        stored = without_unused_bits(decoded, bits._replace(high=bits.stored - 1))
        return cls(stored, unused=not np.array_equal(stored, decoded))

    def spans(self, spans: Iterable[tuple[int, int]]) -> Iterator[np.ndarray]:
        return (self.stored[top:bottom] for top, bottom in spans)

    def whole(self) -> np.ndarray:
        return self.stored

    def has_unused_bits(self, spans: Iterable[tuple[int, int]]) -> bool:
        return self.unused


class _RowsOnDisk:
    """An image that lies in its file as it is, little endian, from byte `start` on.

    The file is read, not mapped: if it is truncated meanwhile, that is an error instead of the end of the process.
    """

    def __init__(self, path: Path, start: int, shape: tuple[int, int], dtype: np.dtype, bits: Bits) -> None:
        self.path, self.start, self.shape, self.dtype, self.bits = path, start, shape, dtype, bits

    def spans(self, spans: Iterable[tuple[int, int]]) -> Iterator[np.ndarray]:
        return (without_unused_bits(words, self.bits, out=words) for words in self._words(spans))

    def whole(self) -> np.ndarray:
        return next(self.spans([(0, self.shape[0])]))

    def has_unused_bits(self, spans: Iterable[tuple[int, int]]) -> bool:
        own = self.bits._replace(high=self.bits.allocated - 1, stored=self.bits.allocated - self.bits.below)
        return any(
            not np.array_equal(without_unused_bits(words, self.bits), without_unused_bits(words, own))
            for words in self._words(spans)
        )

    def _words(self, spans: Iterable[tuple[int, int]]) -> Iterator[np.ndarray]:
        width, buffer = self.shape[1], np.empty(0, dtype=self.dtype)
        with self.path.open("rb", buffering=0) as file:
            number = file.fileno()
            for top, bottom in spans:
                if len(buffer) < (bottom - top) * width:  # one for all: fresh memory is slower than the disk's cache
                    buffer = np.empty((bottom - top) * width, dtype=self.dtype)
                values = buffer[: (bottom - top) * width].reshape(bottom - top, width)
                if os.preadv(number, [values.data], self.start + top * width * self.dtype.itemsize) != values.nbytes:
                    raise BadFile("bad_image", f"{self.path} ends before its row {bottom}; copy the file again")
                yield values


def _rows_on_disk(path: Path, file: BinaryIO, dataset: pydicom.Dataset) -> _RowsOnDisk | None:
    """The rows of an uncompressed image, `file` standing before its pixels; None where they have to be decoded."""
    syntax = dataset.file_meta.TransferSyntaxUID
    bits = stored_bits(dataset)
    if syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian) or bits.allocated not in (8, 16):
        return None
    if int(dataset.SamplesPerPixel) != 1:
        return None
    head = file.read(12)
    explicit = syntax == ExplicitVRLittleEndian
    if head[:4] != PIXEL_DATA or (explicit and head[4:6] not in (b"OB", b"OW")):
        return None
    length = int.from_bytes(head[8:12] if explicit else head[4:8], "little")
    start = file.tell() - (0 if explicit else 4)
    shape = int(dataset.Rows), int(dataset.Columns)
    size = shape[0] * shape[1] * bits.allocated // 8
    if length == 0xFFFFFFFF or length < size or start + size > path.stat().st_size:
        return None  # the decoder says what is wrong
    check_surplus(dataset, length)
    dtype = np.dtype(f"{'i' if int(dataset.PixelRepresentation) else 'u'}{bits.allocated // 8}").newbyteorder("<")
    return _RowsOnDisk(path, start, shape, dtype, bits)


def _bands(top: int, bottom: int, rows: int = BAND) -> list[tuple[int, int]]:
    return [(start, min(start + rows, bottom)) for start in range(top, bottom, rows)]


def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")
