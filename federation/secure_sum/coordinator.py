"""The coordinator's half of a secure sum: what it makes of the members' answers. It learns the sum, and no single input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from federation.secure_sum.fixed_point import added
from federation.secure_sum.masks import SECRET_BYTES, add_mask, public_of
from federation.secure_sum.member import Keys, pair_seed, self_seed, sign_of
from federation.secure_sum.rules import Session, threshold
from federation.secure_sum.shares import SHARE_BYTES, joined

Opening = Mapping[str, Mapping[str, str]]


class SumFailed(Exception):
    """A sum that cannot be opened; the text says why."""


def unmasked(
    session: Session,
    keys: Mapping[str, Keys],
    group: Sequence[str],
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    openings: Mapping[str, Opening],
) -> dict[str, np.ndarray]:
    """The sum of the survivors' numbers, as uint64 arrays.

    Args:
        keys: of all members of the session.
        group: those among whom the inputs were masked.
        inputs: masked, by survivor.
        openings: by member, its shares.

    Raises:
        SumFailed: too few openings, or shares that do not fit together.
    """
    needed = threshold(len(keys))
    if len(openings) < needed:
        raise SumFailed(f"{len(openings)} members opened the sum and {needed} are needed")
    points = {name: number for number, name in enumerate(sorted(keys), start=1)}

    def secret(which: str, name: str) -> bytes:
        try:
            shares = {points[member]: bytes.fromhex(opening[which][name]) for member, opening in openings.items()}
            if any(len(share) != SHARE_BYTES for share in shares.values()):
                raise ValueError
            return joined(shares, SECRET_BYTES)
        except (KeyError, ValueError):
            raise SumFailed(f"the shares of {name} do not fit together: an opening is wrong") from None

    total = added(inputs.values())
    for name in inputs:
        add_mask(total, self_seed(session, name, secret("self", name)), -1)
    for left in sorted(set(group) - set(inputs)):
        private = secret("masking", left)
        if public_of(private).hex() != keys[left]["masking"]:
            raise SumFailed(f"the shares of {left} do not give its key: an opening is wrong")
        for name in inputs:
            add_mask(total, pair_seed(session, private, left, name, keys[name]["masking"]), -sign_of(name, left))
    return total
