"""What a scenario will send: messages and bytes by centre and kind, predicted before anything runs.

Counts arrays, which are what takes time and what leaves a house; JSON bodies of some kilobytes are not counted. Pixels of
pooled arms cannot be known before the survey. Faults are not predicted: every job is sent once and answered.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from federation.wire.job import canonical_json
from federation.wire.transport import Transport, encoded_bytes
from metrics.feature_spaces import FEATURE_SPACES
from models import ClassifierSpec, GeneratorSpec
from models.federated_parts import averaged_state
from models.shapes_only import shapes_only
from scenarios.arms import FedAvgClassifierArm
from scenarios.federations import federated_classifier, federations, remote_trainings
from scenarios.plan import Plan
from strategies.dm_gan import DmGANPlan
from strategies.dm_gan_jobs import job_bytes, repeats_of
from strategies.fedavg_classifier import ClassifierFederation
from strategies.fidelity import PREVIEW, Fidelity
from strategies.remote_generator import build_gan
from strategies.strategy import split_evenly


@dataclass
class Expected:
    """Messages of one kind with one centre.

    Attributes:
        bytes_down, bytes_up: to and from the centre; None for pixels, whose number is not known before the survey.
        steps: training steps of generative models that they ask for.
    """

    centre: str
    kind: str
    messages: int = 0
    bytes_down: int | None = 0
    bytes_up: int | None = 0
    steps: int = 0


class _Counter:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Expected] = {}
        self._seen: set[Any] = set()

    def add(self, centre: str, kind: str, messages: int = 1, down: int | None = 0, up: int | None = 0, steps: int = 0,
            extra_down: int = 0, extra_up: int = 0) -> None:  # fmt: skip
        """Count messages; `down` and `up` are bytes of each, `extra_*` of all together."""
        row = self.rows.setdefault((centre, kind), Expected(centre, kind))
        row.messages += messages
        row.bytes_down = (
            None if down is None or row.bytes_down is None else row.bytes_down + messages * down + extra_down
        )
        row.bytes_up = None if up is None or row.bytes_up is None else row.bytes_up + messages * up + extra_up
        row.steps += steps

    def once(self, *key: Any) -> bool:
        """Whether this is the first time: equal jobs are sent once."""
        first = key not in self._seen
        self._seen.add(key)
        return first


def expected_messages(plan: Plan) -> list[Expected]:
    """All messages of a run without faults, by kind in the order of the study and then by centre."""
    count = _Counter()
    for centre in plan.scenario.centres:
        count.add(centre, "survey")
    for order in plan.orders():
        size = generator_bytes(order.spec) + preview_bytes(order.spec)
        count.add(order.centre, "train_generator", up=size, steps=order.spec["training"]["steps"])
    for transfer in plan.transfers():
        for centre, body in transfer.bodies.items():
            _count_move(count, transfer.receiver, transfer.task, centre, body)
    for planned in federations(plan):
        _count_federation(count, planned.federation)
    for remote in remote_trainings(plan):
        _count_remote(count, remote.plan)
    for receiver, generator, task, _ in plan.synthesised():
        count.add(receiver, "synthesise", down=generator_bytes(plan.generator_spec(generator, task)))
    sizes: dict[tuple[str, str], int] = {}
    for cell in plan.cells():
        key = (cell.classifier.model, cell.task)
        if key not in sizes:
            sizes[key] = classifier_bytes(plan.classifier_spec(cell.classifier, cell.task))
        places = plan.test_centres(cell)
        if isinstance(plan.scenario.arms[cell.arm], FedAvgClassifierArm):
            _count_classifier(count, federated_classifier(plan, cell).federation, sizes[key] if places else 0)
        else:
            count.add(cell.receiver, "learn", up=sizes[key] if places else 0)
        for centre in places:
            count.add(centre, "test", down=sizes[key])
    kinds: dict[str, list[Expected]] = defaultdict(list)
    for row in count.rows.values():
        kinds[row.kind].append(row)
    return [row for rows in kinds.values() for row in rows]


def _count_move(count: _Counter, receiver: str, task: str, centre: str, body: dict[str, Any]) -> None:
    if count.once("send", centre, canonical_json(body)):
        count.add(centre, "send_patches", up=None)
    if count.once("receive", receiver, task, centre, canonical_json(body)):
        count.add(receiver, "receive_patches", down=None)


def _count_federation(count: _Counter, f: Any) -> None:
    settings, spec = f.settings, canonical_json(f.spec)
    for centre, body in (f.pooled or {}).items():
        _count_move(count, f.members[0].centre, f.task, centre, body)
    sums = _count_reference(count, f.arm, f.fidelity)
    size = averaged_bytes(spec, settings.transport, f.rules.ema == "average")
    turns = [settings.rounds] * len(f.members)
    if f.turns == "cyclic":
        turns = [len(range(i, settings.rounds, len(f.members))) for i in range(len(f.members))]
    for member, rounds in zip(f.members, turns, strict=True):
        count.add(member.centre, "train_round", rounds, size, size, rounds * settings.local_steps)
    _count_measurements(count, f.fidelity, f.spec, settings.rounds, sums)


def _count_classifier(count: _Counter, f: ClassifierFederation, adopted: int) -> None:
    settings, spec = f.settings, canonical_json(f.spec | {"pretrained": None})
    size, plain = classifier_round_bytes(spec, settings.transport), classifier_round_bytes(spec, "fp32")
    for member in f.members:
        count.add(member.centre, "train_classifier_round", settings.rounds, size, size)
    receiver = f.members[0].centre
    count.add(receiver, "validate_classifier", settings.rounds, plain)
    count.add(receiver, "adopt_classifier", down=plain, up=adopted)


@lru_cache(maxsize=256)
def classifier_round_bytes(spec: str, transport: Transport) -> int:
    """Size of a classifier's averaged weights as they travel."""
    with shapes_only():
        network = ClassifierSpec.model_validate_json(spec).build(0)
    return encoded_bytes(
        {n: (tuple(t.shape), "float32") for n, t in averaged_state(network, copy=False).items()}, transport
    )


