"""Centres that answer from a script, so that a test decides in which order replies come."""

import time
from collections import Counter

import pytest

from federation.wire.centres import Centres
from federation.wire.job import Job, Reply


class ScriptedCentres(Centres):
    """Does every job at once and hands replies out in the order of `rank` (of the jobs that wait), smallest first."""

    def __init__(self, rank=lambda job: 0, never=(), code=lambda job: "ok"):
        self.names = ["A", "B"]
        self.rank, self.never, self.code = rank, set(never), code
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
                time.sleep(timeout_s)
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
