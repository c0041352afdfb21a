"""The clock of a deployment: replies count when they come, in seconds as they pass."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federation.wire.availability import Fate
from federation.wire.clock import Arrival, Clock
from federation.wire.exchange import Exchange, Step
from federation.wire.job import Job


@dataclass
class _Sent:
    job: Job
    sent_s: float
    tag: Any


class RealClock(Clock):
    """Seconds as they pass. A job is lost when its node or its process was."""

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
