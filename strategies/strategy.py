"""What every strategy is: `share` moves knowledge between centres until the receivers hold something to learn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from federation.wire.centres import Centres
from federation.wire.clock import JobTime
from federation.wire.exchange import Exchange
from federation.wire.job import Reply
from strategies.rounds import Summary


@dataclass(frozen=True)
class Pool:
    """Foreign images (synthetic or real) that a receiver holds.

    Attributes:
        unit: id of the unit that made it; its name in the receiver's workspace.
        source: the generator or the centre it comes from.
        negatives, positives: images per class.
    """

    unit: str
    source: str
    negatives: int
    positives: int


@dataclass(frozen=True)
class Generated:
    """A generator that can be given to receivers.

    Attributes:
        unit: id of what made it: a unit of work, a federation, or a package's digest.
        spec: JSON of a `models.GeneratorSpec`.
        weights: `GenerativeModel.shared_arrays`.
        centres: whose patients it was trained on; none known for a package.
        card: data card, what it was trained on, history: JSON by name, as the centres gave it.
        preview: synthetic images, uint8 (n, c, h, w), and their labels (n,); none for a package.
    """

    unit: str
    spec: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]
    centres: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    preview: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class FederationRecord:
    """What is written about a federation, beside what it made.

    Attributes:
        series: federation, alone (one member by itself, for comparison) or central.
        rows: what became of each job, in seconds of its clock.
        convergence: rows of convergence.csv without arm and task.
        rounds: rounds, or generator updates.
        transport: how weights travelled.
    """

    arm: str
    task: str
    strategy: str
    series: str
    rounds: int
    summary: Summary
    rows: list[JobTime] = field(default_factory=list)
    convergence: list[dict[str, Any]] = field(default_factory=list)
    transport: str = "fp32"


@dataclass
class Shared:
    """Outcome of the share phase.

    Attributes:
        pools: by (arm, receiver, task): what that arm's receiver learns from beside its own data.
        generators: by (generator or arm, task).
        federations: what happened in each.
        problems: what failed, each in a sentence; whatever depends on it is missing.
    """

    pools: dict[tuple[str, str, str], list[Pool]] = field(default_factory=dict)
    generators: dict[tuple[str, str], Generated] = field(default_factory=dict)
    federations: list[FederationRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Shared) -> None:
        """Take over another outcome."""
        self.pools |= other.pools
        self.generators |= other.generators
        self.federations += other.federations
        self.problems += other.problems


class Strategy(ABC):
    """One way to share. Built with its own arguments; never sees a scenario."""

    @abstractmethod
    def share(self, centres: Centres) -> Exchange[Shared]:
        """Do the exchange. A centre that fails is reported in `problems`; the others go on.

        Args:
            centres: asked for what an earlier session recorded; jobs are yielded, never sent directly.
        """


def split_evenly(total: int, parts: int) -> list[int]:
    """`total` in `parts` whole numbers that differ by at most one, larger ones first."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def problems_of(replies: list[Reply]) -> list[str]:
    """The failed ones among replies, each in a sentence. Their codes and numbers are in the events, too."""
    return [f"{reply.kind} at centre {reply.centre!r}: {reply.code}" for reply in replies if not reply.ok]
