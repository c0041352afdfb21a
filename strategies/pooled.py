"""Pooling real patches at the receiver: what sharing data itself would give, an upper bound.

Simulation only: `send_patches` is the one kind of job that may carry real pixels, and a deployed node refuses it.
The server passes pixels on without writing them anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from federation.centres import Centres
from federation.job import Job, Reply
from federation.units import Units
from strategies.strategy import Pool, Shared, Strategy


@dataclass(frozen=True)
class Transfer:
    """What one arm moves to one receiver for one task.

    Attributes:
        bodies: by provider: data, task, split, classes, patches, seed.
    """

    arm: str
    receiver: str
    task: str
    bodies: dict[str, dict[str, Any]]


class Pooled(Strategy):
    """Asks the providers for real training patches and hands them to the receiver."""

    def __init__(self, units: Units, transfers: Sequence[Transfer]):
        self._units, self._transfers = units, transfers

    def share(self, centres: Centres) -> Shared:
        shared = Shared()
        for transfer in self._transfers:
            pools = []
            for centre, body in transfer.bodies.items():
                send = self._units.job(
                    "send_patches", centre, transfer.task, body, label=f"real patches for {transfer.receiver}"
                )
                receive = self._units.job(
                    "receive_patches",
                    transfer.receiver,
                    None,
                    {},
                    inputs=[send.unit],
                    label=f"real patches of {centre}",
                )
                reply = centres.known(receive) or self._move(centres, send, receive)
                if reply.ok:
                    counts = reply.body["counts"]
                    pools.append(Pool(reply.unit, centre, int(counts["0"]), int(counts["1"])))
                else:
                    shared.failed.append(reply)
            if len(pools) == len(transfer.bodies):
                shared.pools[transfer.arm, transfer.receiver, transfer.task] = pools
        return shared

    @staticmethod
    def _move(centres: Centres, send: Job, receive: Job) -> Reply:
        """The receiver's answer, or the provider's where that one failed."""
        (sent,) = centres.gather([send])
        return centres.gather([replace(receive, arrays=sent.arrays)])[0] if sent.ok else sent