def _count_reference(count: _Counter, arm: str, fidelity: Fidelity) -> int:
    """Count the members' sums of features, which all trainings of an arm share; bytes of the sums of one set."""
    sums = sum(8 + 8 * d + 4 * d * (d + 1) for d in (FEATURE_SPACES[name].dimensions for name in fidelity.spaces))
    first = count.once("reference", arm, fidelity.task)
    for centre, body in fidelity.bodies.items() if first else ():
        if count.once("sums", centre, canonical_json(body), fidelity.spaces):
            count.add(centre, "feature_sums", up=2 * sums)
    return sums


def _count_measurements(count: _Counter, fidelity: Fidelity, spec: dict[str, Any], last: int, sums: int) -> None:
    measured = sum(fidelity.due(number, last) for number in range(1, last + 1))
    down = generator_bytes(spec) + sums
    count.add(fidelity.measured_at, "measure_generator", measured, down, extra_up=preview_bytes(spec, fidelity.images))


def _count_remote(count: _Counter, plan: DmGANPlan) -> None:
    """Asynchronous centres share the updates by their speed; a prediction without faults gives each the same."""
    settings, spec = plan.settings, GeneratorSpec.model_validate(plan.spec)
    sums = _count_reference(count, plan.arm, plan.fidelity)
    answers = settings.updates * (len(plan.members) if settings.lock_step else settings.quorum)
    with shapes_only():
        model = build_gan(spec, 0)
    if settings.exchange == "images":
        down, up = job_bytes(spec, settings.batches_per_job, repeats_of(model), settings.transport)
    else:
        shapes = {
            n: (tuple(t.shape), "float32") for n, t in averaged_state(model.networks["generator"], copy=False).items()
        }
        weights = {n: (tuple(p.shape), "float32") for n, p in model.networks["generator"].named_parameters()}
        down, up = encoded_bytes(shapes, settings.transport), encoded_bytes(weights, settings.transport)
    for number, member in enumerate(plan.members):
        jobs = split_evenly(answers, len(plan.members))[number]
        count.add(member.centre, "train_discriminator", jobs, down, up, jobs * settings.batches_per_job)
    if settings.swap_every:
        discriminator = sum(t.numel() * 4 for t in averaged_state(model.networks["discriminator"], copy=False).values())
        swaps, arrivals = settings.updates // settings.swap_every, (settings.updates - 1) // settings.swap_every
        for member in plan.members:
            count.add(
                member.centre,
                "train_discriminator",
                0,
                extra_up=swaps * discriminator,
                extra_down=arrivals * discriminator,
            )
    _count_measurements(count, plan.fidelity, plan.spec, settings.updates, sums)


@lru_cache(maxsize=256)
def averaged_bytes(spec: str, transport: Transport, averaged: bool) -> int:
    """Size of what one round sends one way: all that `models.federated_parts` averages.

    Args:
        spec: JSON of a `models.GeneratorSpec`.
        averaged: whether the generator's moving average travels, too.
    """
    parsed = GeneratorSpec.model_validate_json(spec)
    with shapes_only():
        model = parsed.build(0)
    if averaged and parsed.training.ema is not None:
        model.start_average()
    shapes = {name: (tuple(t.shape), "float32") for name, t in averaged_state(model, copy=False).items()}
    return encoded_bytes(shapes, transport)


def generator_bytes(spec: Any) -> int:
    """Size of what a provider shares: one set of weights per member of the checkpoint ensemble."""
    return _generator_bytes(canonical_json(spec))


@lru_cache(maxsize=256)
def _generator_bytes(spec: str) -> int:
    parsed = GeneratorSpec.model_validate_json(spec)
    with shapes_only():
        model = parsed.build(0)
    tensors = [
        t for name, t in model.sampler.state_dict().items() if not name.endswith("num_batches_tracked")
    ]  # as `weights_of`
    one = sum(t.numel() * t.element_size() for t in tensors)
    every = parsed.training.snapshot_every
    return one * (1 + (parsed.training.steps - max(1, parsed.training.snapshot_from)) // every if every else 1)


def preview_bytes(spec: Any, images: int = PREVIEW) -> int:
    """Size of the synthetic images that travel with a generator, and their labels.

    Args:
        images: of each class that were drawn.
    """
    images = min(PREVIEW, images) * (2 if spec["conditional"] else 1)
    return images * (spec["channels"] * spec["image_size"] ** 2 + 8)


def classifier_bytes(spec: dict[str, Any]) -> int:
    """Size of a classifier's weights."""
    with shapes_only():
        network = ClassifierSpec.model_validate(spec | {"pretrained": None}).build(0)
    return sum(t.numel() * t.element_size() for t in network.state_dict().values())
