"""One-shot generator sharing (paper 000, Szafranowska et al., IWBI 2022).

Each provider trains a generative model on its own shard, alone; the trained generator goes to the receivers
once, and its images stand in for the provider's patients. Differences from the paper: besides its recipe
(an unconditional GAN of lesions), both classes can be shared by a label-conditional model, because adding
only foreign lesions to home healthy patches lets a classifier recognise the centre instead of the lesion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from federation.centres import Centres
from federation.job import Reply
from federation.units import Units
from models import GeneratorSpec, PatchArrays, Precision, fit_generative
from strategies.strategy import Pool, Shared, Strategy, failures, split_evenly

# -- local halves --------------------------------------------------------------------------------------


def train_generator(
    spec: GeneratorSpec,
    patches: PatchArrays,
    *,
    seed: int,
    device: str,
    precision: Precision,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Provider's half: train a generative model on its own patches.

    Args:
        patches: both classes for a conditional model, positives only for an unconditional one.

    Returns:
        the sharable weights (the generator alone, its moving average where there is one), and the history.
    """
    model = spec.build(seed)
    fit = fit_generative(
        model, patches, spec.training, seed=seed, device=device, precision=precision, on_progress=on_progress
    )
    return model.shared_arrays(fit), {"history": fit.history}


def synthesise(
    spec: GeneratorSpec,
    weights: Mapping[str, np.ndarray],
    per_class: Mapping[int, int],
    *,
    seed: int,
    device: str,
    precision: Precision,
) -> tuple[np.ndarray, np.ndarray]:
    """Receiver's half: draw images from a received generator.

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


# -- server half ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """A generator to be trained for a task (`centre` set), or a package at hand (`weights` set).

    Attributes:
        body: what the provider needs: data, task, split, generator, seed, compute.
        spec: the generator's specification as JSON, for the receiver.
    """

    generator: str
    task: str
    centre: str | None
    body: dict[str, Any]
    spec: dict[str, Any]
    weights: Mapping[str, np.ndarray] | None = None
    package_digest: str = ""


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


class OneShot(Strategy):
    """Trains every ordered generator at its provider and delivers them; providers work side by side."""

    def __init__(self, units: Units, orders: Sequence[Order], deliveries: Sequence[Delivery]):
        self._units, self._orders, self._deliveries = units, orders, deliveries

    def share(self, centres: Centres) -> Shared:
        shared = Shared()
        trained = [order for order in self._orders if order.centre is not None]
        several = len({order.task for order in self._orders}) > 1
        jobs = []
        for order in trained:
            label = f"{order.generator} ({order.task})" if several else order.generator
            jobs.append(self._units.job("train_generator", str(order.centre), order.task, order.body, label=label))
        for order, reply in zip(trained, centres.gather(jobs), strict=True):
            shared.generators[order.generator, order.task] = reply
        shared.failed += failures(list(shared.generators.values()))
        self._deliver(centres, shared)
        return shared

    def _deliver(self, centres: Centres, shared: Shared) -> None:
        """One pool per (receiver, generator, task, classes), as large as its largest user; smaller users take a prefix."""
        orders = {(order.generator, order.task): order for order in self._orders}
        wanted: dict[tuple[str, str, str, tuple[int, ...]], int] = {}
        bodies = {}
        for delivery in self._deliveries:
            for generator, count, body in zip(
                delivery.generators, delivery.per_generator, delivery.bodies, strict=True
            ):
                key = (delivery.receiver, generator, delivery.task, delivery.classes)
                wanted[key] = max(wanted.get(key, 0), count)
                bodies[key] = body
        jobs = {}
        for (receiver, generator, task, classes), count in wanted.items():
            order = orders[generator, task]
            reply = shared.generators.get((generator, task))
            weights = (
                order.weights if order.weights is not None else (weights_of(reply) if reply and reply.ok else None)
            )
            if weights is None:
                continue
            body = bodies[receiver, generator, task, classes] | {
                "generator": order.spec,
                "name": generator,
                "counts": {str(c): count for c in classes},
            }
            origin = reply.unit if reply else order.package_digest
            jobs[receiver, generator, task, classes] = self._units.job(
                "synthesise", receiver, None, body, inputs=[origin], arrays=weights, label=f"images of {generator}"
            )
        replies = dict(zip(jobs, centres.gather(list(jobs.values())), strict=True))
        shared.failed += failures(list(replies.values()))
        for delivery in self._deliveries:
            pools = []
            for generator, count in zip(delivery.generators, delivery.per_generator, strict=True):
                reply = replies.get((delivery.receiver, generator, delivery.task, delivery.classes))
                if reply is not None and reply.ok:
                    pools.append(Pool(reply.unit, generator, *(count if c in delivery.classes else 0 for c in (0, 1))))
            if len(pools) == len(delivery.generators):
                shared.pools[delivery.arm, delivery.receiver, delivery.task] = pools


def weights_of(reply: Reply) -> dict[str, np.ndarray]:
    """The generator's weights in a provider's reply (which also holds a preview of synthetic images)."""
    prefix = "weights."
    return {name.removeprefix(prefix): array for name, array in reply.arrays.items() if name.startswith(prefix)}


def portions(total: int, generators: Sequence[str]) -> tuple[int, ...]:
    """Images per generator when an arm draws `total` of a class from several (paper 000: 600 + 600)."""
    return tuple(split_evenly(total, len(generators)))
