"""Provider duties: train a generator on this centre's own patches; in a pooled simulation, send real ones."""

from __future__ import annotations

import numpy as np

from basics.seeds import derive_seed
from clients.node import Node
from clients.survey import load_patches
from data_partitions import PatchDataset
from data_partitions.small_counts import suppressed_count
from federation.wire.job import Job
from models import GeneratorSpec, PatchArrays
from strategies import one_shot

# Synthetic images that a provider sends along for the report, per class.
PREVIEW = 32


def as_arrays(patches: PatchDataset) -> PatchArrays:
    """The arrays that the training loops take."""
    return PatchArrays(patches.pixels, patches.index, patches.labels)


def trained_on(used: PatchDataset) -> dict[str, int | str]:
    """How many boxes and patients a model saw; small numbers are not told."""
    return {
        name: suppressed_count(int(used.table[column].nunique()))
        for name, column in (("boxes", "box"), ("patients", "patient"))
    }


def train_generator(node: Node, job: Job) -> tuple[dict, dict[str, np.ndarray]]:
    """Body: data, task, split, data_seed, generator (spec), seed, compute {device, threads, precision}.

    Reply: the generator's weights; `card` (data card, training), `history`. No pixel of a patient and no identifier.
    """
    body = job.body
    patches = load_patches(node, body).select(split="train")
    spec = GeneratorSpec.model_validate(body["generator"])
    used = patches if spec.conditional else patches.select(label=1)
    compute = body["compute"]
    weights, result = one_shot.train_generator(
        spec, as_arrays(used), seed=body["seed"], device=compute["device"], precision=compute["precision"],
        on_progress=node.progress(job.unit, job.label),
    )  # fmt: skip
    per_class = {0: PREVIEW, 1: PREVIEW} if spec.conditional else {1: PREVIEW}
    preview, labels = one_shot.synthesise(
        spec, weights, per_class, seed=derive_seed(body["seed"], "preview", node.centre), device=compute["device"],
        precision=compute["precision"],
    )  # fmt: skip
    result["data_card"] = patches.data_card()
    result["trained_on"] = trained_on(used)
    return result, {
        **{f"weights.{k}": v for k, v in weights.items()},
        "preview.pixels": preview,
        "preview.labels": labels,
    }


def send_patches(node: Node, job: Job) -> tuple[dict, dict[str, np.ndarray]]:
    """The one duty whose reply holds real pixels; simulation only.

    Body: data, task, split, data_seed, classes, patches (per class, or null for all), seed.
    """
    body = job.body
    train = load_patches(node, body).select(split="train")
    rng = np.random.default_rng(body["seed"])
    rows = []
    for label in body["classes"]:
        own = np.flatnonzero(train.labels == label)
        wanted = len(own) if body["patches"] is None else min(body["patches"], len(own))
        rows.append(rng.permutation(own)[:wanted])
    chosen = np.concatenate(rows)
    labels = train.labels[chosen]
    counts = {str(label): int((labels == label).sum()) for label in (0, 1)}
    return {"counts": counts}, {"pixels": train.uint8(chosen), "labels": labels}
