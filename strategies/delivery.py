"""Giving generators to receivers: each receiver draws its own images, once, from every generator that some arm uses there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federation.wire.exchange import Exchange, gather
from federation.wire.units import Units
from strategies.strategy import Generated, Pool, Shared, problems_of, split_evenly


@dataclass(frozen=True)
class Delivery:
    """What one arm gives to one receiver for one task: so many images from each of these generators.

    Attributes:
        per_generator: images of each shared class from each generator, in order.
        classes: labels to be made.
        bodies: what the receiver needs beside each generator: seed and compute.
    """

    arm: str
    receiver: str
    task: str
    generators: tuple[str, ...]
    per_generator: tuple[int, ...]
    classes: tuple[int, ...]
    bodies: tuple[dict[str, Any], ...]


def deliver(
    units: Units, deliveries: Sequence[Delivery], generators: Mapping[tuple[str, str], Generated]
) -> Exchange[Shared]:
    """One pool per (receiver, generator, task, classes), as large as its largest user; smaller users take a prefix.

    An arm of which a generator is missing gets no pools: half of what it asked for would be another arm.
    """
    shared = Shared()
    wanted: dict[tuple[str, str, str, tuple[int, ...]], int] = {}
    bodies = {}
    for delivery in deliveries:
        for generator, count, body in zip(delivery.generators, delivery.per_generator, delivery.bodies, strict=True):
            key = (delivery.receiver, generator, delivery.task, delivery.classes)
            wanted[key] = max(wanted.get(key, 0), count)
            bodies[key] = body
    jobs = {}
    for (receiver, generator, task, classes), count in wanted.items():
        made = generators.get((generator, task))
        if made is None:
            continue
        body = bodies[receiver, generator, task, classes] | {
            "generator": made.spec, "name": generator, "counts": {str(c): count for c in classes},
        }  # fmt: skip
        jobs[receiver, generator, task, classes] = units.job(
            "synthesise", receiver, None, body, inputs=[made.unit], arrays=made.weights, label=f"images of {generator}"
        )
    replies = dict(zip(jobs, (yield from gather(list(jobs.values()))), strict=True))
    shared.problems += problems_of(list(replies.values()))
    for delivery in deliveries:
        pools = []
        for generator, count in zip(delivery.generators, delivery.per_generator, strict=True):
            reply = replies.get((delivery.receiver, generator, delivery.task, delivery.classes))
            if reply is not None and reply.ok:
                pools.append(Pool(reply.unit, generator, *(count if c in delivery.classes else 0 for c in (0, 1))))
        if len(pools) == len(delivery.generators):
            shared.pools[delivery.arm, delivery.receiver, delivery.task] = pools
    return shared


def portions(total: int, generators: Sequence[str]) -> tuple[int, ...]:
    """Images per generator when an arm draws `total` of a class from several (paper 000: 600 + 600)."""
    return tuple(split_evenly(total, len(generators)))
