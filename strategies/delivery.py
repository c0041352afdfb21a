"""Giving generators to receivers: each receiver draws its own images, once, from every generator that some arm uses there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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
from strategies.planned import Generated, Shared, problems_of, split_evenly
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
        per_class: how many images of each label.

    Returns:
        stored images (n, c, h, w) and int64 labels (n,), ascending; of each class a prefix is a fair draw too.

    Raises:
        ValueError: a label that the generator does not make.
    """
    wrong = [label for label, count in per_class.items() if count and label not in spec.labels]
    if wrong:
        raise ValueError(f"the generator makes {', '.join(spec.made)}; label {wrong[0]} is not among them")
    model = spec.build(seed)
    model.load_shared_arrays(weights)
    model.to(device)
    labels = torch.cat([torch.full((per_class[label],), label, dtype=torch.long) for label in sorted(per_class)])
    generator = torch.Generator(device="cpu").manual_seed(seed)
    images = model.sample_stored(
        len(labels), labels if spec.conditional else None, generator, precision=precision, storage=spec.storage
    )
    return images, labels.numpy()


def counts_of(labels: np.ndarray) -> dict[str, int]:
    """Images by label, as they travel; labels without images are left out."""
    return {str(label): int((labels == label).sum()) for label in np.unique(labels)}


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
        counts: images by label, of each generator in order; of none that would make nothing.
    """

    arm: str
    receiver: str
    task: str
    generators: tuple[str, ...]
    counts: tuple[Mapping[int, int], ...]

    @property
    def keys(self) -> list[PoolKey]:
        """Of the pools that it needs, in the order of its generators."""
        return [
            (self.receiver, generator, self.task, tuple(counts))
            for generator, counts in zip(self.generators, self.counts, strict=True)
        ]

    def pools(self) -> list[Pool]:
        """The pools that the receiver then holds, without ids, as far as they are planned."""
        return [pool_of("", generator, counts) for generator, counts in zip(self.generators, self.counts, strict=True)]


def pool_of(unit: str, source: str, counts: Mapping[int, int]) -> Pool:
    """A pool with so many images by label."""
    return Pool(unit=unit, source=source, counts={str(label): count for label, count in counts.items()})


# (receiver, generator, task, labels)
PoolKey = tuple[str, str, str, tuple[int, ...]]


def shared_out(
    images: Callable[[int], int], shared: Sequence[int], made: Mapping[str, Sequence[int]], *, whole: bool
) -> dict[str, dict[int, int]]:
    """Images by label of each generator: those of a class are made in equal parts by the generators that make it.

    Args:
        images: number of a class, from the number of generators that make it.
        made: labels that each generator makes.
        whole: each makes as many as all together, because one of them may be chosen alone.

    Returns:
        generators that would make nothing are left out.
    """
    counts: dict[str, dict[int, int]] = {name: {} for name in made}
    for label in shared:
        makers = [name for name, labels in made.items() if label in labels]
        total = images(len(makers))
        parts = [total] * len(makers) if whole else split_evenly(total, len(makers) or 1)
        for name, count in zip(makers, parts, strict=False):
            counts[name][label] = count
    return {name: own for name, own in counts.items() if own}


def synthesis_asks(view: View, deliveries: Sequence[Delivery]) -> dict[PoolKey, Ask]:
    """One pool per (receiver, generator, task, classes), as large as its largest user; smaller users take a prefix."""
    wanted: dict[PoolKey, dict[int, int]] = {}
    for delivery in deliveries:
        for key, counts in zip(delivery.keys, delivery.counts, strict=True):
            largest = wanted.setdefault(key, {})
            largest.update({label: max(largest.get(label, 0), count) for label, count in counts.items()})
    asks = {}
    for (receiver, generator, task, labels), counts in wanted.items():
        fixed = {
            "name": generator,
            "seed": derive_seed(view.seed, f"synthesis/{generator}/{task}", receiver),
            "compute": view.compute(receiver, generator_key(generator, task)),
        }
        planned = {str(label): count for label, count in counts.items()}
        free: dict[str, Check] = {}
        example: dict[str, Any] = {}
        if len(view.task(task).classes) == 2:
            fixed["counts"] = planned
        else:  # a class that the generator's centre turned out to lack is left out
            free["counts"] = partial(_some_of, planned)
            example["counts"] = planned
        spec = view.generator_spec(generator, task)
        if spec is not None:
            fixed["generator"] = spec
        else:  # a package, whose file is elsewhere
            free["generator"] = anything
        asks[receiver, generator, task, labels] = Ask(SYNTHESISE, "", receiver, None, fixed, free, example=example)
    return asks


def _some_of(planned: Mapping[str, int], body: Synthesis) -> bool:
    return bool(body.counts) and all(planned.get(label) == count for label, count in body.counts.items())


def deliver(
    units: Units,
    deliveries: Sequence[Delivery],
    asks: Mapping[PoolKey, Ask],
    generators: Mapping[tuple[str, str], Generated],
) -> Exchange[Shared]:
    """Have every pool drawn.

    An arm of which a generator is missing gets no pools: half of what it asked for would be another arm. Of a class that a
    generator has never seen no image is asked for; what is then missing is a note.
    """
    shared = Shared()
    jobs, learned = {}, {}
    for key, ask in asks.items():
        _, generator, task, labels = key
        made = generators.get((generator, task))
        if made is None:
            continue
        learned[key] = [label for label in labels if label in made.labels]
        unseen = [made.spec.classes[label] for label in labels if label not in made.labels]
        if unseen:
            shared.notes.append(f"generator {generator!r} saw no image of {', '.join(unseen)} and makes none")
        if learned[key]:
            found: dict[str, Any] = {}
            if "counts" in ask.free:
                found["counts"] = {str(label): ask.example["counts"][str(label)] for label in learned[key]}
            if "generator" in ask.free:
                found["generator"] = made.spec
            jobs[key] = ask.job(units, inputs=[made.unit], arrays=made.weights, label=f"images of {generator}", **found)
    replies = dict(zip(jobs, (yield from gather(list(jobs.values()))), strict=True))
    shared.problems += problems_of(list(replies.values()))
    shared.notes = list(dict.fromkeys(shared.notes))
    for delivery in deliveries:
        pools = []
        for key, generator, counts in zip(delivery.keys, delivery.generators, delivery.counts, strict=True):
            reply = replies.get(key)
            if reply is not None and reply.ok:
                pools.append(pool_of(reply.unit, generator, {label: counts[label] for label in learned[key]}))
            elif key not in learned or learned[key]:
                break
        else:
            if pools:
                shared.pools[delivery.arm, delivery.receiver, delivery.task] = pools
            else:
                shared.problems.append(
                    f"arm {delivery.arm!r} at {delivery.receiver!r}: its generators saw none of the classes that it shares"
                )
    return shared
