"""Relations of boxes that several tests assert."""

from data_partitions.exams import Box


def holds(outer: Box, inner: Box) -> bool:
    """Whether all of `inner` lies in `outer`."""
    starts = outer.top <= inner.top and outer.left <= inner.left
    return starts and outer.bottom >= inner.bottom and outer.right >= inner.right
