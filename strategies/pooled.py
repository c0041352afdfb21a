"""Pooling real patches at the receiver: what sharing data itself would give, an upper bound.

Simulation only: `send_patches` is the one kind of job that may carry real pixels, and a deployed node refuses it.
The server passes pixels on without writing them anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from federation.wire.centres import Centres
from federation.wire.exchange import Exchange, gather
from federation.wire.job import Reply
from federation.wire.units import Units
from strategies.strategy import Pool, Shared, Strategy, problems_of


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

    def __init__(self, units: Units, transfer: Transfer):
        self._units, self._transfer = units, transfer

    def share(self, centres: Centres) -> Exchange[Shared]:
        transfer = self._transfer
        replies = yield from move(self._units, centres, transfer.receiver, transfer.task, transfer.bodies)
        problems = problems_of(replies)
        if problems:
            return Shared(problems=problems)
        pools = [
            Pool(reply.unit, centre, int(reply.body["counts"]["0"]), int(reply.body["counts"]["1"]))
            for centre, reply in zip(transfer.bodies, replies, strict=True)
        ]
        return Shared(pools={(transfer.arm, transfer.receiver, transfer.task): pools})


def move(
    units: Units, centres: Centres, receiver: str, task: str, bodies: Mapping[str, dict[str, Any]]
) -> Exchange[list[Reply]]:
    """By provider: the receiver's answer, or the provider's where that one failed. Providers send side by side."""
    sends, receives = {}, {}
    for centre, body in bodies.items():
        label = f"real patches for {receiver}"
        sends[centre] = units.job("send_patches", centre, task, body, label=label)
        receives[centre] = units.job(
            "receive_patches", receiver, None, {}, inputs=[sends[centre].unit], label=f"real patches of {centre}"
        )
    # What the receiver holds from an earlier session, or from another arm, is not moved again.
    replies = {centre: known for centre, job in receives.items() if (known := centres.known(job)) is not None}
    wanted = [centre for centre in bodies if centre not in replies]
    sent = dict(zip(wanted, (yield from gather([sends[c] for c in wanted])), strict=True))
    arrived = [c for c in wanted if sent[c].ok]
    received = yield from gather([replace(receives[c], arrays=sent[c].arrays) for c in arrived])
    replies |= {c: reply for c, reply in sent.items() if not reply.ok} | dict(zip(arrived, received, strict=True))
    return [replies[centre] for centre in bodies]
