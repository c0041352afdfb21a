"""Which words of a table mean malignant, which mean benign, and which mean that it is not known.

Any other word is a mistake in the table, never a benign case: a misspelt "malignat" would teach the classifier that
cancer is healthy.
"""

from __future__ import annotations

from dataclasses import dataclass

POSITIVE = ("malignant", "1", "true", "m")
NEGATIVE = ("benign", "0", "false", "b", "normal", "n", "none")
MISSING = frozenset(("", "na", "n/a", "nan", "unknown", "null", "?"))


class UnknownWord(ValueError):
    """A word that is neither malignant nor benign nor a word for "not known"."""


@dataclass(frozen=True)
class LabelWords:
    """Words in any case, with or without spaces around them; 1, "1" and "1.0" are one word.

    negative: () means every word that is neither positive nor missing, but for fractions: 0.7 is a score, and no class.
    """

    positive: tuple[str, ...] = POSITIVE
    negative: tuple[str, ...] = NEGATIVE

    def read(self, text: str) -> bool | None:
        """True: malignant; False: benign; None: not known. Raises UnknownWord."""
        word = plain(text)
        if word in {plain(value) for value in self.positive}:
            return True
        if word in {plain(value) for value in self.negative}:
            return False
        if word in MISSING:
            return None
        if self.negative or _is_fraction(word):
            raise UnknownWord(text)
        return False


def is_digits(text: str) -> bool:
    """Whether a text is a whole number in the digits 0 to 9, of at most 18 of them.

    `str.isdigit` is true of "²", too, and of thousands of digits, and `int` reads neither.
    """
    return text.isascii() and text.isdigit() and len(text) <= 18


def _is_fraction(word: str) -> bool:
    """Whether a plain word is a number, and no whole one."""
    try:
        return not float(word).is_integer()
    except ValueError:
        return False


def plain(text: str) -> str:
    """Without spaces around it, in lower case, and a whole number without its decimals."""
    word = text.strip().lower()
    try:
        number = float(word)
    except ValueError:
        return word
    return str(int(number)) if number.is_integer() else word  # infinity and NaN are none
