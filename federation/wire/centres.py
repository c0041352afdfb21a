"""The centres as the server sees them: send jobs, receive replies, gather a set of them in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from federation.wire.job import Job, Reply


class Centres(ABC):
    """The centres, by name."""

    names: Sequence[str]

    @abstractmethod
    def send(self, job: Job) -> None:
        """Queue a job; it is pushed as soon as a lane of its centre is free."""

    @abstractmethod
    def receive(self, timeout_s: float | None = None) -> Reply | None:
        """The next reply to arrive; None when nothing is under way or time is up."""

    @abstractmethod
    def cancel(self, units: Iterable[str]) -> None:
        """Forget jobs: do not send those in the queue, and drop the replies that have not been received."""

    def known(self, job: Job) -> Reply | None:
        """The reply to this very job, if an earlier session of the run received it; see `server.checkpoint`."""
        return None

    def save_progress(self, key: str, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Record how far a long exchange has come, replacing what `key` held; a resumed run continues from there."""
        return None

    def load_progress(self, key: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """What `save_progress` recorded last under `key`."""
        return None

    def discard(self, units: Iterable[str]) -> None:
        """Forget recorded replies that the recorded progress contains: their arrays are no longer needed."""
        return None

    def gather(self, jobs: Sequence[Job]) -> list[Reply]:
        """Send all jobs and wait; their replies in the jobs' order, never in that of arrival, so that a sum is reproducible.

        A centre that fails yields an error reply; the caller decides what depends on it.
        """
        replies: dict[str, Reply | None] = dict.fromkeys(job.unit for job in jobs)
        if len(replies) != len(jobs):
            raise ValueError("gather: two jobs have the same unit")
        for job in jobs:
            self.send(job)
        while None in replies.values():
            reply = self.receive()
            assert reply is not None, "every job ends in a reply"
            if reply.unit in replies:
                replies[reply.unit] = reply
        return [reply for reply in replies.values() if reply is not None]
