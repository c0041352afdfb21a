"""Numbers with their units, and lists of names, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable

# Names beyond this many are not read.
_NAMES = 8


def duration(seconds: float) -> str:
    """ "42 s", "5 min 03 s", "2 h 07 min"."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60:02d} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60:02d} min"


def bytes_text(n: float) -> str:
    """ "812 B", "1.3 MB" (powers of 1000)."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return f"{n:.0f} B"


def share_text(value: float) -> str:
    """A fraction as "85 %"; "–" when unknown."""
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def listed(names: Iterable[str]) -> str:
    """ "A, B, C", or "50 centres, c01 to c50" where they are many."""
    names = list(names)
    return f"{len(names)} centres, {names[0]} to {names[-1]}" if len(names) > _NAMES else ", ".join(names)
