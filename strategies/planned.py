"""Exchanges: what a study plans, how the server begins it, and what it leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from federation.wire.centres import Centres
from federation.wire.clock import Clock, JobTime
from federation.wire.exchange import Exchange
from federation.wire.job import Reply
from federation.wire.units import Units
from models import GeneratorSpec
from strategies.ask import Ask
from strategies.bodies import Pool
from strategies.members import Summary

T = TypeVar("T")


@dataclass(frozen=True)
class Generated:
    """A generator that can be given to receivers.

    Attributes:
        unit: id of what made it: a unit of work, a federation, or a package's digest.
        weights: `GenerativeModel.shared_arrays`.
        centres: whose patients it was trained on; none known for a package.
        card: data card, what it was trained on, history: JSON by name, as the centres gave it.
        preview: synthetic images (n, c, h, w), as they are stored, and their labels (n,); none for a package.
        seen: names of the classes of which there were images; None: not told, as of a package from elsewhere.
    """

    unit: str
    spec: GeneratorSpec
    weights: Mapping[str, np.ndarray]
    centres: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    preview: tuple[np.ndarray, np.ndarray] | None = None
    seen: tuple[str, ...] | None = None

    @property
    def labels(self) -> tuple[int, ...]:
        """Labels of the classes that it makes and has seen images of."""
        labels = self.spec.labels
        return labels if self.seen is None else tuple(i for i in labels if self.spec.classes[i] in self.seen)


def seen_classes(*trained_on: Any) -> tuple[str, ...]:
    """Names of the classes of which some centre had images.

    Args:
        trained_on: what each centre says of itself (`strategies.centre_side.trained_on`).
    """
    lists = [one.get("classes") for one in trained_on if isinstance(one, Mapping)]
    return tuple(name for names in lists if isinstance(names, list | tuple) for name in names if isinstance(name, str))


@dataclass(frozen=True)
class FederationRecord:
    """What is written about a federation, beside what it made.

    Attributes:
        series: federation, alone (one member by itself, for comparison) or central.
        rows: what became of each job, in seconds of its clock.
        convergence: rows of convergence.csv without arm and task.
        rounds: rounds, or generator updates.
        transport: how weights travelled.
        failed: why nothing came of it; "" where it has a result.
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
    failed: str = ""


@dataclass
class Shared:
    """Outcome of the share phase.

    Attributes:
        pools: by (arm, receiver, task): what that arm's receiver learns from beside its own data.
        generators: by (generator or arm, task).
        federations: what happened in each.
        problems: what failed, each in a sentence; whatever depends on it is missing.
        notes: what is otherwise than one might think, each in a sentence.
    """

    pools: dict[tuple[str, str, str], list[Pool]] = field(default_factory=dict)
    generators: dict[tuple[str, str], Generated] = field(default_factory=dict)
    federations: list[FederationRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Shared) -> None:
        """Take over another outcome."""
        self.pools |= other.pools
        self.generators |= other.generators
        self.federations += other.federations
        self.problems += other.problems
        self.notes += other.notes


@dataclass(frozen=True)
class Learned:
    """Outcome of a cell.

    Attributes:
        reply: the receiver's, with metrics; None where the cell failed.
        record: of the federation that trained it, where one did.
    """

    reply: Reply | None
    record: FederationRecord | None = None
    problems: tuple[str, ...] = ()


# -- exchanges ---------------------------------------------------------------------------------------------------------


class ServerHalf(ABC, Generic[T]):
    """One exchange under way. Built with its own arguments; never sees a scenario."""

    @abstractmethod
    def share(self, centres: Centres) -> Exchange[T]:
        """Do the exchange. A centre that fails is reported in the outcome's `problems`; the others go on.

        Args:
            centres: asked for what an earlier session recorded; jobs are yielded, never sent directly. A reply that is not as
                its kind declares comes as an error: names, dtypes and shapes need no second look; values do.
        """


@dataclass(frozen=True)
class Planned(Generic[T]):
    """One exchange that a study is going to have.

    Attributes:
        strategy: of its arm.
        asks: every job that it asks of each centre.
        begin: makes the server half from what makes its jobs and its clock.
        purpose: of its clock's random streams; unique in a study.
        members: centres whose behaviour its clock simulates.
        faults: False where only their speeds count: an exchange that is there to compare with.
        light: whether it is one job and holds no weights, so that all such are begun at once.
        describes: what `validate` shows of it: the generator that it trains, and where.
    """

    strategy: str
    asks: tuple[Ask, ...]
    begin: Callable[[Units, Clock], ServerHalf[T]]
    purpose: str = ""
    members: tuple[str, ...] = ()
    faults: bool = True
    light: bool = False
    describes: Training | None = None


@dataclass(frozen=True)
class Training:
    """A generator that an exchange trains, for people.

    Attributes:
        where: the centres that train it.
        at_server: whether the generator itself is trained on the server.
    """

    name: str
    task: str
    spec: GeneratorSpec
    where: tuple[str, ...]
    at_server: bool = False


def split_evenly(total: int, parts: int) -> list[int]:
    """`total` in `parts` whole numbers that differ by at most one, larger ones first."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def problems_of(replies: Sequence[Reply]) -> list[str]:
    """The failed ones among replies, each in a sentence. Their codes and numbers are in the events, too."""
    return [f"{reply.kind} at centre {reply.centre!r}: {reply.code}" for reply in replies if not reply.ok]
