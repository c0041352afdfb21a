"""Named random streams: the numbers of one purpose do not move when another purpose draws more or fewer.

A stream is derived from a seed and names such as a centre, a patient or an image. Nothing depends on the order in which
streams are asked for, so adding a patient or a centre leaves all others as they were.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator that belongs to (seed, names) alone."""
    return np.random.Generator(np.random.SFC64(_words(seed, names)))


def rank(seed: int, *names: str | int) -> bytes:
    """A sort key that shuffles: equal for equal (seed, names), otherwise as good as random.

    Sorting by it is a draw without replacement that does not depend on the order of the rows, and whose first k items
    are part of its first k + 1.
    """
    return _digest(seed, names)


def _digest(seed: int, names: tuple[str | int, ...]) -> bytes:
    # The type is part of the text, so that patient 1 and patient "1" are different streams.
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return hashlib.sha256(f"{seed}\x1e{text}".encode()).digest()


def _words(seed: int, names: tuple[str | int, ...]) -> list[int]:
    return np.frombuffer(_digest(seed, names), dtype=np.uint32).tolist()
