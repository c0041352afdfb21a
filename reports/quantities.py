"""Numbers with their units, in words."""

from __future__ import annotations

import math


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
