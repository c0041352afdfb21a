"""How long jobs take, learnt from those that were done, by sort of work."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from federation.wire.job import Job, canonical_json

# How many of the last jobs of a sort say how long the next will take.
_LAST = 16
# Settings that make a job longer or shorter whichever centre does it.
_TELLING = ("batch_size", "image_size", "model", "steps")
# Kind, strategy, and those settings in the body: jobs of which all are the same take about as long.
_Sort = tuple[str, str, frozenset[tuple[str, str]]]


class Durations:
    """Of the last jobs of each sort."""

    def __init__(self) -> None:
        self._seconds: dict[_Sort, deque[float]] = {}

    def add(self, job: Job, seconds: float) -> None:
        """A job was done, and took so long."""
        self._seconds.setdefault(_sort_of(job), deque(maxlen=_LAST)).append(seconds)

    def longest(self, job: Job) -> float | None:
        """Seconds of the longest of the last jobs of a job's sort; None: there was none."""
        return max(self._seconds.get(_sort_of(job), ()), default=None)


def _sort_of(job: Job) -> _Sort:
    return job.kind, job.strategy, frozenset(_telling(job.body))


def _telling(body: Mapping[str, Any], levels: int = 3) -> Iterator[tuple[str, str]]:
    """Of a job's own settings; deeper are those of a whole study, thousands of which would be read for every job."""
    for key, inner in body.items():
        if key in _TELLING:
            yield key, canonical_json(inner)
        elif isinstance(inner, Mapping) and levels > 1:
            yield from _telling(inner, levels - 1)
