"""The networks are passed from centre to centre, one at a time; else as `fedavg_gan`."""

from __future__ import annotations

from typing import Literal

from strategies.fedavg_gan import InRounds
from strategies.keys import GenerativeInRounds


class CyclicArm(GenerativeInRounds):
    """Keys of an arm."""

    strategy: Literal["cyclic"]
    optimizer: Literal["keep", "reset"] = "keep"
    batch_norm: Literal["average", "local"] = "average"


class Cyclic(InRounds):
    """One centre works in each round."""

    name, title, keys, turns = "cyclic", "GANs passed round", CyclicArm, "cyclic"
