"""Who worked when, read off the events of a run.

A run that was resumed consists of several sessions, each beginning with `run_started`; its wall time is the sum of
theirs, and what lies between them is nobody's time. A session that was killed ends with the last event it wrote.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

Event = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """One stretch of a run, from its start to its end, its failure or its being killed. Times in unix seconds."""

    start: float
    end: float
    status: Literal["completed", "failed", "interrupted"]
    events: tuple[Event, ...]

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Work:
    """One unit computed in a centre. `start` and `end` in seconds of running time, summed over the sessions before."""

    centre: str
    kind: str
    label: str
    start: float
    end: float
    failed: bool = False


def sessions(events: Sequence[Event]) -> list[Session]:
    """The sessions in order. Events before the first `run_started` (there should be none) belong to no session."""
    starts = [i for i, e in enumerate(events) if e["event"] == "run_started"]
    found = []
    for first, after in pairwise([*starts, len(events)]):
        own = tuple(events[first:after])
        finished = [e for e in own if e["event"] == "run_finished"]
        status: Any = finished[-1].get("status", "completed") if finished else "interrupted"
        end = finished[-1]["t"] if finished else max(e["t"] for e in own)
        found.append(Session(own[0]["t"], max(end, own[0]["t"]), status, own))
    return found


def wall_seconds(events: Sequence[Event]) -> float:
    """Running time of all sessions."""
    return sum(s.seconds for s in sessions(events))


def resumptions(events: Sequence[Event]) -> list[float]:
    """The moments, in seconds of running time, at which a session after the first one began."""
    moments, elapsed = [], 0.0
    for session in sessions(events)[:-1]:
        elapsed += session.seconds
        moments.append(elapsed)
    return moments


def work(events: Sequence[Event]) -> list[Work]:
    """Every unit that was computed, in order of its end; what came out of the record (`cached`) took no time.

    A unit that failed counts from the moment it was sent to the moment the failure was known. Times that a centre's own
    clock puts outside the session are clipped to it.
    """
    found, elapsed = [], 0.0
    for session in sessions(events):
        sent = {e.get("unit"): e["t"] for e in session.events if e["event"] == "unit_started"}
        for e in session.events:
            if e["event"] == "unit_finished" and not e.get("cached") and e.get("started") is not None:
                start, end, failed = e["started"], e.get("finished") or e["started"] + (e.get("seconds") or 0), False
            elif e["event"] == "unit_failed" and e.get("unit") in sent:
                start, end, failed = sent[e["unit"]], e["t"], True
            else:
                continue
            start, end = (min(max(t, session.start), session.end) - session.start + elapsed for t in (start, end))
            found.append(Work(str(e.get("centre")), str(e.get("kind")), str(e.get("label", "")), start, end, failed))
        elapsed += session.seconds
    return found


def working_share(events: Sequence[Event]) -> float:
    """Share of the wall time, 0 to 1, in which at least one centre computed a unit that it finished; NaN for no run.

    The rest is start-up, messages, waiting, and work that was lost to a failure or a kill.
    """
    wall = wall_seconds(events)
    return union_seconds([(w.start, w.end) for w in work(events) if not w.failed]) / wall if wall > 0 else math.nan


def start_up_seconds(events: Sequence[Event]) -> float:
    """Time from the start of the newest session until a centre began to work; NaN when none did (all was there).

    It is the time of Flower, Ray and the imports. The centre's own clock says when it began.
    """
    newest = sessions(events)[-1:]
    begun = [
        e["started"]
        for session in newest
        for e in session.events
        if e["event"] == "unit_finished" and not e.get("cached") and e.get("started") is not None
    ]
    return max(0.0, min(begun) - newest[0].start) if begun else math.nan


def union(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Disjoint intervals that cover what `intervals` (start, end) cover, in order; empty ones are left out."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return merged


def union_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, end)."""
    return math.fsum(end - start for start, end in union(intervals))


def lanes(intervals: Sequence[tuple[float, float]]) -> list[int]:
    """A lane for each interval so that none overlap in a lane, in as few lanes as possible (first fit by start)."""
    ends: list[float] = []
    chosen = [0] * len(intervals)
    for i in sorted(range(len(intervals)), key=lambda i: intervals[i]):
        start, end = intervals[i]
        lane = next((k for k, busy_until in enumerate(ends) if busy_until <= start), len(ends))
        ends[lane : lane + 1] = [end]
        chosen[i] = lane
    return chosen


def status(events: Sequence[Event]) -> Literal["completed", "failed", "interrupted"]:
    """How the newest session ended; `interrupted` also while it is still running."""
    found = sessions(events)
    return found[-1].status if found else "interrupted"


def failures(events: Sequence[Event]) -> list[Event]:
    """The `unit_failed` events of the newest session: what failed before was tried again in it."""
    return [e for session in sessions(events)[-1:] for e in session.events if e["event"] == "unit_failed"]


def current_units(events: Sequence[Event]) -> set[str]:
    """Ids of the units that the newest session computed or took from the record.

    Others may be in the record too: those of settings that a resumed run no longer has.
    """
    return {
        str(e.get("unit")) for session in sessions(events)[-1:] for e in session.events if e["event"] == "unit_finished"
    }
