"""Numbers as elements of the integers modulo 2^64, in which masks cancel exactly and sums do not depend on their order.

A number x with weight w becomes round(w x 2^28), so a mean is off by at most 2^-29 = 1.9e-9. No sum can wrap: of `members`
members each may hold at most (2^63 - 1) / members, which is checked before masking. With 4 members of 10,000 images each that
allows |x| up to 850,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

FRACTION_BITS = 28
_LARGEST = 2**63 - 1
# The weights themselves travel beside the numbers, so that only their sum is seen.
WEIGHT = "weight"

Arrays = Mapping[str, np.ndarray]


class OutOfRange(ValueError):
    """A number that has no place in the ring."""

    code = "out_of_range"

    def __init__(self, name: str, value: float, largest: float):
        super().__init__(
            f"array {name!r} holds {value:.6g}, and a secure sum takes at most {largest:.6g} of it; lower the learning rate if the weights "
            "diverge, or set secure_aggregation: false"
        )
        self.numbers = {"name": name[:64], "largest": largest}


def to_ring(arrays: Arrays, weight: int, members: int, bits: int = FRACTION_BITS) -> dict[str, np.ndarray]:
    """Weighted numbers and the weight as uint64, under the same names and `WEIGHT`.

    Args:
        arrays: floating, of any shapes.
        weight: of this member, from 1 on.
        members: the most that take part.
        bits: of the fraction.

    Raises:
        OutOfRange: a number (or the weight) so large that a sum over all members could wrap, NaN or infinity.
    """
    largest = _LARGEST // members
    if not 0 < weight <= largest:
        raise OutOfRange(WEIGHT, weight, largest)
    scale = float(weight) * 2.0**bits
    below = float(largest) * (1 - 2.0**-52)  # as a float64 it may have been rounded up
    ring = {}
    for name, array in arrays.items():
        # Exact up to the rounding: 24 bits of a float32 times a weight below 2^29 fit in a float64.
        scaled = np.asarray(np.rint(array.astype(np.float64) * scale))  # of a single number, numpy makes a scalar
        if not np.abs(scaled).max(initial=0.0) <= below:  # in this form because of NaN
            raise OutOfRange(name, float(np.abs(array).max()), below / scale)
        ring[name] = scaled.astype(np.int64).astype(np.uint64)
    ring[WEIGHT] = np.array([weight], np.uint64)
    return ring


def added(every: Iterable[Arrays]) -> dict[str, np.ndarray]:
    """The sum modulo 2^64, name by name."""
    total: dict[str, np.ndarray] = {}
    for ring in every:
        for name, array in ring.items():
            total[name] = np.asarray(np.add(total[name], array)) if name in total else array.copy()
    return total


def sum_of(total: Arrays, bits: int = FRACTION_BITS) -> dict[str, np.ndarray]:
    """The weighted sums themselves as float64, without the weight."""
    return {name: np.asarray(array.astype(np.int64) / 2.0**bits) for name, array in total.items() if name != WEIGHT}


def mean_of(total: Arrays) -> tuple[dict[str, np.ndarray], int]:
    """(weighted means as float64, sum of the weights) of a sum of `to_ring`.

    Raises:
        ValueError: the sum of the weights is not positive, so this is no sum of such numbers.
    """
    weight = int(total[WEIGHT].astype(np.int64)[0])
    if weight <= 0:
        raise ValueError(f"the sum has the weight {weight}; a share or an input of it is wrong")
    return {name: np.asarray(array / weight) for name, array in sum_of(total).items()}, weight
