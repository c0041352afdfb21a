"""One-shot generator sharing (paper 000, Szafranowska et al., IWBI 2022).

Each provider trains a generative model on its own shard, alone; the trained generator goes to the receivers
once, and its images stand in for the provider's patients. Differences from the paper: besides its recipe
(an unconditional GAN of lesions), both classes can be shared by a label-conditional model, because adding
only foreign lesions to home healthy patches lets a classifier recognise the centre instead of the lesion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from federation.wire.centres import Centres
from federation.wire.clock import Clock
from federation.wire.exchange import Exchange
from federation.wire.job import Job, Reply
from federation.wire.units import Units
from models import GeneratorSpec, PatchArrays, Precision, fit_generative
from strategies.rounds import Summary
from strategies.strategy import FederationRecord, Generated, Shared, Strategy, problems_of

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
    """A generator to be trained for a task.

    Attributes:
        body: what the provider needs: data, task, split, generator, seed, compute.
        spec: the generator's specification as JSON, for the receiver.
    """

    generator: str
    task: str
    centre: str
    body: dict[str, Any]
    spec: dict[str, Any]
    label: str = ""


class OneShot(Strategy):
    """Has one generator trained at its provider. Several are several exchanges, which run side by side.

    Args:
        step_s: seconds of one training step at speed 1, for a simulated clock.
        attempts: how often a job that is lost is sent.
    """

    def __init__(self, units: Units, order: Order, clock: Clock, *, step_s: float = 1.0, attempts: int = 10):
        self._units, self._order, self._clock = units, order, clock
        self._step_s, self._attempts = step_s, attempts

    def share(self, centres: Centres) -> Exchange[Shared]:
        order, label = self._order, self._order.label or self._order.generator
        job = self._units.job("train_generator", order.centre, order.task, order.body, label=label)
        reply, summary = yield from self._trained(job)
        # An exchange of one job is told about only where something happened to it.
        told = [] if summary.jobs == 1 and summary.used else [
            FederationRecord(order.generator, order.task, "one_shot", "federation", summary.used, summary, self._clock.rows)
        ]  # fmt: skip
        if reply is None:
            return Shared(problems=[f"centre {order.centre!r} was lost while it trained {label}"], federations=told)
        if not reply.ok:
            return Shared(problems=problems_of([reply]), federations=told)
        card = {key: reply.body[key] for key in ("data_card", "trained_on", "history")}
        made = Generated(reply.unit, order.spec, weights_of(reply), (order.centre,), card, preview_of(reply))
        return Shared(generators={(order.generator, order.task): made}, federations=told)

    def _trained(self, job: Job) -> Exchange[tuple[Reply | None, Summary]]:
        """The provider's reply; a job that is lost on the way is sent again."""
        summary, clock = Summary(), self._clock
        while summary.jobs < self._attempts:
            summary.jobs += 1
            clock.send(job, work_s=self._order.spec["training"]["steps"] * self._step_s)
            arrival = yield from clock.next()
            assert arrival is not None, "a job without a time limit ends"
            reply = arrival.reply
            if reply is not None:
                summary.used = int(reply.ok)
                clock.note(arrival, 0, job.kind, "used" if reply.ok else "refused")
                return reply, summary
            summary.lost += 1
            clock.note(arrival, 0, job.kind, arrival.fate.lost or "lost")
            if clock.gone(job.centre):
                summary.gone[job.centre] = clock.now
            if clock.unreachable(job.centre):  # a deployed node has been waited for
                break
        return None, summary


def weights_of(reply: Reply) -> dict[str, np.ndarray]:
    """The generator's weights in a provider's reply (which also holds a preview of synthetic images)."""
    prefix = "weights."
    return {name.removeprefix(prefix): array for name, array in reply.arrays.items() if name.startswith(prefix)}


def preview_of(reply: Reply) -> tuple[np.ndarray, np.ndarray] | None:
    """The synthetic images of a reply, if it holds some."""
    pixels = reply.arrays.get("preview.pixels")
    return None if pixels is None else (pixels, reply.arrays["preview.labels"])
