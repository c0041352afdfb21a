"""What every strategy is: `share` moves knowledge between centres until the receivers hold something to learn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from federation.centres import Centres
from federation.job import Reply


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


@dataclass
class Shared:
    """Outcome of the share phase.

    Attributes:
        pools: by (arm, receiver, task): what that arm's receiver learns from beside its own data.
        generators: reply of the provider by (generator, task): weights in `arrays`, card and history in `body`.
        failed: error replies; whatever depends on them is missing from `pools`.
    """

    pools: dict[tuple[str, str, str], list[Pool]] = field(default_factory=dict)
    generators: dict[tuple[str, str], Reply] = field(default_factory=dict)
    failed: list[Reply] = field(default_factory=list)


class Strategy(ABC):
    """One way to share. Built with its own arguments; never sees a scenario."""

    @abstractmethod
    def share(self, centres: Centres) -> Shared:
        """Do the exchange. A centre that fails is reported in `failed`; the others go on."""


def split_evenly(total: int, parts: int) -> list[int]:
    """`total` in `parts` whole numbers that differ by at most one, larger ones first."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def failures(replies: Sequence[Reply]) -> list[Reply]:
    """The error replies among `replies`."""
    return [reply for reply in replies if not reply.ok]
