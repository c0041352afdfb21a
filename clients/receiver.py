"""Receiver duties: draw images from a received generator, learn a classifier, test it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np
import torch

from clients.node import Node
from clients.provider import as_arrays
from clients.survey import load_patches
from data_partitions import PatchDataset
from federation.wire.job import Job
from metrics import METRICS
from models import ClassifierFit, ClassifierSpec, ClassifierTraining, GeneratorSpec, PatchArrays, predict
from strategies import choice, learning, one_shot

# Before a source's name, which may be that of one of the stages' own sources.
_FROM = "from "


def synthesise(node: Node, job: Job) -> tuple[dict, dict[str, np.ndarray]]:
    """Draw a pool of images from a generator and keep it in this centre's workspace.

    Body: generator (spec), counts by label, seed, compute. Arrays: the generator's weights.
    """
    body = job.body
    counts = {int(label): int(count) for label, count in body["counts"].items()}
    pixels, labels = one_shot.synthesise(
        GeneratorSpec.model_validate(body["generator"]), job.arrays, counts, seed=body["seed"],
        device=body["compute"]["device"], precision=body["compute"]["precision"],
    )  # fmt: skip
    node.write_pool(job.unit, pixels, labels)
    return {"counts": {str(label): int((labels == label).sum()) for label in (0, 1)}}, {}


def receive_patches(node: Node, job: Job) -> tuple[dict, dict[str, np.ndarray]]:
    """Keep another centre's real patches (pooled, simulation only). Arrays: pixels uint8 (n, c, h, w), labels (n,)."""
    labels = job.arrays["labels"]
    node.write_pool(job.unit, job.arrays["pixels"], labels)
    return {"counts": {str(label): int((labels == label).sum()) for label in (0, 1)}}, {}


def learn(node: Node, job: Job) -> tuple[dict, dict[str, np.ndarray]]:
    """One cell of the study: train a classifier, choose it on validation, test it here.

    Body: data, task, split, data_seed, cell, classifier (spec), training, recipe, size {fraction, images}, pools,
    choose, oversample, subset_seed, seed, send_classifier, compute. Reply: metrics, predictions as running numbers, history;
    the classifier's weights where another centre is to test it.
    """
    body = job.body
    patches = load_patches(node, body)
    train = patches.select(split="train").draw_fraction(
        body["size"]["fraction"], body["size"]["images"], body["subset_seed"]
    )
    real = as_arrays(train)
    foreign = {}
    for pool in body["pools"]:
        pixels, labels = node.read_pool(pool["unit"])
        rows = learning.draw_per_class(labels, (pool["negatives"], pool["positives"]))
        foreign[_FROM + pool["source"]] = PatchArrays(pixels, rows, labels[rows])
    if body["oversample"]:
        foreign["own positives again"] = learning.oversampled(
            real, body["oversample"], np.random.default_rng(body["subset_seed"])
        )

    compute = body["compute"]
    training = ClassifierTraining.model_validate(body["training"])
    spec = ClassifierSpec.model_validate(body["classifier"])
    boxes, schedule = len(np.unique(train.table["box"])), body["recipe"]["steps"]
    validation = as_arrays(patches.select(split="val"))

    def fitted(sources: Mapping[str, PatchArrays]) -> ClassifierFit:
        items = boxes + sum(len(patches.rows) for patches in sources.values())
        recipe = learning.Recipe(
            body["recipe"]["use"], _steps(schedule, items, training.batch_size), body["recipe"]["synthetic_share"]
        )
        return learning.learn(
            spec.build(body["seed"]), real, sources, validation, recipe, training, seed=body["seed"],
            device=compute["device"], precision=compute["precision"], on_progress=node.progress(job.unit, job.label),
        )  # fmt: skip

    selected = None
    if body["choose"] is not None:
        foreign, selected = _chosen(choice.Choice(**body["choose"]), real, foreign, fitted)
    fit = fitted(foreign)
    network = spec.model_copy(update={"pretrained": None}).build(body["seed"])
    network.load_state_dict(fit.state)
    result = tested(network, patches.select(split="test"), training, compute) | {
        "cell": body["cell"],
        "history": fit.history,
        "best": {"step": fit.best_step, "val_auprc": fit.best_auprc},
        "n_real": int(train.table["box"].nunique()),
        "n_synthetic": int(sum(len(p.rows) for p in foreign.values())),
        **({} if selected is None else selected),
        "train_boxes": int(patches.select(split="train").table["box"].nunique()),
    }
    weights = {f"classifier.{k}": v.numpy() for k, v in fit.state.items()} if body["send_classifier"] else {}
    return result, weights


