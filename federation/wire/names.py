"""Names that cross the wire: both sides make files and folders of them, so none may be a path."""

from __future__ import annotations

import re

# Of a study, a unit, a centre, a kind.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")
_ARRAY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")


def is_plain_name(value: object) -> bool:
    """Whether a value is 1 to 64 letters, digits, - and _, of which the first is a letter or a digit."""
    return isinstance(value, str) and _PLAIN.fullmatch(value) is not None


def is_array_name(value: str) -> bool:
    """Whether a text can name an array, such as `weights.layer1.0.bias`: dots may divide it, one at a time."""
    return _ARRAY.fullmatch(value) is not None and ".." not in value
