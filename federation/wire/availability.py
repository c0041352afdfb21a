"""How a simulated centre behaves, and what follows for one job sent to it, in simulated seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Availability:
    """How a simulated centre behaves.

    Attributes:
        speed: local steps per simulated second, relative to the study's `step_s`.
        delay_s: of every message, one way.
        bandwidth_mbit_s: of its line, in each direction; none: transfers take no time.
        dropout: probability that a job is lost (the node restarts, the process dies).
        outages: (from, to) in simulated seconds; `to` may be infinite: gone for good.
    """

    speed: float = 1.0
    delay_s: float = 0.0
    bandwidth_mbit_s: float | None = None
    dropout: float = 0.0
    outages: tuple[tuple[float, float], ...] = ()

    def back_s(self, at_s: float) -> float:
        """The first moment from `at_s` on when it can be reached. Outages may touch or overlap; infinity: never again."""
        while ends := [to_s for from_s, to_s in self.outages if from_s <= at_s < to_s]:
            at_s = max(ends)
        return at_s

    def gone_from(self, at_s: float) -> bool:
        """Whether it is gone for good at this moment."""
        return math.isinf(self.back_s(at_s))


@dataclass(frozen=True)
class Fate:
    """What becomes of a job; seconds of the clock.

    Attributes:
        finished_s: when the reply arrives, or when the server notices that none will come.
        lost: "lost" or "outage" for a job without a reply, otherwise empty.
    """

    sent_s: float
    started_s: float
    finished_s: float
    lost: Literal["", "lost", "outage"] = ""


def fate(centre: Availability, sent_s: float, work_s: float, transfer_s: float, notice_s: float,
         rng: np.random.Generator) -> Fate:  # fmt: skip
    """When a job sent at `sent_s` is answered.

    A job sent to a centre during an outage waits for its end (a SuperLink keeps messages for its nodes). One that an outage
    or a dropout cuts off is lost; the server notices `notice_s` later.

    Args:
        work_s: of computing at speed 1.
        transfer_s: both ways together.
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
