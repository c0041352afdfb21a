"""Tables of DICOM that give each value another one: modality and VOI LUT (PS3.3, C.11.1.1.1 and C.11.2.1.1).

The look-up is ours: pydicom's counts places in the type of the table's entries, or in that of the values, so that an image of
12 bits under a table of 8 wraps around (pydicom 3.0), and it reads no table of two entries a word.
"""

from __future__ import annotations

import numpy as np
import pydicom


class Table:
    """entries: what the values `first`, `first` + 1, ... become. announced: bits that the descriptor says an entry has."""

    def __init__(self, item: pydicom.Dataset, *, little_endian: bool = True) -> None:
        count, self.first, self.announced = (int(number) for number in item.LUTDescriptor)
        self.entries = _entries(item.LUTData, count or 2**16, self.announced, "<u2" if little_endian else ">u2")

    @property
    def bits(self) -> int:
        """Bits that its largest entry needs."""
        return max(1, int(self.entries.max()).bit_length())

    def of(self, values: np.ndarray) -> np.ndarray:
        """float32; values beyond either end become what that end does."""
        places = np.rint(values).astype(np.int64) - self.first
        return self.entries[np.clip(places, 0, len(self.entries) - 1)].astype(np.float32)


def table(dataset: pydicom.Dataset, name: str) -> Table | None:
    """The first table of "ModalityLUTSequence" or "VOILUTSequence"; None without one. Raises whatever a broken one makes it raise."""
    items = dataset.get(name)
    return Table(items[0], little_endian=dataset.original_encoding[1] is not False) if items else None


def _entries(data: object, count: int, announced: int, words: str) -> np.ndarray:
    """`count` entries: numbers, or bytes, of one word each or, of at most 8 bits, two in a word with the first in its lower half."""
    if isinstance(data, (bytes, bytearray)):
        found = np.frombuffer(data[: len(data) // 2 * 2], dtype=words)
    else:
        found = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    if announced <= 8 and len(found) < count <= 2 * len(found):
        found = np.stack((found & 0xFF, found >> 8), axis=1).ravel()
    if len(found) < count:
        raise ValueError(f"it announces {count} entries and has {len(found)}")
    return found[:count]
