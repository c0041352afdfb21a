"""JSON and YAML that others wrote: read only within limits on length, depth and number of values, counted before a value is made.

A few bytes can stand for much memory: an empty object takes 64 bytes and two characters, and YAML's aliases repeat a value as
often as they like, each repetition of repetitions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_STANDARD = "tag:yaml.org,2002:"
# Python needs seconds for a number of so many digits, which YAML may write to base 60.
_LONGEST_WORD = 4096


class TextProblem(ValueError):
    """A text that is not read: it exceeds a limit, or is not of its format.

    Attributes:
        line: where, from 1 on; None where no place can be named.
    """

    def __init__(self, text: str, line: int | None = None):
        super().__init__(text)
        self.line = line


class TooMuch(TextProblem):
    """A text that exceeds a limit."""


@dataclass(frozen=True)
class Limits:
    """How much a text may hold.

    Attributes:
        size: in bytes of UTF-8.
        values: keys, and values of any kind, however often an alias repeats them.
        depth: of values within values.
        word: characters of a key or a text in JSON; None: any number.
    """

    size: int
    values: int
    depth: int = 32
    word: int | None = None


# Resolved, the largest shipped scenario has 46 KB and 4,900 values in 6 levels; the same with 1,000 centres 0.9 MB and 94,000, and
# with 10,000, the largest group, 8.9 MB and 940,000.
SCENARIO = Limits(16 * 2**20, 1_200_000)
# Settings that one person writes (centre.yaml, deployment.yaml): the longest in the documentation has 60 lines.
SETTINGS = Limits(2**20, 20_000)
# The card of a generator package, which holds the data cards of the centres that trained it and its losses: those of the tests have
# 6 KB; a hundred centres and 10,000 steps make 4 MB and 300,000 values.
CARD = Limits(16 * 2**20, 1_000_000)


def load_json(text: str, limits: Limits, parse_int: Callable[[str], int] | None = None) -> Any:
    """The value of a JSON text.

    Args:
        parse_int: makes a whole number of its digits.

    Raises:
        TooMuch: it exceeds a limit.
        TextProblem: it is not JSON.
    """
    # A character is at least a byte, so what is too long is never encoded.
    _check_size(len(text), limits)
    _check_size(len(text.encode(errors="surrogatepass")), limits)
    # Every value but the first follows one of these; what strings hold of them counts too, and honest texts have few of those.
    found = 1 + sum(text.count(mark) for mark in ",:[{")
    if found > limits.values:
        raise TooMuch(f"{found} values; at most {limits.values} are read")
    try:
        value = json.loads(text, parse_int=parse_int)
    except RecursionError:
        raise TooMuch(f"more than {limits.depth} levels") from None
    except ValueError as problem:
        raise TextProblem(f"is not JSON ({problem})", getattr(problem, "lineno", None)) from None
    _check_parts(value, limits)
    return value


def load_yaml(text: str, limits: Limits, loader: Any = None) -> Any:
    """The value of a YAML text with standard tags.

    Args:
        loader: a safe loader; by default libyaml's where it is there.

    Raises:
        TooMuch: it exceeds a limit.
        TextProblem: it is not YAML, or has another tag.
    """
    _check_size(len(text), limits)
    _check_size(len(text.encode(errors="surrogatepass")), limits)
    try:
        _check_events(text, limits)
        return yaml.load(text, Loader=loader or _LOADER)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as problem:
        raise TextProblem(
            str(problem.problem), problem.problem_mark.line + 1 if problem.problem_mark else None
        ) from None
    except yaml.YAMLError as problem:
        raise TextProblem(f"is not YAML ({str(problem).splitlines()[0]})") from None
    except TextProblem:
        raise
    except (
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
    ) as problem:  # of a date's 13th month, a number's 5,000 digits
        raise TextProblem(f"holds a value that cannot be read ({problem})") from None


def read_text(path: Path, limits: Limits) -> str:
    """The text of a file (UTF-8), of which no more is read than the limits allow.

    Raises:
        TooMuch: it is longer.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(limits.size + 1)
    _check_size(len(content), limits)
    return content.decode("utf-8")


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.size:
        raise TooMuch(f"{size} bytes; at most {limits.size} are read")


def _check_parts(value: Any, limits: Limits) -> None:
    """Depth and words of a JSON value, without recursion, level by level."""
    level, depth = [[value]], 0
    while level:
        depth += 1
        if depth > limits.depth + 1:
            raise TooMuch(f"more than {limits.depth} levels")
        inner: list[Any] = []
        for one in level:
            parts = [part for part in one if part.__class__ not in _NUMBERS]
            words = [part for part in parts if part.__class__ is str]
            inner += [part for part in parts if part.__class__ is list]
            for table in [part for part in parts if part.__class__ is dict]:
                words += table
                inner.append(table.values())
            if limits.word is not None and words and max(map(len, words)) > limits.word:
                raise TooMuch(f"a text of more than {limits.word} characters")
        level = inner


_NUMBERS = frozenset({int, float, bool, type(None)})


def _check_events(text: str, limits: Limits) -> None:
    """Count a text's values as they are parsed, before any is made; an alias counts as all that it repeats."""
    found = 0
    around: list[tuple[str | None, int]] = []  # (anchor, values before) of the collections that are open
    sizes: dict[str | None, int] = {}  # values under an anchor
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = around.pop()
            sizes[anchor] = found - before
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        if isinstance(event, yaml.AliasEvent):
            # An ancestor is not there yet: it would be a value within itself.
            if event.anchor not in sizes:
                raise TextProblem("an alias stands for nothing, or for what it is part of", _line(event))
            found += sizes[event.anchor]
        else:
            found += 1
            _check_node(event)
            if isinstance(event, yaml.ScalarEvent):
                sizes[event.anchor] = 1
            else:
                around.append((event.anchor, found - 1))
                sizes.pop(event.anchor, None)
                if len(around) > limits.depth:
                    raise TooMuch(f"more than {limits.depth} levels", _line(event))
        if found > limits.values:
            raise TooMuch(f"more than {limits.values} values, with what aliases repeat", _line(event))


def _check_node(event: Any) -> None:
    """The tag of a value, and the length of one that may be read as a number."""
    if event.tag is not None and event.tag != "!" and not event.tag.startswith(_STANDARD):
        raise TextProblem(f"tag {event.tag[:64]!r} is not a standard one", _line(event))
    word = event.value if isinstance(event, yaml.ScalarEvent) and (event.tag or event.implicit[0]) else ""
    if len(word) > _LONGEST_WORD and " " not in word:
        raise TooMuch(f"a word of {len(word)} characters without quotes", _line(event))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
