"""What a cell of a table says besides labels: that it is not known, a whole number, a number, a flag, a grade, an age.

One reader for all sources. "2.0" is 2, because programs that lack a number in some row write the others of its column as
decimals. What is neither a value nor a word for "not known" is a fault, never a silent "not known".
"""

from __future__ import annotations

import re
from collections.abc import Collection

from data_partitions.reading.label_words import MISSING, is_digits

NOT_KNOWN = MISSING | {"none"}  # as a label, "none" may mean benign
YES, NO = ("1", "true", "yes", "y"), ("0", "false", "no", "n")
OLDEST = 130
_DECIMALS = re.compile(r"(\d+)\.0*")


class BadCell(ValueError):
    """A cell that cannot be used; the text is that of its fault, after the row: "age 'old' is not a number; correct it"."""


def is_known(text: str) -> bool:
    return text.strip().lower() not in NOT_KNOWN


def without_decimals(text: str) -> str:
    """A text as it is, but for a whole number without its decimals: "12.0" is "12"."""
    match = _DECIMALS.fullmatch(text.strip())
    return match[1] if match else text.strip()


def whole(text: str, what: str) -> int | None:
    """A whole number of at most 18 digits; None where it is not known. Raises BadCell."""
    digits = without_decimals(text)
    if not is_known(digits):
        return None
    if not is_digits(digits):
        raise BadCell(f"{what} {text!r} is not a whole number; correct it")
    return int(digits)


def decimal(text: str, what: str, low: float, high: float) -> float | None:
    """A number from `low` to `high`; None where it is not known. Raises BadCell."""
    if not is_known(text):
        return None
    try:
        value = float(text)
    except ValueError:
        raise BadCell(f"{what} {text!r} is not a number; correct it, or leave it empty") from None
    if not low <= value <= high:
        raise BadCell(f"{what} {text} is outside {low:g} .. {high:g}; correct it, or leave it empty")
    return value


def age(text: str, what: str = "age") -> float | None:
    """Of a person in years; None where it is not known. Raises BadCell."""
    return decimal(text, what, 0, OLDEST)


def flag(text: str, what: str) -> bool | None:
    """Yes or no; None where it is not known. Raises BadCell."""
    word = without_decimals(text).lower()
    if word in YES or word in NO:
        return word in YES
    if is_known(word):
        raise BadCell(f"{what} {text!r} is neither 1 nor 0; correct it")
    return None


def grade(text: str, what: str, grades: Collection[str]) -> str:
    """One of an archive's grades, in capitals; "" where it is not known, for which some archives write 0. Raises BadCell."""
    word = without_decimals(text).upper()
    if word in grades:
        return word
    if is_known(word) and word != "0":
        raise BadCell(f"{what} {text!r} is unknown; known: {', '.join(grades)}; correct it, or leave it empty")
    return ""
