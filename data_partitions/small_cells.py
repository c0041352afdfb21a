"""Counts that may leave a centre: 1 to 4 of something may point to a person and are shown as "<5"."""

SMALL_CELL = 5


def cell(count: int) -> int | str:
    """The count, or "<5" for 1 to 4."""
    return f"<{SMALL_CELL}" if 0 < count < SMALL_CELL else int(count)
