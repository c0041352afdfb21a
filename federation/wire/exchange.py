"""Strategies as coroutines over jobs: each says what to send and which reply it needs next; one driver runs them all.

A federation in lock-step leaves workers idle while it waits for its slowest centre. Several arms of a study wait at
different times, so the driver interleaves them over the same centres. A strategy decides only from its own replies,
never from what arrived first elsewhere: its result does not depend on the others that run at the same time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from federation.wire.centres import Centres
from federation.wire.job import Job, Reply

T = TypeVar("T")
Key = TypeVar("Key")


@dataclass(frozen=True)
class Step:
    """What a strategy yields.

    Attributes:
        send: jobs to send now.
        wait_for: units; the first reply to one of them resumes the strategy. If empty, the strategy goes on at once. A
            reply that comes before the strategy waits for it is kept.
        timeout_s: real seconds after which the strategy is resumed with None.
        cancel: units that were sent but whose replies are no longer needed.
    """

    send: Sequence[Job] = ()
    wait_for: frozenset[str] = frozenset()
    timeout_s: float | None = None
    cancel: Sequence[str] = ()


Exchange = Generator[Step, Reply | None, T]


def gather(jobs: Sequence[Job]) -> Exchange[list[Reply]]:
    """Send all jobs; their replies in the jobs' order, so that a sum over them is reproducible."""
    replies: dict[str, Reply] = {}
    missing = {job.unit for job in jobs}
    send: Sequence[Job] = jobs
    while missing:
        reply = yield Step(send, frozenset(missing))
        assert reply is not None, "a step without a timeout is resumed with a reply"
        replies[reply.unit] = reply
        missing.discard(reply.unit)
        send = ()
    return [replies[job.unit] for job in jobs]


@dataclass(eq=False)
class _Running:
    key: Any
    exchange: Generator[Step, Reply | None, Any]
    sent: set[str] = field(default_factory=set)  # its units that are under way
    waits: frozenset[str] = frozenset()
    deadline: float | None = None
    kept: dict[str, Reply] = field(default_factory=dict)


def run_together(
    centres: Centres, exchanges: Mapping[Key, Exchange[T]], *, at_once: int | None = None, light: Collection[Key] = ()
) -> dict[Key, T]:
    """Run exchanges over the same centres; their results by key, in the order of `exchanges`.

    A job that two exchanges send while it is under way is done once and answers both.

    Args:
        at_once: the most exchanges that have begun and not ended; none: all.
        light: exchanges that do not count towards it.

    Raises:
        StudyError: from the first exchange that raises one; the others are closed.
    """
    waiting = deque(exchanges.items())
    running: dict[Key, _Running] = {}
    results: dict[Key, T] = {}
    owners: dict[str, list[_Running]] = {}  # of the units under way

    def give_up(one: _Running, units: Sequence[str]) -> None:
        """Cancel those of the units that no other exchange needs."""
        for unit in units:
            one.kept.pop(unit, None)
            if unit in one.sent:
                one.sent.discard(unit)
                owners[unit].remove(one)
                if not owners[unit]:
                    del owners[unit]
                    centres.cancel([unit])

    def resume(one: _Running, reply: Reply | None) -> None:
        """Let an exchange go on until it needs a reply that has not come."""
        while True:
            try:
                step = one.exchange.send(reply)
            except StopIteration as end:
                results[one.key] = end.value
                del running[one.key]
                give_up(
                    one, list(one.sent)
                )  # it hears no further reply, and its jobs would keep workers from the others
                return
            give_up(one, step.cancel)
            for job in step.send:
                if job.unit not in owners:
                    owners[job.unit] = []
                    centres.send(job)
                if job.unit not in one.sent:
                    one.sent.add(job.unit)
                    owners[job.unit].append(one)
            one.waits = step.wait_for
            one.deadline = None if step.timeout_s is None else time.monotonic() + step.timeout_s
            here = next((unit for unit in one.kept if unit in step.wait_for), None)
            if step.wait_for and here is None:
                return
            reply = one.kept.pop(here) if here is not None else None

    try:
        while waiting or running:
            while waiting and (
                at_once is None or waiting[0][0] in light or sum(key not in light for key in running) < at_once
            ):
                key, exchange = waiting.popleft()
                running[key] = _Running(key, exchange)
                resume(running[key], None)
            if not running:
                continue
            timed = [one for one in running.values() if one.deadline is not None]
            deadlines = [one.deadline for one in timed if one.deadline is not None]
            left = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
            reply = centres.receive(left)
            if reply is not None:
                for one in owners.pop(reply.unit, []):
                    one.sent.discard(reply.unit)
                    if reply.unit in one.waits:
                        resume(one, reply)
                    else:
                        one.kept[reply.unit] = reply
            elif left is None:
                raise AssertionError("every exchange waits and nothing is under way")
            for one in timed:
                # The reply may have resumed it, with another deadline or with none.
                if one.key in running and one.deadline is not None and time.monotonic() >= one.deadline:
                    resume(one, None)
    finally:
        for one in running.values():
            one.exchange.close()
        centres.cancel(owners)
    return {key: results[key] for key in exchanges}
