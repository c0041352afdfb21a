"""Giving generators to receivers: each receiver draws its own images, once, from every generator that some arm uses there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from basics.seeds import derive_seed
from federation.wire.exchange import Exchange, gather
from federation.wire.units import Units
from models import GeneratorSpec, Precision
from strategies.ask import Ask, Check, anything
from strategies.bodies import Body, Compute, Pool
from strategies.centre_side import CentreSide
from strategies.kind import Answer, Arrays, Field, Kind, Received
from strategies.layouts import generator_layout
from strategies.planned import Generated, Shared, problems_of
from strategies.view import View, generator_key

# -- local half --------------------------------------------------------------------------------------------------------


class Synthesis(Body):
    """Arguments of `synthesise`.

    Attributes:
        counts: images by label.
        name: of the generator.
    """

    generator: GeneratorSpec
    name: str
    counts: dict[str, int]
    seed: int
    compute: Compute


def synthesise(here: CentreSide, body: Synthesis, arrays: Arrays) -> Answer:
    """Draw a pool of images from a generator and keep it at this centre."""
    counts = {int(label): count for label, count in body.counts.items()}
    pixels, labels = drawn(body.generator, arrays, counts, seed=body.seed, **body.compute.options)
    here.write_pool(pixels, labels)
    return {"counts": counts_of(labels)}, {}


def drawn(
    spec: GeneratorSpec, weights: Mapping[str, np.ndarray], per_class: Mapping[int, int], *, seed: int, device: str,
    precision: Precision,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Images of a received generator.

    Args:
        per_class: how many images of label 0 and 1.

    Returns:
        uint8 (n, c, h, w) and int64 labels (n,), negatives first; of each class a prefix is a fair draw too.
    """
    if not spec.conditional and per_class.get(0):
        raise ValueError("an unconditional generator makes positives only; ask it for label 1 alone")
    model = spec.build(seed)
    model.load_shared_arrays(weights)
    model.to(device)
    labels = torch.cat([torch.full((per_class.get(label, 0),), label, dtype=torch.long) for label in (0, 1)])
    generator = torch.Generator(device="cpu").manual_seed(seed)
    images = model.sample_uint8(len(labels), labels if spec.conditional else None, generator, precision=precision)
    return images, labels.numpy()


def counts_of(labels: np.ndarray) -> dict[str, int]:
    """Images by label, as they travel."""
    return {str(label): int((labels == label).sum()) for label in (0, 1)}


SYNTHESISE = Kind(
    name="synthesise",
    title="draw synthetic images",
    phase="share",
    body=Synthesis,
    work=synthesise,
    answer=(Field("counts.*", "counts", "how many synthetic images were drawn here"),),
    receives=(Received("*", lambda body: generator_layout(body.generator)),),
)


# -- server half -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """What one arm gives to one receiver for one task: so many images from each of these generators.

    Attributes:
        per_generator: images of each shared class from each generator, in order.
        classes: labels to be made.
    """

    arm: str
    receiver: str
    task: str
    generators: tuple[str, ...]
    per_generator: tuple[int, ...]
    classes: tuple[int, ...]

    def pools(self, units: Sequence[str] | None = None) -> list[Pool]:
        """The pools that the receiver then holds.

        Args:
            units: that made them; empty in a plan.
        """
        return [
            Pool(
                unit=unit, source=generator, negatives=count if 0 in self.classes else 0,
                positives=count if 1 in self.classes else 0,
            )
            for generator, count, unit in zip(
                self.generators, self.per_generator, units or [""] * len(self.generators), strict=True
            )
        ]  # fmt: skip


# (receiver, generator, task, labels)
PoolKey = tuple[str, str, str, tuple[int, ...]]


def synthesis_asks(view: View, deliveries: Sequence[Delivery]) -> dict[PoolKey, Ask]:
    """One pool per (receiver, generator, task, classes), as large as its largest user; smaller users take a prefix."""
    wanted: dict[PoolKey, int] = {}
    for delivery in deliveries:
        for generator, count in zip(delivery.generators, delivery.per_generator, strict=True):
            key = (delivery.receiver, generator, delivery.task, delivery.classes)
            wanted[key] = max(wanted.get(key, 0), count)
    asks = {}
    for (receiver, generator, task, classes), count in wanted.items():
        fixed = {
            "name": generator,
            "counts": {str(label): count for label in classes},
            "seed": derive_seed(view.seed, f"synthesis/{generator}/{task}", receiver),
            "compute": view.compute(receiver, generator_key(generator, task)),
        }
        spec = view.generator_spec(generator, task)
        free: dict[str, Check] = (
            {} if spec is not None else {"generator": anything}
        )  # a package, whose file is elsewhere
        if spec is not None:
            fixed["generator"] = spec
        asks[receiver, generator, task, classes] = Ask(SYNTHESISE, "", receiver, None, fixed, free)
    return asks


def deliver(
    units: Units,
    deliveries: Sequence[Delivery],
    asks: Mapping[PoolKey, Ask],
    generators: Mapping[tuple[str, str], Generated],
) -> Exchange[Shared]:
    """Have every pool drawn.

    An arm of which a generator is missing gets no pools: half of what it asked for would be another arm.
    """
    shared = Shared()
    jobs = {}
    for key, ask in asks.items():
        _, generator, task, _ = key
        made = generators.get((generator, task))
        if made is not None:
            jobs[key] = ask.job(units, inputs=[made.unit], arrays=made.weights, label=f"images of {generator}")
    replies = dict(zip(jobs, (yield from gather(list(jobs.values()))), strict=True))
    shared.problems += problems_of(list(replies.values()))
    for delivery in deliveries:
        found = [
            replies.get((delivery.receiver, name, delivery.task, delivery.classes)) for name in delivery.generators
        ]
        made_units = [reply.unit for reply in found if reply is not None and reply.ok]
        if len(made_units) == len(found):
            shared.pools[delivery.arm, delivery.receiver, delivery.task] = delivery.pools(made_units)
    return shared
