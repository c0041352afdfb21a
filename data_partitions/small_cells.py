"""Counts that may leave a centre: 1 to 4 of something may point to a person and are shown as "<5"."""

from collections.abc import Mapping, Sequence

SMALL_CELL = 5


def cell(count: int) -> int | str:
    """The count, or "<5" for 1 to 4."""
    return f"<{SMALL_CELL}" if is_small(count) else int(count)


def is_small(count: int) -> bool:
    return 0 < count < SMALL_CELL


def pooled(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts whose sum is known elsewhere, at least 5: the small ones in one sum with the smallest other.

    Written "<5", a small count could be worked out from the sum and the others; of a sum that also holds a larger count
    nobody can tell which part is whose. {"a": 2, "b": 9, "c": 30} becomes {"a or b": 11, "c": 30}.
    """
    order = sorted(counts, key=lambda name: (counts[name], name))
    small = sum(is_small(counts[name]) for name in order)
    if not small:
        return dict(counts)
    pool = sorted(order[: small + 1])
    together = {" or ".join(name or "none" for name in pool): sum(counts[name] for name in pool)}
    return together | {name: count for name, count in counts.items() if name not in pool}


def guarded(counts: Sequence[int]) -> list[int | str]:
    """Counts whose sum may be known elsewhere, each in its own place: small ones as "<5", and one more held back.

    Beside the small ones the largest count is written "5 or more", so that the sum gives none of them back; where it is
    too small to cover for them nothing but "<5" and zeros is shown and the others are "". [2, 9, 30] becomes
    ["<5", 9, "5 or more"].
    """
    small = [n for n in counts if is_small(n)]
    if not small:
        return list(counts)
    largest = max(range(len(counts)), key=lambda i: counts[i])
    covered = counts[largest] + sum(small) >= SMALL_CELL + (SMALL_CELL - 1) * len(small)
    shown: list[int | str] = []
    for i, n in enumerate(counts):
        if is_small(n) or n == 0:
            shown.append(cell(n))
        else:
            shown.append(f"{SMALL_CELL} or more" if i == largest and covered else int(n) if covered else "")
    return shown
