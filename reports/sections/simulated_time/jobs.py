"""Simulated seconds: which centre computed when, and what became of its jobs.

Centres of a simulation declare a speed, delays and outages, and a virtual clock says when each reply would have come.
The order of replies, hence the result of asynchronous training, follows this clock; the run did not wait for it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import pandas as pd

from reports.study import Study
from reports.timeline import union, union_seconds

# Outcomes of jobs that no centre computed: it was out, or it refused.
_NOT_COMPUTED = ("outage", "refused")


@dataclass(frozen=True)
class SimulatedJob:
    """One job. Times in simulated seconds; NaN for what never happened or is not known."""

    centre: str
    number: int
    sent: float
    started: float
    finished: float
    outcome: str
    staleness: float

    @property
    def computed(self) -> tuple[float, float] | None:
        """From when to when the centre computed, used or not."""
        if self.outcome in _NOT_COMPUTED or math.isnan(self.started) or math.isnan(self.finished):
            return None
        return self.started, self.finished

    @property
    def ended(self) -> float:
        """When it came to its end as far as anyone knows."""
        return next(t for t in (self.finished, self.started, self.sent) if not math.isnan(t))


@dataclass(frozen=True)
class Simulation:
    """All jobs of one arm and task, in the order in which they were sent."""

    arm: str
    task: str
    strategy: str
    jobs: tuple[SimulatedJob, ...]

    @property
    def start(self) -> float:
        return min(job.sent for job in self.jobs)

    @property
    def seconds(self) -> float:
        """From the first job sent to the end of the last one."""
        return max(job.ended for job in self.jobs) - self.start


@dataclass(frozen=True)
class CentreTime:
    """One centre of a simulation."""

    centre: str
    outcomes: Counter[str]
    computing_s: float
    share: float  # of the simulation's seconds, 0 to 1; NaN for a simulation that took no time
    median_s: float  # of its jobs' computing; NaN when none was computed
    staleness: float  # mean over its used jobs, in updates; NaN when not counted

    @property
    def jobs(self) -> int:
        return self.outcomes.total()

    @property
    def unused(self) -> int:
        return self.jobs - self.outcomes["used"]


def simulations(table: pd.DataFrame, study: Study) -> list[Simulation]:
    """The rows of virtual_time.csv by arm and task, arms in the scenario's order."""
    order = {name: i for i, name in enumerate(study.arms)}
    found = []
    for (arm, task), part in table.groupby(["arm", "task"], sort=False):
        part = part.sort_values(["sent_s", "centre"])
        columns = [
            part[name] for name in ("centre", "number", "sent_s", "started_s", "finished_s", "outcome", "staleness")
        ]
        jobs = tuple(SimulatedJob(*values) for values in zip(*columns, strict=True))
        found.append(Simulation(str(arm), str(task), str(part["strategy"].iloc[0]), jobs))
    return sorted(found, key=lambda s: (order.get(s.arm, len(order)), s.arm, s.task))


def centre_times(simulation: Simulation, order: Sequence[str] = ()) -> list[CentreTime]:
    """Every centre that was sent a job, in the order given, others after it by name."""
    place = {name: i for i, name in enumerate(order)}
    by_centre: dict[str, list[SimulatedJob]] = {}
    for job in simulation.jobs:
        by_centre.setdefault(job.centre, []).append(job)
    seconds = simulation.seconds
    found = []
    for centre in sorted(by_centre, key=lambda name: (place.get(name, len(place)), name)):
        own = by_centre[centre]
        spans = [span for job in own if (span := job.computed)]
        stale = [job.staleness for job in own if job.outcome == "used" and not math.isnan(job.staleness)]
        computing = union_seconds(spans)
        found.append(
            CentreTime(
                centre,
                Counter(job.outcome for job in own),
                computing,
                computing / seconds if seconds > 0 else math.nan,
                median(end - start for start, end in spans) if spans else math.nan,
                sum(stale) / len(stale) if stale else math.nan,
            )
        )
    return found


def most_affected(times: Sequence[CentreTime], n: int) -> list[CentreTime]:
    """The n centres with the most jobs that were not used, of equals the slowest; in the order given."""
    slowness = [0.0 if math.isnan(t.median_s) else t.median_s for t in times]
    ranked = sorted(range(len(times)), key=lambda i: (-times[i].unused, -slowness[i], i))
    return [times[i] for i in sorted(ranked[:n])]


def covered_share(spans: Sequence[tuple[float, float]], edges: np.ndarray) -> np.ndarray:
    """Share of each bin that lies in at least one span.

    spans: (start, end). edges: float (bins + 1,), increasing. Returns float64 (bins,) in [0, 1].
    """
    parts = np.array(union(spans), float).reshape(-1, 2)
    if not len(parts):
        return np.zeros(len(edges) - 1)
    # Covered time up to t: rises by one within a span, is level between two.
    moments = parts.ravel()
    covered = np.concatenate([[0.0], np.cumsum(np.diff(moments) * (np.arange(len(moments) - 1) % 2 == 0))])
    return np.clip(np.diff(np.interp(edges, moments, covered)) / np.diff(edges), 0.0, 1.0)
