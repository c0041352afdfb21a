"""When replies come: in simulated seconds (simulation) or as they come (deployment), behind one interface.

In a simulation the centres' speeds, delays, dropouts and outages are declared and seeded, so the moment at which a
reply *would* arrive is known when its job is sent. `VirtualClock` hands out replies in that order, whatever the
order in which workers finish them: asynchrony becomes deterministic, can be resumed, and needs no sleeping. A job that is lost
on its way is not computed at all. Measuring and reporting take no simulated time.
"""

from __future__ import annotations

import heapq
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from basics.seeds import derive_seed
from federation.wire.exchange import Exchange, Step
from federation.wire.job import Job, Reply

Outcome = Literal["used", "stale", "late", "lost", "outage", "refused"]


@dataclass(frozen=True)
class Availability:
    """How a simulated centre behaves.

    Attributes:
        speed: local steps per simulated second, relative to the study's `step_s`.
        delay_s: one way, for every message.
        bandwidth_mbit_s: of its line, both ways; none: transfers take no time.
        dropout: probability that a job is lost (the node restarts, the process dies).
        outages: (from, to) in simulated seconds; `to` may be infinite: gone for good.
    """

    speed: float = 1.0
    delay_s: float = 0.0
    bandwidth_mbit_s: float | None = None
    dropout: float = 0.0
    outages: tuple[tuple[float, float], ...] = ()

    def back_s(self, at_s: float) -> float:
        """From when on it can be reached: at once, or after outages, which may touch or overlap; infinity: never again."""
        while ends := [to_s for from_s, to_s in self.outages if from_s <= at_s < to_s]:
            at_s = max(ends)
        return at_s

    def gone_from(self, at_s: float) -> bool:
        """Whether it is gone for good at a moment."""
        return math.isinf(self.back_s(at_s))


@dataclass(frozen=True)
class Fate:
    """What becomes of a job; seconds of the clock.

    Attributes:
        finished_s: when the reply is there, or when the server notices that none will come.
        lost: "lost" or "outage" for a job without a reply.
    """

    sent_s: float
    started_s: float
    finished_s: float
    lost: Literal["", "lost", "outage"] = ""


def fate(centre: Availability, sent_s: float, work_s: float, transfer_s: float, notice_s: float,
         rng: np.random.Generator) -> Fate:  # fmt: skip
    """When a job sent at `sent_s` is answered.

    A job sent to a centre that is out waits for it (a SuperLink keeps messages for its nodes). One that is cut off by an
    outage or a dropout is lost; the server notices `notice_s` later.

    Args:
        work_s: computing at speed 1.
        transfer_s: of both ways together.
    """
    drops, where = rng.random() < centre.dropout, rng.random()
    arrives = sent_s + centre.delay_s + transfer_s / 2
    started = centre.back_s(arrives)
    if math.isinf(started):
        return Fate(sent_s, arrives, arrives + notice_s, "outage")
    done = started + work_s / centre.speed
    cut = min((o[0] for o in centre.outages if started <= o[0] < done), default=math.inf)
    if drops and started + where * (done - started) < cut:
        return Fate(sent_s, started, started + where * (done - started) + notice_s, "lost")
    if cut < done:
        return Fate(sent_s, started, cut + notice_s, "outage")
    return Fate(sent_s, started, done + centre.delay_s + transfer_s / 2)


@dataclass(frozen=True)
class Arrival:
    """A job's end.

    Attributes:
        reply: None when the job was lost on the way.
        tag: what the sender attached to the job.
    """

    centre: str
    unit: str
    reply: Reply | None
    fate: Fate
    tag: Any = None


@dataclass(frozen=True)
class JobTime:
    """One row of virtual_time.csv."""

    centre: str
    number: int
    kind: str
    sent_s: float
    started_s: float
    finished_s: float
    outcome: Outcome
    staleness: int = 0


