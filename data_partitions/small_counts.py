"""Counts as they leave a centre: rounded to 5, "<5" below that. One rule for tables, notes, errors, replies and weights.

The rounded count follows from the count alone: no noise, so that asking again tells nothing new. No total is rounded beside
its parts, and no number leaves from which a count could be computed to the unit; see docs/decisions/0014-rounded-counts.md.
"""

from collections.abc import Iterable

STEP = 5
HIDDEN = f"<{STEP}"
OTHER = "other"


def shown_count(count: int) -> int | str:
    """The nearest multiple of 5; "<5" for 0 to 4, because a 0 that becomes "<5" would tell of one new patient."""
    return HIDDEN if is_small(count) else _rounded(count)


def shown_weight(count: int) -> int:
    """A count as a number to compute with: the nearest multiple of 5, at least 5."""
    return max(STEP, _rounded(count))


def fewest_shown_alike(count: int) -> int:
    """The smallest count that is shown as this one is: 43 for 43 to 47, 0 for 0 to 4.

    So many can be picked from what is there, and their number tells no more than the shown count does.
    """
    return 0 if is_small(count) else max(STEP, _rounded(count) - STEP // 2)


def is_small(count: int) -> bool:
    """Whether a count is hidden."""
    return count < STEP


def shown_total(counts: Iterable[int]) -> int | str:
    """The total of counts that are shown one by one: the sum of what is shown of them, where a hidden one counts nothing.

    Rounded on its own a total would tell which way its parts were rounded.
    """
    total = sum(_rounded(count) for count in counts if not is_small(count))
    return total or HIDDEN


def _rounded(count: int) -> int:
    return (int(count) + STEP // 2) // STEP * STEP