def _chosen(
    rule: choice.Choice, real: PatchArrays, foreign: Mapping[str, PatchArrays],
    fitted: Callable[[Mapping[str, PatchArrays]], ClassifierFit],
) -> tuple[dict[str, PatchArrays], dict]:  # fmt: skip
    """The images that this cell uses of its candidates, and what is told about the choice.

    Every candidate holds as many images as all chosen ones together are to have.
    """
    if rule.by == "distance":
        pools = {source: by_class(patches) for source, patches in foreign.items()}
        scores = choice.distances(by_class(real), pools, rule.space)
    else:
        scores = choice.gains(
            foreign, lambda source: fitted({} if source is None else {source: foreign[source]}).best_auprc
        )
    share_of = choice.shares(rule, scores)
    used: dict[str, PatchArrays] = {}
    for label in (0, 1):
        total = max(int((learning.labels_of(patches) == label).sum()) for patches in foreign.values())
        for source, count in choice.counts(total, share_of).items():
            part = learning.of_label(foreign[source], label)
            before = used.get(source)
            rows = part.rows[:count] if before is None else np.concatenate([before.rows, part.rows[:count]])
            labels = np.full(min(count, len(part.rows)), label)
            labels = labels if before is None else np.concatenate([learning.labels_of(before), labels])
            used[source] = PatchArrays(part.pixels, rows, labels)
    told = ({source.removeprefix(_FROM): value for source, value in table.items()} for table in (share_of, scores))
    return used, dict(zip(("selected", "selection_scores"), told, strict=True))


def by_class(patches: PatchArrays) -> dict[int, np.ndarray]:
    """Images of each label, uint8 (n, c, h, w)."""
    return {label: np.asarray(patches.pixels[learning.of_label(patches, label).rows]) for label in (0, 1)}


def test(node: Node, job: Job) -> tuple[dict, dict[str, np.ndarray]]:
    """Test another centre's classifier on this centre's test patches.

    Body: data, task, split, data_seed, classifier (spec), training, seed, compute. Arrays: the classifier's weights.
    """
    body = job.body
    patches = load_patches(node, body).select(split="test")
    network = ClassifierSpec.model_validate(body["classifier"]).build(body["seed"])
    network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in job.arrays.items()})
    return tested(network, patches, ClassifierTraining.model_validate(body["training"]), body["compute"]), {}


def _steps(schedule: dict[str, int | str], items: int, batch_size: int) -> dict[str, int]:
    """Resolve "100 epochs" with the number of items that an epoch goes through."""
    per_epoch = max(1, -(-items // batch_size))
    return {k: v if isinstance(v, int) else int(v.split()[0]) * per_epoch for k, v in schedule.items()}


def tested(network: torch.nn.Module, patches: PatchDataset, training: ClassifierTraining, compute: dict) -> dict:
    """Metrics and predictions; cases and patients are running numbers of this test set, not identities."""
    probability = predict(
        network,
        as_arrays(patches),
        device=compute["device"],
        precision=compute["precision"],
        normalise=training.normalise,
    )[:, 1]
    patients = {patient: number for number, patient in enumerate(dict.fromkeys(patches.table["patient"].tolist()))}
    labels = patches.labels
    return {
        "metrics": {
            name: _number(value) for name, value in learning.measurements(labels, probability, METRICS).items()
        },
        "predictions": {
            "patient": [patients[p] for p in patches.table["patient"].tolist()],
            "label": labels.tolist(),
            # 9 digits hold a float32 exactly and keep results byte for byte the same when read again.
            "probability": [float(f"{p:.9g}") for p in probability.tolist()],
        },
    }


def _number(value: float) -> float | None:
    """JSON has no NaN: a metric that is not defined (one class only) travels as null."""
    return None if np.isnan(value) else float(json.loads(f"{value:.12g}"))
