"""Shamir's secret sharing (CACM 1979): a secret in shares, of which so many give it back and fewer tell nothing.

Over the integers modulo the Mersenne prime 2^521 - 1, which holds every secret of 32 bytes.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

PRIME = 2**521 - 1
SHARE_BYTES = 66


def split(secret: bytes, points: Sequence[int], needed: int) -> dict[int, bytes]:
    """Shares by point.

    Args:
        points: distinct numbers from 1 on, one for each share.
        needed: shares that give the secret back.
    """
    assert 0 < needed <= len(points) == len(set(points)) and min(points) > 0, "a share each, enough of them"
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(needed - 1))]
    shares = {}
    for point in points:
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * point + coefficient) % PRIME
        shares[point] = value.to_bytes(SHARE_BYTES, "big")
    return shares


def joined(shares: Mapping[int, bytes], size: int) -> bytes:
    """The secret of `size` bytes, from as many shares as were needed or more: Lagrange's polynomial at 0.

    Raises:
        ValueError: these are no shares of a secret of that size.
    """
    total = 0
    for point, share in shares.items():
        above = below = 1
        for other in shares:
            if other != point:
                above, below = above * other % PRIME, below * (other - point) % PRIME
        total = (total + int.from_bytes(share, "big") * above * pow(below, -1, PRIME)) % PRIME
    try:
        return total.to_bytes(size, "big")
    except OverflowError:
        raise ValueError("shares do not give a secret: one of them is wrong, or too few were given") from None
