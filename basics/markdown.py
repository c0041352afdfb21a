"""Foreign words on a page in Markdown: they can neither format it nor add to it."""

from __future__ import annotations

import re
import textwrap
from functools import partial

from basics.words import one_line

_MEANS_SOMETHING = re.compile(r"([\\`*\[\]<>#|~&!])")
_WIDTH = 100


def escaped(text: object, at_most: int = 120) -> str:
    """Words within a line or a table's cell."""
    return _MEANS_SOMETHING.sub(r"\\\1", one_line(text, at_most))


def code(text: object) -> str:
    """A line of code, such as a command."""
    shown = one_line(text)
    fence = "`" * (1 + _longest("`", shown))
    return f"{fence}{shown}{fence}" if len(fence) == 1 else f"{fence} {shown} {fence}"


def fenced(text: str, at_most: int = 4000) -> list[str]:
    """A block of its own, whose end the text cannot write: lines of at most 100 characters, "?" for what cannot be printed."""
    lines = []
    for line in text[:at_most].splitlines():
        lines += textwrap.wrap(one_line(line), _WIDTH) or [""]
    if len(text) > at_most:
        lines.append(f"... ({len(text) - at_most} more characters)")
    fence = "~" * max(4, 1 + max(map(partial(_longest, "~"), lines), default=0))
    return [f"{fence}text", *lines, fence]


def _longest(letter: str, text: str) -> int:
    return max((len(run) for run in re.findall(f"{re.escape(letter)}+", text)), default=0)
