"""Centres that answer from a script, and time that a test moves: neither depends on the machine's speed."""

import time
from collections import Counter

import pytest

from federation.wire import exchange, grid_centres, real_clock, roll_call
from federation.wire.centres import Centres
from federation.wire.job import Job, Reply


class Time:
    """Replaces the module `time`: a second passes only where code sleeps, or where a test lets it pass.

    Attributes:
        now: seconds since the test began.
    """

    time = staticmethod(time.time)

    def __init__(self):
        self.now = 0.0
        self._due = []

    def monotonic(self):
        return self.now

    def later(self, seconds, action):
        """Call a function when so many seconds have passed."""
        self._due.append((self.now + seconds, action))

    def sleep(self, seconds):
        end = self.now + seconds
        for at, action in sorted((due for due in self._due if due[0] <= end), key=lambda due: due[0]):
            self._due.remove((at, action))
            self.now = at
            action()
        self.now = end


@pytest.fixture
def clock(monkeypatch):
    """The time of everything that waits in `federation.wire`."""
    moved = Time()
    for module in (exchange, grid_centres, real_clock, roll_call):
        monkeypatch.setattr(module, "time", moved)
    return moved


class ScriptedCentres(Centres):
    """Does every job at once and hands replies out in the order of `rank` (of the jobs that wait), smallest first.

    Args:
        never: units of jobs that are never answered.
        sleep: how a receiver waits for them.
    """

    def __init__(self, rank=lambda job: 0, never=(), code=lambda job: "ok", sleep=time.sleep):
        self.names = ["A", "B"]
        self.rank, self.never, self.code, self.sleep = rank, set(never), code, sleep
        self.under_way: list[Job] = []
        self.sent: Counter = Counter()
        self.cancelled: list[str] = []

    def send(self, job):
        self.sent[job.unit] += 1
        self.under_way.append(job)

    def receive(self, timeout_s=None):
        able = [job for job in self.under_way if job.unit not in self.never]
        if not able:
            if timeout_s is not None and self.under_way:
                self.sleep(timeout_s)
            return None
        job = min(able, key=self.rank)
        self.under_way.remove(job)
        return Reply(job.study, job.unit, job.centre, job.kind, code=self.code(job), body=job.body)

    def cancel(self, units):
        units = list(units)
        self.cancelled += units
        self.under_way = [job for job in self.under_way if job.unit not in units]


@pytest.fixture(scope="session")
def scripted():
    return ScriptedCentres


@pytest.fixture(scope="session")
def a_job():
    return lambda unit, centre="A", **body: Job("s", unit, centre, "learn", body)
