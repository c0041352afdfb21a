"""Values of DICOM tags, which may be missing, empty, or of another type than they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydicom

from basics.words import one_line

LONGEST = 64


def number(dataset: pydicom.Dataset, name: str) -> float | None:
    """The first value of a tag that may hold several; None without one."""
    value: Any = dataset.get(name)
    try:
        found = float(value[0] if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return found if np.isfinite(found) else None


def whole(dataset: pydicom.Dataset, name: str) -> int | None:
    """A whole number; None without one. A word that was not converted is read as little endian."""
    value: Any = dataset.get(name)
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little") if len(value) >= 2 else None
    found = number(dataset, name)
    return int(found) if found is not None and found.is_integer() else None


def text(dataset: pydicom.Dataset, name: str) -> str:
    """At most 64 characters, which is the longest that DICOM allows a name or a UID."""
    return one_line(dataset.get(name) or "", LONGEST)
