"""Who worked when, read off the events of a run.

A run that was resumed consists of several sessions, each beginning with `run_started`; its wall time is the sum of
theirs, and the time between them does not count. A session that was killed ends with the last event it wrote.
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
class NodeJob:
    """One job of a deployed centre, until it was answered or given up. Times in seconds of running time, on the server's clock.

    A job waits at its node while another one of the same centre is done; so its turn comes when it was sent or, if that is
    later, when the one before it was answered.

    Attributes:
        session: number of the session, from 0.
        sent: when it left the server, for the first time if its node was lost meanwhile.
        turn: when no earlier job of this node was left.
        start, end: when it was computed. The node's clock says how long that took; a clock that disagrees with the server's
            cannot move it out of the time between sending and answer. Both are the answer for a job that failed.
        answered: when its answer, or its failure, was known.
        code: why it was refused or failed; "" for a job that was done.
    """

    centre: str
    unit: str
    kind: str
    session: int
    sent: float
    turn: float
    start: float
    end: float
    answered: float
    bytes_down: int
    bytes_up: int
    code: str = ""

    @property
    def done(self) -> bool:
        """Whether it was neither refused nor failed."""
        return not self.code

    @property
    def seconds(self) -> float:
        """How long it computed; 0 for a job that failed, whose work came to nothing."""
        return self.end - self.start

    @property
    def latency(self) -> float:
        """What the job cost beyond its computing, in seconds: process start, imports, polls, transfer."""
        return self.answered - self.turn - self.seconds


@dataclass(frozen=True)
class Absence:
    """A time in which a centre had no node, in seconds of running time. `end`: found again, or the end of the session."""

    centre: str
    start: float
    end: float
    found_again: bool


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
    """Every unit that was computed, in order of its end; what was read from the record (`cached`) took no time.

    A unit that failed counts from the moment it was sent to the moment the failure was known. Times that a centre's own
    clock puts before its sending or after its answer are moved between them, others outside the session clipped to it.
    """
    found, elapsed = [], 0.0
    for session in sessions(events):
        sent = {e.get("unit"): e["t"] for e in session.events if e["event"] == "unit_started"}
        for e in session.events:
            if e["event"] == "unit_finished" and not e.get("cached") and e.get("started") is not None:
                start, end, failed = e["started"], e.get("finished") or e["started"] + (e.get("seconds") or 0), False
                if e.get("unit") in sent:
                    seconds = end - start
                    start = _placed(start, seconds, sent[e["unit"]], e["t"])
                    end = start + seconds
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


def _placed(started: Any, seconds: float, earliest: float, latest: float) -> float:
    """When a job of `seconds` began that ran between two moments, by a clock that may disagree with theirs."""
    return min(max(float(earliest if started is None else started), earliest), latest - seconds)


def node_jobs(events: Sequence[Event]) -> list[NodeJob]:
    """Every job that was sent to a centre and came to an end, in that order; what was read from the record is left out."""
    found, elapsed = [], 0.0
    for number, session in enumerate(sessions(events)):
        sent: dict[Any, float] = {}
        before: dict[str, float] = {}  # when the centre's last answer came
        for e in session.events:
            if e["event"] == "unit_started":
                sent.setdefault(e.get("unit"), e["t"])
            if e["event"] not in ("unit_finished", "unit_failed") or e.get("cached") or e.get("unit") not in sent:
                continue
            centre, left, answered = str(e.get("centre")), sent[e["unit"]], e["t"]
            code = str(e.get("code") or "failed") if e["event"] == "unit_failed" else ""
            turn = min(max(left, before.get(centre, left)), answered)
            seconds = 0.0 if code else min(max(float(e.get("seconds") or 0.0), 0.0), answered - left)
            start = answered if code else _placed(e.get("started"), seconds, turn, answered)
            before[centre] = answered
            left, turn, start, answered = (t - session.start + elapsed for t in (left, turn, start, answered))
            found.append(NodeJob(
                centre, str(e["unit"]), str(e.get("kind")), number, left, turn, start, start + seconds, answered,
                int(e.get("bytes_down") or 0), int(e.get("bytes_up") or 0), code,
            ))  # fmt: skip
        elapsed += session.seconds
    return found


def node_seconds(jobs: Iterable[NodeJob]) -> float:
    """The nodes' time: for each centre, in each session, from the sending of its first job to its last answer."""
    spans: dict[tuple[str, int], tuple[float, float]] = {}
    for job in jobs:
        first, last = spans.get((job.centre, job.session), (job.sent, job.answered))
        spans[job.centre, job.session] = (min(first, job.sent), max(last, job.answered))
    return math.fsum(last - first for first, last in spans.values())


def computing_share(jobs: Sequence[NodeJob]) -> float:
    """Share of the nodes' time in which they computed what was answered, 0 to 1; NaN without jobs.

    The rest is process start, imports, polls, transfer, waiting for other centres, and work that failed.
    """
    time = node_seconds(jobs)
    return math.fsum(job.seconds for job in jobs) / time if time > 0 else math.nan


def absences(events: Sequence[Event]) -> list[Absence]:
    """When centres had no node: from the note that it was lost to the one that it is back."""
    found, elapsed = [], 0.0
    for session in sessions(events):
        away: dict[str, float] = {}
        for e in session.events:
            moment, centre = e["t"] - session.start + elapsed, str(e.get("centre"))
            if e["event"] == "note" and e.get("node") == "lost":
                away.setdefault(centre, moment)
            elif e["event"] == "note" and e.get("node") == "back" and centre in away:
                found.append(Absence(centre, away.pop(centre), moment, True))
        elapsed += session.seconds
        found += [Absence(centre, start, elapsed, False) for centre, start in away.items()]
    return found


def deployment(events: Sequence[Event]) -> str:
    """The name of the deployment over which the newest session ran; "" for a simulation."""
    return next((str(e.get("deployment") or "") for e in reversed(events) if e["event"] == "run_started"), "")


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
