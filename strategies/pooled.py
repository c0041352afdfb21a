"""Pooling real patches at the receiver: what sharing data itself would give, an upper bound.

Simulation only: `send_patches` is the one kind of job that may carry real pixels, and a deployed node refuses it.
The server passes pixels on without writing them anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from federation.centres import Centres
from federation.job import Reply
from federation.units import Units
from strategies.strategy import Pool, Shared, Strategy, failures


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
            replies = self._move(centres, transfer)
            shared.failed += failures(replies)
            if all(reply.ok for reply in replies):
                shared.pools[transfer.arm, transfer.receiver, transfer.task] = [
                    Pool(reply.unit, centre, int(reply.body["counts"]["0"]), int(reply.body["counts"]["1"]))
                    for centre, reply in zip(transfer.bodies, replies, strict=True)
                ]
        return shared

    def _move(self, centres: Centres, transfer: Transfer) -> list[Reply]:
        """By provider: the receiver's answer, or the provider's where that one failed. Providers send side by side."""
        sends, receives = {}, {}
        for centre, body in transfer.bodies.items():
            label = f"real patches for {transfer.receiver}"
            sends[centre] = self._units.job("send_patches", centre, transfer.task, body, label=label)
            receives[centre] = self._units.job(
                "receive_patches",
                transfer.receiver,
                None,
                {},
                inputs=[sends[centre].unit],
                label=f"real patches of {centre}",
            )
        # What the receiver holds from an earlier session, or from another arm, is not moved again.
        replies = {centre: known for centre, job in receives.items() if (known := centres.known(job)) is not None}
        wanted = [centre for centre in transfer.bodies if centre not in replies]
        sent = dict(zip(wanted, centres.gather([sends[c] for c in wanted]), strict=True))
        arrived = [c for c in wanted if sent[c].ok]
        received = centres.gather([replace(receives[c], arrays=sent[c].arrays) for c in arrived])
        replies |= {c: reply for c, reply in sent.items() if not reply.ok} | dict(zip(arrived, received, strict=True))
        return [replies[centre] for centre in transfer.bodies]
