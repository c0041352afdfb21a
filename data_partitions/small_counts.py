"""Counts that may leave a centre. Small counts, 1 to 4, may point to a person and are shown as "<5"."""

from collections.abc import Mapping, Sequence

SMALLEST_SHOWN = 5


def suppressed_count(count: int) -> int | str:
    """The count, or "<5" for 1 to 4."""
    return f"<{SMALLEST_SHOWN}" if is_small(count) else int(count)


def is_small(count: int) -> bool:
    return 0 < count < SMALLEST_SHOWN


def pooled(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts whose sum is known elsewhere: the small ones added up together with the smallest of the others.

    Were a small count shown as "<5", the sum and the other counts would give it away. A total that includes a larger
    count does not reveal its parts. {"a": 2, "b": 9, "c": 30} becomes {"a or b": 11, "c": 30}.
    """
    order = sorted(counts, key=lambda name: (counts[name], name))
    small = sum(is_small(counts[name]) for name in order)
    if not small:
        return dict(counts)
    pool = sorted(order[: small + 1])
    together = {" or ".join(name or "none" for name in pool): sum(counts[name] for name in pool)}
    return together | {name: count for name, count in counts.items() if name not in pool}


def guarded(counts: Sequence[int]) -> list[int | str]:
    """Counts whose sum may be known elsewhere, in their order: small ones as "<5", and one more count withheld.

    The largest count becomes "5 or more", so that the sum does not give the small ones away. Where the largest is too
    small for that, only "<5" and zeros are shown and the others are "". [2, 9, 30] becomes ["<5", 9, "5 or more"].
    """
    small = [n for n in counts if is_small(n)]
    if not small:
        return list(counts)
    largest = max(range(len(counts)), key=lambda i: counts[i])
    covered = counts[largest] + sum(small) >= SMALLEST_SHOWN + (SMALLEST_SHOWN - 1) * len(small)
    shown: list[int | str] = []
    for i, n in enumerate(counts):
        if is_small(n) or n == 0:
            shown.append(suppressed_count(n))
        else:
            shown.append(f"{SMALLEST_SHOWN} or more" if i == largest and covered else int(n) if covered else "")
    return shown
