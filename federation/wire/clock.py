"""The order in which replies arrive: by simulated seconds, or as they come (`real_clock`), behind one interface.

In a simulation the centres' speeds, delays, dropouts and outages are declared and seeded, so the moment at which a
reply *would* arrive is known when its job is sent. `VirtualClock` hands out replies in that order, whatever the
order in which workers finish them: asynchrony becomes deterministic, can be resumed, and needs no sleeping. A job that is
lost on its way is never computed. Measuring and reporting take no simulated time.
"""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from basics.seeds import derive_seed
from federation.wire.availability import Availability, Fate, fate
from federation.wire.exchange import Exchange, Step
from federation.wire.job import Job, Reply

Outcome = Literal["used", "stale", "late", "lost", "outage", "refused"]


@dataclass(frozen=True)
class Arrival:
    """How a job ended.

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
    """Sends the jobs of one federation and hands out how each ended, in the order of this clock.

    Attributes:
        identity: what the order depends on, as JSON; part of a federation's id.
        real: whether a repetition may have another order.
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
        """Send a job; it leaves with the following `next()` or `flush()`.

        Args:
            work_s: seconds of computing at speed 1, for a simulated clock.
            bytes_up: expected size of the reply, for a simulated line.
        """

    @abstractmethod
    def next(self, until_s: float = math.inf) -> Exchange[Arrival | None]:
        """The next job to end; None when none ends before `until_s` (`now` is then that moment)."""

    def flush(self) -> Exchange[None]:
        """Hand over what was sent without waiting for the following `next()`, where that makes a difference."""
        yield from ()

    @property
    @abstractmethod
    def outstanding(self) -> int:
        """How many jobs were sent and have not ended."""

    @property
    @abstractmethod
    def under_way(self) -> list[Arrival]:
        """The jobs that have not ended, in the order in which they were sent, without replies."""

    @abstractmethod
    def send_again(self, job: Job, known: Fate, tag: Any) -> None:
        """Send a job again after a restart, with the fate that was drawn for it before."""

    @abstractmethod
    def drop_outstanding(self) -> list[Arrival]:
        """Stop waiting for what is under way; returns it, without replies."""

    @abstractmethod
    def unreachable(self, centre: str) -> bool:
        """Whether the centre did not answer when last asked or, simulated, is gone for good."""

    @abstractmethod
    def gone(self, centre: str) -> bool:
        """Whether the centre will never answer again. Only a simulation knows."""

    def note(self, arrival: Arrival, number: int, kind: str, outcome: Outcome, staleness: int = 0) -> None:
        """Record what became of a job."""
        f = arrival.fate
        self.rows.append(JobTime(arrival.centre, number, kind, f.sent_s, f.started_s, f.finished_s, outcome, staleness))

    def state(self) -> dict[str, Any]:
        """What a restart needs, as JSON; the sender has to send again what is outstanding."""
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
        notice_s: how long the server takes to notice that a job is lost.
    """

    def __init__(self, centres: Mapping[str, Availability], *, seed: int, purpose: str, notice_s: float = 60.0):
        super().__init__()
        self._centres, self._seed, self._purpose, self._notice_s = dict(centres), seed, purpose, notice_s
        # As text, because JSON has no infinity.
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
        """The jobs to compute: without those that end too late to be waited for."""
        if math.isinf(until_s):
            jobs, self._unsent = self._unsent, []
            return jobs
        late = {unit for finished_s, _, _, unit, _, _ in self._heap if finished_s > until_s}
        jobs = [job for job in self._unsent if job.unit not in late]
        self._unsent = [job for job in self._unsent if job.unit in late]
        return jobs
