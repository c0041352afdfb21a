"""Duties in a classifier that several centres train together: a round anywhere, validation and adoption at the receiver."""

from __future__ import annotations

import numpy as np

from clients.federation import Answer, State, remembered
from clients.node import Node
from clients.provider import as_arrays
from clients.receiver import tested
from clients.survey import load_patches
from data_partitions import PatchDataset
from federation.wire.job import Job
from federation.wire.transport import decode, encode_noting_error
from models import ClassifierSpec, ClassifierTraining
from strategies import fedavg_classifier, learning
from strategies.rounds import GLOBAL, LOCAL


def train_classifier_round(node: Node, job: Job) -> Answer:
    """Local steps of a federated classifier; see `strategies.fedavg_classifier`.

    Body: data, task, split, data_seed, size, subset_seed, classifier (spec), training, seed, optimizer, proximal_mu, of_steps,
    federation, round, from_step, steps, transport, compute. Arrays: the round's weights. Reply: this centre's weights.
    """
    body, compute = job.body, job.body["compute"]
    own = own_patches(node, body)

    def work(state: State) -> tuple[Answer, State]:
        received = {name.removeprefix(GLOBAL): array for name, array in job.arrays.items()}
        weights, kept, facts = fedavg_classifier.train_round(
            ClassifierSpec.model_validate(body["classifier"]), as_arrays(own), decode(received, body["transport"]), state,
            ClassifierTraining.model_validate(body["training"]), optimizer=body["optimizer"],
            proximal_mu=body["proximal_mu"], seed=body["seed"], from_step=body["from_step"], steps=body["steps"],
            of_steps=body["of_steps"], device=compute["device"], precision=compute["precision"],
        )  # fmt: skip
        encoded, error = encode_noting_error(weights, body["transport"])
        reply = facts | {"examples": len(own), "transport_error": error}
        return (reply, {LOCAL + name: array for name, array in encoded.items()}), kept

    return remembered(node, job, work)


def validate_classifier(node: Node, job: Job) -> Answer:
    """AUPRC of a round's weights on this centre's validation patches.

    Body: data, task, split, data_seed, size, subset_seed, classifier, training, compute. Arrays: "weights.*".
    """
    spec, weights, real, validation, training, options = _received(node, job)
    auprc, _ = fedavg_classifier.validate(spec, weights, real, validation, training, **options)
    return {"val_auprc": auprc}, {}


def adopt_classifier(node: Node, job: Job) -> Answer:
    """Take over the chosen weights, fine-tune them where asked for, and test: the reply is that of a `learn` job.

    Body: as `validate_classifier`, and cell, seed, fine_tune (steps, 0 for none), history, best, send_classifier.
    """
    body, compute = job.body, job.body["compute"]
    spec, weights, real, validation, training, options = _received(node, job)
    auprc, network = fedavg_classifier.validate(spec, weights, real, validation, training, **options)
    history, best = dict(body["history"]), dict(body["best"])
    if body["fine_tune"]:
        recipe = learning.Recipe("none", {"real": body["fine_tune"]}, "by_count")
        gentle = training.model_copy(update={"learning_rate": training.learning_rate * learning.SECOND_STAGE_RATE})
        fit = learning.learn(
            network, real, {}, validation, recipe, gentle, seed=body["seed"], on_progress=node.progress(job.unit, job.label),
            **options,
        )  # fmt: skip
        before = max(history["step"], default=0)
        history = {
            "step": history["step"] + [before + step for step in fit.history["step"]],
            "val_auprc": history["val_auprc"] + fit.history["val_auprc"],
            "stage": history["stage"] + ["fine_tune"] * len(fit.history["step"]),
        }
        # Only if it helped on validation.
        if fit.best_auprc >= auprc:
            network.load_state_dict(fit.state)
            best = {"step": before + fit.best_step, "val_auprc": fit.best_auprc}
        else:
            _, network = fedavg_classifier.validate(spec, weights, real, validation, training, **options)
    train = own_patches(node, body)
    whole = load_patches(node, body)
    result = tested(network, whole.select(split="test"), training, compute) | {
        "cell": body["cell"], "history": history, "best": best, "n_real": int(train.table["box"].nunique()), "n_synthetic": 0,
        "train_boxes": int(whole.select(split="train").table["box"].nunique()),
    }  # fmt: skip
    state = network.state_dict() if body["send_classifier"] else {}
    return result, {f"classifier.{name}": t.detach().cpu().contiguous().numpy() for name, t in state.items()}


def own_patches(node: Node, body: dict) -> PatchDataset:
    """The training patches that take part: a receiver's subset, all of a provider."""
    train = load_patches(node, body).select(split="train")
    return train.draw_fraction(body["size"]["fraction"], body["size"]["images"], body["subset_seed"])


def _received(node: Node, job: Job):
    body, compute = job.body, job.body["compute"]
    weights: dict[str, np.ndarray] = {name.removeprefix("weights."): array for name, array in job.arrays.items()}
    validation = as_arrays(load_patches(node, body).select(split="val"))
    options = {"device": compute["device"], "precision": compute["precision"]}
    spec = ClassifierSpec.model_validate(body["classifier"])
    training = ClassifierTraining.model_validate(body["training"])
    return spec, weights, as_arrays(own_patches(node, body)), validation, training, options
