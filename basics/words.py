"""Words that several rooms write in the same way."""

from __future__ import annotations

from collections.abc import Iterable


def one_line(text: object, at_most: int | None = None) -> str:
    """Foreign words for a person to read: on one line, "?" for what cannot be printed, and "..." after `at_most` characters."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(text).split()))
    return shown if at_most is None or len(shown) <= at_most else f"{shown[:at_most]}..."


def listed(names: Iterable[str], at_most: int = 12) -> str:
    """Names for a person to read: all of them, or of many the first ones, the last, and how many there are."""
    names = list(names)
    if len(names) <= at_most:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:3])}, ..., {names[-1]} ({len(names)})"
