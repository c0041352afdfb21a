"""A federated classifier, a centre's half: a round anywhere, validation and adoption at the receiver.

Longer than most files, because a round, plain and summed, validation and adoption share their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from federation.wire.transport import Transport, decode, encode_noting_error
from metrics import selection_score, shown_share
from models import ClassifierSpec, ClassifierTraining, PatchArrays, Precision, Stage, predict
from models.federated_parts import averaged_state, load_averaged
from models.fit_classifier import StageTrainer
from models.predict import recompute_batch_norm
from models.stages import BalancedDraws
from strategies import learning, terms
from strategies.bodies import CellName, Compute, Course, OfTask, Size
from strategies.cells import (
    LEARNED,
    LEARNED_CLASSIFIER,
    MEMORY,
    TESTED_TELL,
    LearnedAnswer,
    learned,
    measured_on,
    send_classifier,
    sent_classifier,
)  # fmt: skip
from strategies.centre_side import CentreSide, as_arrays, boxes_as_weight, patients_in, receiver_patches, shown_course
from strategies.fedavg_gan.local import COURSE_FIELDS, statistics_of
from strategies.kind import Answer, Arrays, Field, Kind, Layout, Received, Sent, Start, Uses
from strategies.layouts import classifier_layout, encoded, prefixed
from strategies.learning import REAL
from strategies.members import GLOBAL, LOCAL, Weights
from strategies.sums import SUMMED, Summed, sum_kinds, summed_answer, summed_layout, weight_layout

# Images on which the receiver recomputes batch norm's statistics before it validates.
_STATISTICS_IMAGES = 256
_WEIGHTS = "weights."


# -- bodies ------------------------------------------------------------------------------------------------------------


class OfClassifier(OfTask):
    """What every job of a federated classifier says."""

    size: Size
    subset_seed: int
    classifier: ClassifierSpec
    training: ClassifierTraining
    compute: Compute


class TrainRound(OfClassifier, Course):
    """Arguments of a round.

    Attributes:
        optimizer: what becomes of the moments over rounds.
        of_steps: steps of all rounds, the length of the learning-rate schedule.
        build_seed: of the initial weights, the same for all members.
    """

    optimizer: Literal["keep", "reset"]
    proximal_mu: float
    of_steps: int
    seed: int
    build_seed: int


class TrainSummedRound(TrainRound, Summed):
    """The same, where answers are summed."""


class Validate(OfClassifier):
    """Arguments of validating a round at the receiver.

    Attributes:
        federation: whose weights these are.
        round: after which, from 1 on.
        build_seed: of the initial weights.
        transport: in which the rounds' weights travel.
    """

    federation: str
    round: int
    build_seed: int
    transport: Transport


class Adopt(OfClassifier):
    """Arguments of taking over the chosen weights.

    Attributes:
        federation: whose weights these are; the receiver has validated them.
        fine_tune: steps on the receiver's own patches; 0: none.
        metrics: of plug-ins, measured beside those of every study.
        history, best: of the rounds, to be reported with the cell.
    """

    federation: str
    cell: CellName
    metrics: tuple[str, ...]
    seed: int
    fine_tune: int
    send_classifier: bool
    history: dict[str, list[Any]]
    best: dict[str, Any]


# -- work --------------------------------------------------------------------------------------------------------------


def train(here: CentreSide, body: TrainRound, arrays: Arrays, state: Arrays) -> tuple[Answer, Arrays]:
    """A round at one centre."""
    weights, kept, facts, examples = _trained(here, body, arrays, state)
    sent, error = encode_noting_error(weights, body.transport)
    answer = facts | {"examples": examples, "transport_error": error}
    return (answer, {LOCAL + name: array for name, array in sent.items()}), kept


def train_summed(here: CentreSide, body: TrainSummedRound, arrays: Arrays, state: Arrays) -> tuple[Answer, Arrays]:
    """The same round, of which only the sum over all centres can be read."""
    weights, kept, _, examples = _trained(here, body, arrays, state)
    return ({}, summed_answer(here, body, weights, examples)), kept


def _trained(
    here: CentreSide, body: TrainRound, arrays: Arrays, state: Arrays
) -> tuple[Weights, Weights, dict[str, Any], int]:
    """(weights, what stays, facts, training patches)."""
    own = receiver_patches(here, body, body.size, body.subset_seed)
    weights, kept, facts = local_steps(
        body.classifier.plain, as_arrays(own), _received(body, arrays), state, body.training, optimizer=body.optimizer,
        proximal_mu=body.proximal_mu, seed=body.seed, from_step=body.from_step, steps=body.steps, of_steps=body.of_steps,
        **body.compute.options,
    )  # fmt: skip
    return weights, kept, facts, boxes_as_weight(own)


def validate(here: CentreSide, body: Validate, arrays: Arrays) -> Answer:
    """AUPRC of a round's weights on this centre's validation patches, rounded."""
    auprc, _ = _validated(here, body, arrays)
    return {"val_auprc": shown_share(auprc, patients_in(here.patches(body).select(split="val")))}, {}


def adopt(here: CentreSide, body: Adopt, arrays: Arrays) -> Answer:
    """Take over the chosen weights, fine-tune them where asked for, and test: the answer is that of a learned cell."""
    auprc, network = _validated(here, body, arrays)
    history, best = dict(body.history), dict(body.best)
    train, whole = receiver_patches(here, body, body.size, body.subset_seed), here.patches(body)
    if body.fine_tune:
        recipe = learning.Recipe(use="none", steps={"real": body.fine_tune}, synthetic_share="by_count")
        rate = body.training.learning_rate * learning.SECOND_STAGE_RATE
        fit = learning.learn(
            network, as_arrays(train), {}, as_arrays(whole.select(split="val")), recipe,
            body.training.model_copy(update={"learning_rate": rate}), seed=body.seed, on_progress=here.progress(),
            **body.compute.options,
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
            _, network = _validated(here, body, arrays)
    course = shown_course(history, best, whole.select(split="val"))
    answer = learned(body, whole, train, network) | course | {"n_synthetic": 0}
    return sent_classifier(here, body, answer, network.state_dict())


def _validated(here: CentreSide, body: OfClassifier, arrays: Arrays) -> tuple[float, nn.Module]:
    weights = _averaged(body, arrays)
    own = as_arrays(receiver_patches(here, body, body.size, body.subset_seed))
    validation = as_arrays(here.patches(body).select(split="val"))
    return validated(
        body.classifier.plain, weights, own, validation, body.training, **body.compute.options,
    )  # fmt: skip


# -- arrays in, arrays out ---------------------------------------------------------------------------------------------


def local_steps(
    spec: ClassifierSpec,
    patches: PatchArrays,
    weights: Mapping[str, np.ndarray],
    state: Mapping[str, np.ndarray],
    training: ClassifierTraining,
    *,
    optimizer: Literal["keep", "reset"],
    proximal_mu: float,
    seed: int,
    from_step: int,
    steps: int,
    of_steps: int,
    device: str,
    precision: Precision,
) -> tuple[Weights, Weights, dict[str, Any]]:
    """A centre's part of a round.

    Args:
        weights: the round's averaged weights.
        state: optimizer moments of the round before, where they are kept.
        of_steps: steps of all rounds, the length of the learning-rate schedule.

    Returns:
        its weights, what it keeps, and facts.
    """
    network = loaded(spec, weights, training, device)
    stage = Stage("federated", of_steps, training.learning_rate, {REAL: 1.0})
    draws = BalancedDraws({REAL: patches}, stage)
    penalty = proximal(network, proximal_mu) if proximal_mu else None
    trainer = StageTrainer(
        network, None, draws, stage, training, seed=seed, device=device, precision=precision, penalty=penalty,
    )  # fmt: skip
    moments = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    trainer.load_state({"step": torch.tensor(from_step), **moments}, strict=False)
    loss = trainer.advance(steps)
    kept = {} if optimizer == "reset" else {
        name: tensor.numpy() for name, tensor in trainer.state().items() if name.startswith("optimizer.")
    }  # fmt: skip
    return {n: t.numpy() for n, t in averaged_state(network).items()}, kept, {"scalars": {"loss": loss}}


def validated(
    spec: ClassifierSpec, weights: Mapping[str, np.ndarray], own: PatchArrays, validation: PatchArrays,
    training: ClassifierTraining, *, device: str, precision: Precision,
) -> tuple[float, nn.Module]:  # fmt: skip
    """AUPRC of averaged weights on the receiver's validation patches, and the network as it was validated."""
    network = loaded(spec, weights, training, device)
    if training.batch_norm_on is not None:
        chosen = np.linspace(0, len(own) - 1, min(len(own), _STATISTICS_IMAGES)).astype(int)
        recompute_batch_norm(network, own.take(chosen), training.normalise, precision)
    probability = predict(network, validation, device=device, precision=precision, normalise=training.normalise)
    assert validation.labels is not None
    return selection_score(validation.labels, probability), network


