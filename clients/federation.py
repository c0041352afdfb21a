"""A centre's duties in a federation: a round of training, sums of features, measuring a generator."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import numpy as np

from basics.seeds import rank
from clients.local_state import LocalState
from clients.node import Node
from clients.provider import as_arrays, trained_on
from clients.survey import load_patches
from data_partitions import DataError, PatchDataset
from federation.wire.job import Job, plain_name
from federation.wire.transport import decode, encode_noting_error, relative_error
from models import GeneratorSpec, PatchArrays
from strategies import fedavg_gan, fidelity, remote_discriminator
from strategies.rounds import GLOBAL, LOCAL

Answer = tuple[dict, dict[str, np.ndarray]]
State = dict[str, np.ndarray]


def remembered(node: Node, job: Job, work: Callable[[State], tuple[Answer, State]]) -> Answer:
    """Do a job that builds on this centre's state, once: a repeated job is answered from what was kept.

    Raises:
        StateLost: the state that the job expects is not here.
    """
    state = LocalState(node.workspace / "states" / plain_name(job.body["federation"], "federation"))
    known = state.answer(job.unit)
    if known is not None:
        return known
    before = job.expects_state or 0
    answer, after = work(state.load(before, job.body.get("state_unit", "")))
    state.commit(before + 1, job.unit, after, answer)
    return answer


def used_patches(node: Node, body: dict, conditional: bool) -> PatchDataset:
    """Training patches of a generative model: both classes for a conditional one, else positives."""
    patches = load_patches(node, body).select(split="train")
    return patches if conditional else patches.select(label=1)


def introduction(node: Node, body: dict, own: PatchDataset) -> dict:
    """What a centre says of itself in its first reply of a federation."""
    if not body["introduce"]:
        return {}
    train = load_patches(node, body).select(split="train")
    return {"data_card": train.data_card(), "trained_on": trained_on(own)}


def train_round(node: Node, job: Job) -> Answer:
    """One round of a federated GAN; see `strategies.fedavg_gan`.

    Body: data, task, split, data_seed, generator (spec), seed, build_seed, rules, pools, federation, round, from_step,
    steps, transport, compute. Arrays: the round's weights. Reply: this centre's weights, number of patches, scalars.
    """
    body, compute = job.body, job.body["compute"]
    spec = GeneratorSpec.model_validate(body["generator"])
    own = used_patches(node, body, spec.conditional)
    patches = as_arrays(own)
    for unit in body.get("pools", []):
        patches = joined(patches, *node.read_pool(unit))

    def work(state: State) -> tuple[Answer, State]:
        received = {name.removeprefix(GLOBAL): array for name, array in job.arrays.items()}
        weights, kept, facts = fedavg_gan.train_round(
            spec, patches, decode(received, body["transport"]), state, fedavg_gan.LocalRules(**body["rules"]),
            build_seed=body["build_seed"], seed=body["seed"], from_step=body["from_step"], steps=body["steps"],
            device=compute["device"], precision=compute["precision"], on_progress=node.progress(job.unit, job.label),
        )  # fmt: skip
        encoded, error = encode_noting_error(weights, body["transport"])
        reply = facts | {"examples": len(patches), "transport_error": error} | introduction(node, body, own)
        return (reply, {LOCAL + name: array for name, array in encoded.items()}), kept

    return remembered(node, job, work)


def train_discriminator(node: Node, job: Job) -> Answer:
    """A job of this centre's own discriminator; see `strategies.dm_gan`.

    Body: data, task, split, data_seed, generator (spec), seed, build_seed, federation, version, from_step, batches,
    exchange, gradients (rules), transport, introduce, send_discriminator, compute. Arrays: images or a generator. Reply: gradients.
    """
    body, compute = job.body, job.body["compute"]
    spec = GeneratorSpec.model_validate(body["generator"])
    own = used_patches(node, body, spec.conditional)

    def work(state: State) -> tuple[Answer, State]:
        ours = {n: a for n, a in job.arrays.items() if n.startswith(remote_discriminator.DISCRIMINATOR)}
        received = decode({n: a for n, a in job.arrays.items() if n not in ours}, body["transport"]) | ours
        gradients, kept, discriminator, facts = remote_discriminator.train_discriminator(
            spec, as_arrays(own), received, state, exchange=body["exchange"],
            rules=remote_discriminator.GradientRules(**body["gradients"]), build_seed=body["build_seed"], seed=body["seed"],
            from_step=body["from_step"], batches=body["batches"], device=compute["device"],
            precision=compute["precision"],
            noise_seed=secrets.randbits(62) if node.deployed else None, on_progress=node.progress(job.unit, job.label),
        )  # fmt: skip
        arrays = remote_discriminator.encode_gradients(gradients, body["transport"])
        back = remote_discriminator.decode_gradients(arrays, body["transport"])
        reply = facts | {"transport_error": relative_error(gradients, back)} | introduction(node, body, own)
        if body["send_discriminator"]:
            arrays |= {remote_discriminator.DISCRIMINATOR + name: array for name, array in discriminator.items()}
        return (reply, arrays), kept

    return remembered(node, job, work)


def joined(patches: PatchArrays, pixels: np.ndarray, labels: np.ndarray) -> PatchArrays:
    """A selection with further patches behind it."""
    own = patches.pixels[patches.rows]
    known = patches.labels if patches.labels is not None else np.ones(len(own), np.int64)
    together = np.concatenate([own, pixels])
    return PatchArrays(together, np.arange(len(together)), np.concatenate([known, labels]))


def feature_sums(node: Node, job: Job) -> Answer:
    """Sums of features over two halves (by patient) of this centre's training patches; see `strategies.fidelity`.

    Body: data, task, split, data_seed, conditional, spaces, seed.
    """
    body = job.body
    patches = used_patches(node, body, body["conditional"])
    patients = patches.table["patient"].to_numpy()
    order = sorted(set(patients.tolist()), key=lambda patient: rank(body["seed"], "half", int(patient)))
    first = np.isin(patients, order[::2])
    fewest = min(int(first.sum()), int((~first).sum()))
    if body["spaces"] and fewest < fidelity.FEWEST:
        raise DataError(
            "too_few_to_measure", f"a half of the training patches has {fewest}", have=fewest, need=fidelity.FEWEST
        )
    return {"images": len(patches)}, fidelity.feature_sums(patches.uint8(), first, body["spaces"])


def measure_generator(node: Node, job: Job) -> Answer:
    """Distance of a generator's images to a reference.

    Body: generator (spec), images (of each class), preview, seed, compute. Arrays: "weights.*", "reference.*".
    Reply: `distances`; with `preview` the first images of each class.
    """
    body, compute = job.body, job.body["compute"]
    spec = GeneratorSpec.model_validate(body["generator"])
    groups: dict[str, dict[str, np.ndarray]] = {"weights": {}, "reference": {}}
    for name, array in job.arrays.items():
        group, _, rest = name.partition(".")
        groups[group][rest] = array
    classes = (0, 1) if spec.conditional else (1,)
    distances, pixels, labels = fidelity.measure(
        spec, groups["weights"], groups["reference"], dict.fromkeys(classes, body["images"]), seed=body["seed"],
        device=compute["device"], precision=compute["precision"],
    )  # fmt: skip
    if not body["preview"]:
        return {"distances": distances}, {}
    shown = np.concatenate([np.flatnonzero(labels == label)[: fidelity.PREVIEW] for label in classes])
    return {"distances": distances}, {"preview.pixels": pixels[shown], "preview.labels": labels[shown]}
