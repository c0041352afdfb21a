"""Cells of the study: a receiver learns a classifier from its own patches and foreign ones, and it is tested here and elsewhere.

Longer than most files, because learning and testing a cell are one recipe, declared with all that it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import ValidationInfo, field_validator

from data_partitions import PatchDataset
from metrics import METRICS, measure, shown_metrics, shown_number, shown_share
from models import ClassifierFit, ClassifierSpec, ClassifierTraining, PatchArrays, predict
from strategies import choice, learning, terms
from strategies.bodies import CellName, Compute, OfTask, Pool, Size
from strategies.centre_side import (
    CentreSide,
    as_arrays,
    boxes_as_weight,
    patients_in,
    receiver_patches,
    shown_course,
)
from strategies.kind import Answer, Answered, Arrays, Count, Curves, Field, Kind, Received, Sent, Uses, Words
from strategies.layouts import classifier_layout, prefixed

# Before a source's name, which may be that of one of the stages' own sources.
_FROM = "from "
MEMORY = "a model can remember single training images; without differential privacy nothing rules that out"
CLASSIFIER = "classifier."
_LEARNED_HERE = "a classifier"


class CellBody(OfTask):
    """What every job about a cell says of it.

    Attributes:
        metrics: of plug-ins, measured beside those of every study.
    """

    cell: CellName
    metrics: tuple[str, ...]
    classifier: ClassifierSpec
    training: ClassifierTraining
    seed: int
    compute: Compute


class Learn(CellBody):
    """Arguments of learning a cell.

    Attributes:
        pools: foreign images at this centre.
        choose: which of them are used; None: all.
        oversample: control: so many of its own positives are drawn again.
        send_classifier: whether another centre tests it.
    """

    recipe: learning.Recipe
    size: Size
    pools: tuple[Pool, ...]
    choose: choice.Choice | None
    oversample: int | None
    subset_seed: int
    send_classifier: bool


class Test(CellBody):
    """Arguments of testing another centre's classifier.

    Attributes:
        signature: of the receiver that learned it; see `sent_classifier`.
    """

    signature: str


# -- local halves ------------------------------------------------------------------------------------------------------


def learn(here: CentreSide, body: Learn, arrays: Arrays) -> Answer:
    """One cell of the study: train a classifier, choose it on validation, test it here."""
    patches = here.patches(body)
    train = receiver_patches(here, body, body.size, body.subset_seed)
    real = as_arrays(train)
    foreign = {}
    for pool in body.pools:
        pixels, labels = here.read_pool(pool.unit)
        rows = learning.draw_per_class(labels, pool.by_label)
        foreign[_FROM + pool.source] = PatchArrays(pixels, rows, labels[rows])
    if body.oversample:
        rng = np.random.default_rng(body.subset_seed)
        foreign["own positives again"] = learning.oversampled(real, body.oversample, rng)
    training, compute = body.training, body.compute
    boxes = boxes_as_weight(train)  # the number of steps of an epoch is seen in the answer
    held_out = patches.select(split="val")
    validation = as_arrays(held_out)

    def fitted(sources: Mapping[str, PatchArrays]) -> ClassifierFit:
        items = boxes + sum(len(patches.rows) for patches in sources.values())
        return learning.learn(
            body.classifier.build(body.seed), real, sources, validation, body.recipe.resolved(items, training.batch_size), training,
            seed=body.seed, **compute.options, on_progress=here.progress(),
        )  # fmt: skip

    selected: dict[str, Any] = {}
    if body.choose is not None:
        foreign, selected = _chosen(here, body.choose, train, foreign, fitted, patients_in(held_out))
    fit = fitted(foreign)
    network = body.classifier.plain.build(body.seed)
    network.load_state_dict(fit.state)
    answer = learned(body, patches, train, network) | {
        **shown_course(fit.history, {"step": fit.best_step, "val_auprc": fit.best_auprc}, held_out),
        "n_synthetic": int(sum(len(p.rows) for p in foreign.values())),
        **selected,
    }
    return sent_classifier(here, body, answer, fit.state)


def learned(body: Learn | Any, patches: PatchDataset, train: PatchDataset, network: torch.nn.Module) -> dict[str, Any]:
    """What a receiver answers about a classifier that it has: tested here, and how many patches it saw."""
    return tested(network, patches.select(split="test"), body.training, body.compute, body.metrics) | {
        "cell": body.cell.model_dump(mode="json"),
        "n_real": body.size.images or boxes_as_weight(train),  # as many as the study asks for is no news
        "train_boxes": boxes_as_weight(patches.select(split="train")),
    }


def sent_classifier(here: CentreSide, body: Any, answer: dict[str, Any], state: Mapping[str, torch.Tensor]) -> Answer:
    """The answer about a classifier with its state, signed for those who test it; the answer alone where nobody else does."""
    if not body.send_classifier:
        return answer, {}
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in state.items()}
    signature = here.sign(_LEARNED_HERE, _signed_of(body.cell), arrays)
    return answer | {"signature": signature}, {CLASSIFIER + name: array for name, array in arrays.items()}


def _signed_of(cell: CellName) -> list[Any]:
    return [cell.model_dump(mode="json")]


def _chosen(
    here: CentreSide, rule: choice.Choice, train: PatchDataset, foreign: Mapping[str, PatchArrays],
    fitted: Callable[[Mapping[str, PatchArrays]], ClassifierFit], validated: int,
) -> tuple[dict[str, PatchArrays], dict[str, Any]]:  # fmt: skip
    """The images that this cell uses of its candidates, and what is reported of the choice.

    Every candidate holds as many images as all chosen ones together are to have.

    Args:
        validated: patients of the validation split.

    Raises:
        DataError: "too_few_to_measure".
    """
    if rule.by == "distance":
        pools = {source: learning.by_class(patches) for source, patches in foreign.items()}
        own = choice.own_images(train, max(rule.fewest_patients, here.fewest_patients))
        scores = choice.distances(own, pools, rule.space)
    else:
        scores = choice.gains(
            foreign, lambda source: fitted({} if source is None else {source: foreign[source]}).best_auprc
        )
    share_of = choice.shares(rule, scores)
    used: dict[str, PatchArrays] = {}
    for label in learning.labels_in(foreign.values()):
        total = max(int((learning.labels_of(patches) == label).sum()) for patches in foreign.values())
        for source, count in choice.counts(total, _shares_of_class(share_of, foreign, label)).items():
            part = learning.of_label(foreign[source], label)
            before = used.get(source)
            rows = part.rows[:count] if before is None else np.concatenate([before.rows, part.rows[:count]])
            labels = np.full(min(count, len(part.rows)), label)
            labels = labels if before is None else np.concatenate([learning.labels_of(before), labels])
            used[source] = PatchArrays(part.pixels, rows, labels)
    rounded = shown_number if rule.by == "distance" else shown_share
    return used, {
        "selected": {name.removeprefix(_FROM): shown_share(value, validated) for name, value in share_of.items()},
        "selection_scores": {name.removeprefix(_FROM): rounded(value, validated) for name, value in scores.items()},
    }


def _shares_of_class(share_of: Mapping[str, float], foreign: Mapping[str, PatchArrays], label: int) -> dict[str, float]:
    """Shares of the chosen sources that have a class; where none of them has it, of all others in equal parts."""
    having = [source for source, patches in foreign.items() if (learning.labels_of(patches) == label).any()]
    chosen = {source: share for source, share in share_of.items() if source in having}
    if len(chosen) == len(share_of):
        return chosen
    if not chosen and share_of:
        chosen = dict.fromkeys(having, 1.0)
    total = sum(chosen.values())
    return {source: share / total for source, share in chosen.items()}


def test(here: CentreSide, body: Test, arrays: Arrays) -> Answer:
    """Test another centre's classifier on this centre's test patches.

    Raises:
        ValueError: "not_signed": the receiver did not learn these weights for this cell.
    """
    here.verify(body.cell.receiver, _LEARNED_HERE, _signed_of(body.cell), arrays, body.signature)
    network = body.classifier.build(body.seed)
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    return tested(network, here.patches(body).select(split="test"), body.training, body.compute, body.metrics), {}


def tested(
    network: torch.nn.Module,
    patches: PatchDataset,
    training: ClassifierTraining,
    compute: Compute,
    metrics: Sequence[str],
) -> dict[str, Any]:
    """Rounded metrics, and predictions; cases and patients are running numbers of this test set, not identities.

    Args:
        metrics: of plug-ins, beside those of every study.
    """
    probability = predict(network, as_arrays(patches), **compute.options, normalise=training.normalise)
    patients = {patient: number for number, patient in enumerate(dict.fromkeys(patches.table["patient"].tolist()))}
    labels = patches.labels
    return {
        "metrics": shown_metrics(measure(labels, probability, patches.classes, metrics), len(patients)),
        "predictions": {
            "patient": [patients[p] for p in patches.table["patient"].tolist()],
            "label": labels.tolist(),
            # Of two classes that of the second says it all.
            "probability": [_digits(row[1]) if len(row) == 2 else [*map(_digits, row)] for row in probability.tolist()],
        },
    }


def _digits(value: float) -> float:
    """9 digits hold a float32 exactly and keep results byte for byte the same when read again."""
    return float(f"{value:.9g}")


# -- kinds -------------------------------------------------------------------------------------------------------------


def measured_on(*splits: str) -> tuple[Uses, ...]:
    """What a kind declares that measures a classifier on each class of some splits."""
    return tuple(Uses("test", partial(_each_class, split)) for split in splits)


def _each_class(split: str, patches: PatchDataset, body: Any) -> Iterator[PatchDataset]:
    return terms.each_class(patches, split)


TESTED_TELL = (
    "A metric is a fraction of few cases. Whoever chooses the classifier can find out what single images are like from many metrics; "
    "each cell is tested once."
)


def _compared(body: Any) -> bool:
    return body.choose is not None and body.choose.by == "distance"


def send_classifier(body: Any) -> bool:
    """Whether another centre is to test the classifier."""
    return bool(body.send_classifier)


class TestedAnswer(Answered):
    """What is answered of a tested classifier, as far as the server computes with it; None: the metric is not defined."""

    metrics: dict[str, float | None]

    @field_validator("metrics")
    @classmethod
    def _all_of_them(cls, value: dict[str, float | None], asked: ValidationInfo) -> dict[str, float | None]:
        if lacking := sorted({*METRICS.builtin, *getattr(asked.context, "metrics", ())} - set(value)):
            raise ValueError(f"lacks {lacking[0]}")
        return value


class LearnedAnswer(TestedAnswer):
    """The same of a cell that was learned."""

    n_real: Count
    n_synthetic: Count
    train_boxes: Count
    cell: dict[str, Any]
    history: Curves
    best: dict[str, float | None]
    selected: dict[Words, float] | None = None
    selection_scores: dict[Words, float] | None = None

    @field_validator("cell")
    @classmethod
    def _the_one_asked_for(cls, value: dict[str, Any], asked: ValidationInfo) -> dict[str, Any]:
        if asked.context is not None and value != asked.context.cell.model_dump(mode="json"):
            raise ValueError("is another cell than was asked for")
        return value


TESTED = (
    Field("metrics.*", "numbers", "accuracy, AUROC and the like over the test images, to two decimals (three from 1,000 patients on)",
          "aggregate"),
    Field(
        "predictions.*", "lists", "true class and probabilities for each test image, under running numbers",
        "aggregate", "only with release.predictions: true; else they stay here",
    ),
)  # fmt: skip
LEARNED = (
    *TESTED,
    Field("cell.*", "names", "which cell of the study it is: as it was asked"),
    Field("history.*", "lists of numbers", "losses and validation AUPRC (rounded) during training", "aggregate"),
    Field("best.*", "numbers", "the best step and its validation AUPRC", "aggregate"),
    Field("n_real", "count", "how many training boxes were used, rounded to 5", "counts"),
    Field("n_synthetic", "count", "how many synthetic images were used"),
    Field("train_boxes", "count", "how many training boxes there are, rounded to 5", "counts"),
    Field("signature", "text", "that this centre learned the classifier", when="only where another centre tests it"),
)
LEARNED_CLASSIFIER = Sent(
    f"{CLASSIFIER}*", "weights", f"a classifier that learned from this centre's images; {MEMORY}", "model",
    "only where another centre tests it", layout=lambda body: prefixed(classifier_layout(body.classifier), CLASSIFIER),
    sent_if=send_classifier,
)  # fmt: skip

LEARN = Kind(
    name="learn_classifier",
    title="train a classifier",
    phase="learn",
    body=Learn,
    work=learn,
    answer=(
        *LEARNED,
        Field("selected.*", "shares", "which generator's images helped here", "aggregate", "where an arm chooses"),
        Field("selection_scores.*", "numbers", "how much each helped, or its distance to this centre's images", "aggregate",
              "where an arm chooses"),
    ),
    answer_model=LearnedAnswer,
    sends=(LEARNED_CLASSIFIER,),
    reveals=f"{TESTED_TELL} Where the classifier leaves, it can remember single training images.",
    uses=(
        *measured_on("val", "test"),
        Uses("training", terms.classifier_training, send_classifier),
        # A distance to this centre's images is one to their mean and covariance, class by class.
        Uses("sum", lambda patches, body: terms.each_class(terms.classifier_training(patches, body)[0], "train"), _compared),
    ),
    trains=lambda body: terms.of_classifier(body.training, body.recipe.fewest_steps) if send_classifier(body) else None,
)  # fmt: skip
TEST = Kind(
    name="test_classifier",
    title="test elsewhere",
    phase="test",
    body=Test,
    work=test,
    answer=TESTED,
    answer_model=TestedAnswer,
    receives=(Received("*", lambda body: classifier_layout(body.classifier)),),
    reveals=TESTED_TELL,
    uses=measured_on("test"),
)