def loaded(
    spec: ClassifierSpec, weights: Mapping[str, np.ndarray], training: ClassifierTraining, device: str
) -> nn.Module:
    """A network with averaged weights, on its device."""
    network = spec.build(0)
    load_averaged(network, {name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
    return network.to(torch.device(device)).to(memory_format=memory_format)  # type: ignore[call-overload]


def proximal(network: nn.Module, mu: float) -> Callable[[nn.Module], Tensor]:
    """mu / 2 |w - w_round|^2 (Li et al. 2020)."""
    anchors = [parameter.detach().clone() for parameter in network.parameters()]

    def penalty(network: nn.Module) -> Tensor:
        distances = [(p - anchor).square().sum() for p, anchor in zip(network.parameters(), anchors, strict=True)]
        return 0.5 * mu * torch.stack(distances).sum()

    return penalty


# -- kinds -------------------------------------------------------------------------------------------------------------


def _round_layout(body: TrainRound) -> Layout:
    return encoded(classifier_layout(body.classifier, averaged=True), body.transport)


def _received(body: TrainRound, arrays: Arrays) -> Weights:
    return decode({name.removeprefix(GLOBAL): array for name, array in arrays.items()}, body.transport)


def _averaged(body: OfClassifier, arrays: Arrays) -> Weights:
    return {name.removeprefix(_WEIGHTS): array for name, array in arrays.items()}


def _initial(body: TrainRound | Validate) -> Weights:
    return {name: tensor.numpy() for name, tensor in averaged_state(body.classifier.build(body.build_seed)).items()}


def _statistics(body: OfClassifier) -> frozenset[str]:
    return statistics_of(body.classifier.plain.build(0))


def _fine_tuned(body: Adopt) -> bool:
    """Whether a classifier leaves that learned more than the rounds, of which each was looked at."""
    return bool(body.fine_tune) and send_classifier(body)


_AVERAGED = Received("weights.*", lambda body: prefixed(classifier_layout(body.classifier, averaged=True), _WEIGHTS))
TRAIN_ROUND = Kind(
    name="train_classifier_round",
    title="train a classifier's round",
    phase="learn",
    body=TrainRound,
    work=train,
    stateful=True,
    averaged=True,
    answer=COURSE_FIELDS,
    sends=(
        Sent("weights.*", "weights", f"a classifier after local steps; {MEMORY}", "model",
             layout=lambda body: prefixed(_round_layout(body), LOCAL)),
    ),
    receives=(Received("global.*", lambda body: prefixed(_round_layout(body), GLOBAL)),),
    place=("round",),
    start=Start("round", _received, _initial, _statistics),
    reveals="As with generators that are averaged: without differential privacy or secure aggregation, weights after local steps are "
    "images to a determined operator.",
    uses=(Uses("training", terms.classifier_training),),
    trains=lambda body: terms.of_classifier(body.training, body.steps),
)  # fmt: skip
TRAIN_SUMMED_ROUND = Kind(
    name="train_classifier_summed_round",
    title="train a classifier's round of a secure sum",
    phase="learn",
    body=TrainSummedRound,
    work=train_summed,
    stateful=True,
    averaged=True,
    masked=lambda body: body.masked,
    place=("round", "attempt"),
    start=TRAIN_ROUND.start,
    sends=(
        Sent("weights.*", "masked weights", f"weights as of a round: {SUMMED}", "model",
             layout=lambda body: summed_layout(classifier_layout(body.classifier, averaged=True))),
        Sent("weight", "masked count", f"how many training patches take part: {SUMMED}", "counts", layout=weight_layout),
    ),
    receives=TRAIN_ROUND.receives,
    reveals="The sum over the centres that take part, three or more: what all of them learned together. A coordinator that owns all but "
    "one of them reads that one's.",
    uses=TRAIN_ROUND.uses,
    trains=TRAIN_ROUND.trains,
)  # fmt: skip
SUM_KINDS = sum_kinds(
    "learn", ("sum_classifier_keys", "sum_classifier_shares", "sum_classifier_survivors", "sum_classifier_opening")
)
VALIDATE = Kind(
    name="validate_classifier",
    title="validate a classifier",
    phase="learn",
    body=Validate,
    work=validate,
    answer=(Field("val_auprc", "number", "AUPRC on this centre's validation images", "aggregate"),),
    receives=(_AVERAGED,),
    start=Start("round", _averaged, _initial, _statistics),
    reveals=TESTED_TELL,
    uses=measured_on("val"),
)
ADOPT = Kind(
    name="adopt_classifier",
    title="adopt a classifier",
    phase="learn",
    body=Adopt,
    work=adopt,
    answer=LEARNED,
    answer_model=LearnedAnswer,
    sends=(LEARNED_CLASSIFIER,),
    receives=(_AVERAGED,),
    start=Start(None, _averaged, lambda body: {}, lambda body: frozenset()),
    reveals=TESTED_TELL,
    uses=(*measured_on("val", "test"), Uses("training", terms.classifier_training, _fine_tuned)),
    trains=lambda body: terms.of_classifier(body.training, body.fine_tune) if _fine_tuned(body) else None,
)
