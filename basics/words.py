"""Words that several rooms write in the same way."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[str], at_most: int = 12) -> str:
    """Names for a person to read: all of them, or of many the first ones, the last, and how many there are."""
    names = list(names)
    if len(names) <= at_most:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:3])}, ..., {names[-1]} ({len(names)})"
