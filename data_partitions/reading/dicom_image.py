"""A DICOM image that is read in part: a window costs the rows that it covers, not the whole image.

A full-field mammogram has 13 million pixels, and patches need few of them. The rows of an uncompressed file are read when a
box needs them; any other file is decoded once, whole. How a stored value is displayed (rescale, window or table,
MONOCHROME1, eight bits) is computed once for each of the at most 65,536 values by the functions of `dicom`; pixels look it
up.

The body is found on the displayed means of stored values, not on the means of displayed values: at the edges of a window
the two differ by less than the mask's coarse step.
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

from data_partitions.exams import Box
from data_partitions.reading import dicom
from data_partitions.reading.body import body_mask
from data_partitions.reading.dicom import BadDicom

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


class DicomImage:
    """One image as it is shown, 1 channel of 8 or 16 bits. Raises BadDicom."""

    def __init__(self, path: Path, *, dark_background: bool = True) -> None:
        self.dark_background = dark_background
        try:
            with path.open("rb") as file:
                dataset = dicom.parsed(file, stop_before_pixels=True)
                self.header = dicom.greyscale_header(dataset)
                rows: Rows | None = _rows_on_disk(path, file, dataset)
        except OSError as error:
            raise BadDicom("bad_image", f"cannot be read ({error}); copy it again") from error
        if rows is None:
            dataset = dicom.parsed(path, stop_before_pixels=False)
            stored = dicom.stored_values(dataset)
            stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
            rows = _DecodedRows(stored)
        self.rows: Rows = rows
        self.shape = rows.shape
        self._dataset, self._shown_whole = dataset, None
        if rows.dtype.kind in "iu" and rows.dtype.itemsize <= 2:
            self.levels = self._levels(np.dtype(np.uint8))
        else:  # too many values for a table: the whole displayed image takes the place of the stored one
            self._shown_whole = dicom.shown_pixels(stored, dataset)
            self.rows = _DecodedRows(self._shown_whole.levels(np.dtype(np.uint8)))
            self.levels = np.arange(256, dtype=np.uint8)

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
        spans = [(row, row + 1) for row in range(0, self.shape[0], max(1, self.shape[0] // SAMPLED))]
        return self._digest([np.concatenate([values.copy() for values in self.rows.spans(spans)])])

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
            asked = values[used] if used is not None else np.array([low, high], dtype=values.dtype)
            rescaled = dicom.rescaled(asked[None], dataset)
            extremes = float(rescaled.min()), float(rescaled.max())
        return dicom.shown_pixels(values[None], dataset, extremes).levels(depth)[0]

    def _extremes(self, used: np.ndarray | None) -> tuple[int, int]:
        """Smallest and largest stored value; marks those that occur in `used`, by unsigned number."""
        low, high = [], []
        for values in self.rows.spans(_bands(0, self.shape[0])):
            low.append(int(values.min()))
            high.append(int(values.max()))
            if used is not None:
                used[values.view(_unsigned(values.dtype))] = True
        return min(low), max(high)


class _DecodedRows:
    """An image in memory."""

    def __init__(self, stored: np.ndarray) -> None:
        self.stored, self.shape, self.dtype = stored, (stored.shape[0], stored.shape[1]), stored.dtype

    def spans(self, spans: Iterable[tuple[int, int]]) -> Iterator[np.ndarray]:
        return (self.stored[top:bottom] for top, bottom in spans)


class _RowsOnDisk:
    """An image that lies in its file as it is, little endian, from byte `start` on.

    The file is read, not mapped: if it is truncated meanwhile, that is an error instead of the end of the process.
    """

    def __init__(self, path: Path, start: int, shape: tuple[int, int], dtype: np.dtype, unused_bits: int) -> None:
        self.path, self.start, self.shape, self.dtype, self.unused_bits = path, start, shape, dtype, unused_bits

    def spans(self, spans: Iterable[tuple[int, int]]) -> Iterator[np.ndarray]:
        width, buffer = self.shape[1], np.empty(0, dtype=self.dtype)
        with self.path.open("rb", buffering=0) as file:
            number = file.fileno()
            for top, bottom in spans:
                if len(buffer) < (bottom - top) * width:  # one for all: fresh memory is slower than the disk's cache
                    buffer = np.empty((bottom - top) * width, dtype=self.dtype)
                values = buffer[: (bottom - top) * width].reshape(bottom - top, width)
                if os.preadv(number, [values.data], self.start + top * width * self.dtype.itemsize) != values.nbytes:
                    raise BadDicom("bad_image", f"{self.path} ends before its row {bottom}; copy the file again")
                if self.unused_bits:  # may hold anything; a signed value's sign is in the highest bit that is used
                    np.left_shift(values, self.unused_bits, out=values)
                    np.right_shift(values, self.unused_bits, out=values)
                yield values


def _rows_on_disk(path: Path, file: BinaryIO, dataset: pydicom.Dataset) -> _RowsOnDisk | None:
    """The rows of an uncompressed image, `file` standing before its pixels; None where they have to be decoded."""
    syntax = dataset.file_meta.TransferSyntaxUID
    allocated, stored = (int(dataset.get(name) or 0) for name in ("BitsAllocated", "BitsStored"))
    if syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian) or allocated not in (8, 16):
        return None
    if not 0 < stored <= allocated or int(dataset.SamplesPerPixel) != 1:
        return None
    head = file.read(12)
    explicit = syntax == ExplicitVRLittleEndian
    if head[:4] != PIXEL_DATA or (explicit and head[4:6] not in (b"OB", b"OW")):
        return None
    length = int.from_bytes(head[8:12] if explicit else head[4:8], "little")
    start = file.tell() - (0 if explicit else 4)
    shape = int(dataset.Rows), int(dataset.Columns)
    size = shape[0] * shape[1] * allocated // 8
    if length == 0xFFFFFFFF or length < size or start + size > path.stat().st_size:
        return None  # the decoder says what is wrong
    dtype = np.dtype(f"{'i' if int(dataset.PixelRepresentation) else 'u'}{allocated // 8}").newbyteorder("<")
    return _RowsOnDisk(path, start, shape, dtype, allocated - stored)


def _bands(top: int, bottom: int, rows: int = BAND) -> list[tuple[int, int]]:
    return [(start, min(start + rows, bottom)) for start in range(top, bottom, rows)]


def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")