class Clock(ABC):
    """Sends jobs of one federation and hands out their ends in the order of this clock.

    Attributes:
        identity: what its order depends on, as JSON; part of a federation's id.
        real: whether its order can be another one if everything is done again.
        now: seconds since the federation began.
        rows: what became of each job, for the report.
    """

    identity: Any = None
    real = False

    def __init__(self) -> None:
        self.now = 0.0
        self.rows: list[JobTime] = []

    @abstractmethod
    def send(self, job: Job, *, work_s: float, bytes_up: int = 0, tag: Any = None) -> None:
        """Send a job; it leaves with the next `next()`.

        Args:
            work_s: seconds of computing at speed 1, for a simulated clock.
            bytes_up: expected size of the reply, for a simulated line.
        """

    @abstractmethod
    def next(self, until_s: float = math.inf) -> Exchange[Arrival | None]:
        """The next job that ends; None when none ends before `until_s` (`now` is then that moment)."""

    def flush(self) -> Exchange[None]:
        """Hand over what was sent before the next `next()`, where that makes a difference; wait for nothing."""
        yield from ()

    @property
    @abstractmethod
    def outstanding(self) -> int:
        """Jobs that were sent and have not ended."""

    @property
    @abstractmethod
    def under_way(self) -> list[Arrival]:
        """What is outstanding, in the order in which it was sent, without replies."""

    @abstractmethod
    def send_again(self, job: Job, known: Fate, tag: Any) -> None:
        """Send a job of before a restart, whose fate was drawn then."""

    @abstractmethod
    def drop_outstanding(self) -> list[Arrival]:
        """Wait no longer for what is under way: what will not be seen, without replies."""

    @abstractmethod
    def unreachable(self, centre: str) -> bool:
        """Whether the centre did not answer when last asked, or (simulated) is gone for good."""

    @abstractmethod
    def gone(self, centre: str) -> bool:
        """Whether the centre will never answer again. Only a simulation knows."""

    def note(self, arrival: Arrival, number: int, kind: str, outcome: Outcome, staleness: int = 0) -> None:
        """Record what became of a job."""
        f = arrival.fate
        self.rows.append(JobTime(arrival.centre, number, kind, f.sent_s, f.started_s, f.finished_s, outcome, staleness))

    def state(self) -> dict[str, Any]:
        """What goes on after a restart, as JSON; nothing may be outstanding, or the sender sends it again."""
        return {"now": self.now, "rows": [list(asdict(row).values()) for row in self.rows]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.now = float(state["now"])
        self.rows = [JobTime(*row) for row in state["rows"]]


class VirtualClock(Clock):
    """Simulated seconds.

    Args:
        centres: by name.
        seed, purpose: of the dropouts; the n-th job of a centre has its own stream.
        notice_s: until the server notices that a job is lost.
    """

    def __init__(self, centres: Mapping[str, Availability], *, seed: int, purpose: str, notice_s: float = 60.0):
        super().__init__()
        self._centres, self._seed, self._purpose, self._notice_s = dict(centres), seed, purpose, notice_s
        # Infinity is no JSON number.
        self.identity = [seed, purpose, notice_s, {name: repr(centre) for name, centre in centres.items()}]
        self._sent: dict[str, int] = {}
        self._heap: list[tuple[float, int, str, str, Fate, Any]] = []
        self._order = 0
        self._unsent: list[Job] = []
        self._cancelled: list[str] = []

    def send(self, job: Job, *, work_s: float, bytes_up: int = 0, tag: Any = None) -> None:
        centre = self._centres[job.centre]
        number = self._sent.get(job.centre, 0)
        self._sent[job.centre] = number + 1
        rng = np.random.default_rng(derive_seed(self._seed, f"availability/{self._purpose}", job.centre, number))
        line = centre.bandwidth_mbit_s
        transfer_s = 0.0 if line is None else (job.nbytes + bytes_up) * 8e-6 / line
        self._push(job, fate(centre, self.now, work_s, transfer_s, self._notice_s, rng), tag)

    def send_again(self, job: Job, known: Fate, tag: Any) -> None:
        self._push(job, known, tag)

    def _push(self, job: Job, fate: Fate, tag: Any) -> None:
        heapq.heappush(self._heap, (fate.finished_s, self._order, job.centre, job.unit, fate, tag))
        self._order += 1
        if not fate.lost:
            self._unsent.append(job)

    def next(self, until_s: float = math.inf) -> Exchange[Arrival | None]:
        if not self._heap or self._heap[0][0] > until_s:
            if math.isfinite(until_s):
                self.now = max(self.now, until_s)
            yield Step(self._take_unsent(until_s), cancel=self._take_cancelled())
            return None
        _, _, centre, unit, fate, tag = heapq.heappop(self._heap)
        reply = None
        if not fate.lost:
            reply = yield Step(self._take_unsent(until_s), frozenset({unit}), cancel=self._take_cancelled())
        self.now = max(self.now, fate.finished_s)
        return Arrival(centre, unit, reply, fate, tag)

    @property
    def outstanding(self) -> int:
        return len(self._heap)

    @property
    def under_way(self) -> list[Arrival]:
        """What is outstanding, in the order in which it was sent."""
        return [
            Arrival(c, unit, None, fate, tag) for _, _, c, unit, fate, tag in sorted(self._heap, key=lambda e: e[1])
        ]

    def drop_outstanding(self) -> list[Arrival]:
        left, self._heap = self.under_way, []
        dropped = {arrival.unit for arrival in left}
        unsent = {job.unit for job in self._unsent}
        self._cancelled += [unit for unit in dropped if unit not in unsent]
        self._unsent = [job for job in self._unsent if job.unit not in dropped]
        return left

    def unreachable(self, centre: str) -> bool:
        return self.gone(centre)

    def gone(self, centre: str) -> bool:
        return self._centres[centre].gone_from(self.now)

    def state(self) -> dict[str, Any]:
        return super().state() | {"sent": self._sent}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._sent = {centre: int(n) for centre, n in state["sent"].items()}

    def _take_cancelled(self) -> Sequence[str]:
        units, self._cancelled = self._cancelled, []
        return units

    def _take_unsent(self, until_s: float) -> Sequence[Job]:
        """What is to be computed: not what would come too late to be waited for."""
        if math.isinf(until_s):
            jobs, self._unsent = self._unsent, []
            return jobs
        late = {unit for finished_s, _, _, unit, _, _ in self._heap if finished_s > until_s}
        jobs = [job for job in self._unsent if job.unit not in late]
        self._unsent = [job for job in self._unsent if job.unit in late]
        return jobs


@dataclass
class _Sent:
    job: Job
    sent_s: float
    tag: Any


class RealClock(Clock):
    """Seconds as they pass, for a deployment."""

    real = True

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._under_way: dict[str, _Sent] = {}
        self._unsent: list[Job] = []
        self._cancelled: list[str] = []
        self._unreachable: set[str] = set()

    def send(self, job: Job, *, work_s: float, bytes_up: int = 0, tag: Any = None) -> None:
        self._tick()
        self._under_way[job.unit] = _Sent(job, self.now, tag)
        self._unsent.append(job)

    def next(self, until_s: float = math.inf) -> Exchange[Arrival | None]:
        self._tick()
        jobs, self._unsent = self._unsent, []
        cancelled, self._cancelled = self._cancelled, []
        left = None if math.isinf(until_s) else max(0.0, until_s - self.now)
        if not self._under_way:
            if left is not None:
                self.now = until_s
            yield Step(jobs, cancel=cancelled)
            return None
        reply = yield Step(jobs, frozenset(self._under_way), left, cancelled)
        self._tick()
        if reply is None:
            return None
        sent = self._under_way.pop(reply.unit)
        lost = reply.code in ("node_unavailable", "client_died")
        (self._unreachable.add if reply.code == "node_unavailable" else self._unreachable.discard)(reply.centre)
        started = max(sent.sent_s, self.now - max(0.0, reply.finished - reply.started))
        fate = Fate(sent.sent_s, started, self.now, "lost" if lost else "")
        return Arrival(reply.centre, reply.unit, None if lost else reply, fate, sent.tag)

    def flush(self) -> Exchange[None]:
        jobs, self._unsent = self._unsent, []
        yield Step(jobs)

    def send_again(self, job: Job, known: Fate, tag: Any) -> None:
        self.send(job, work_s=0.0, tag=tag)

    @property
    def outstanding(self) -> int:
        return len(self._under_way)

    @property
    def under_way(self) -> list[Arrival]:
        return [
            Arrival(s.job.centre, unit, None, Fate(s.sent_s, s.sent_s, self.now), s.tag)
            for unit, s in self._under_way.items()
        ]

    def drop_outstanding(self) -> list[Arrival]:
        left = self.under_way
        self._cancelled += list(self._under_way)
        self._under_way, self._unsent = {}, []
        return left

    def unreachable(self, centre: str) -> bool:
        return centre in self._unreachable

    def gone(self, centre: str) -> bool:
        return False

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._began = time.monotonic() - self.now

    def _tick(self) -> None:
        self.now = time.monotonic() - self._began
