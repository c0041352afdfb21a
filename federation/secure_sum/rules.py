"""What members and coordinator must agree on: the least number of members, the threshold, names and contexts of a session."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

# In a sum of two each member knows the other's numbers.
LEAST = 3


def threshold(members: int) -> int:
    """Members of a session that must sign a list of survivors, and whose shares open it: more than two thirds.

    So two lists of one session cannot both be signed while fewer than a third of its members break the rules (Bonawitz et al.
    2017, section 6.2).
    """
    return 2 * members // 3 + 1


def least(members: int) -> int:
    """Survivors without which a session of so many members opens nothing."""
    return max(LEAST, threshold(members))


class SumRefused(ValueError):
    """A step of a secure sum that a member does not take; `reason` names centres and numbers only, and may travel."""

    code = "sum_refused"

    def __init__(self, reason: str):
        super().__init__(reason)
        self.numbers = {"reason": reason}


@dataclass(frozen=True)
class Session:
    """One sum.

    Attributes:
        study: hash of the scenario.
        of: what is trained, as the scenario fixes it; not an id that the coordinator chooses.
        round: from 0 on.
        number: of the attempt; a session with other members has another.
    """

    study: str
    of: str
    round: int
    number: str

    def context(self, *more: str | Iterable[str]) -> bytes:
        """Bytes that bind a key or a signature to this session."""
        parts = [self.study, self.of, self.round, self.number, *(m if isinstance(m, str) else list(m) for m in more)]
        return json.dumps(parts, separators=(",", ":")).encode()
