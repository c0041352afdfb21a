"""What may be in an answer, field by field: the page a data protection officer reads, and a rule that is kept.

A deployed node sends nothing that is not declared here (`undeclared`), so a new field cannot leave before someone has
written down what it tells about patients.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from federation.wire.job import Reply

# How much a field tells of patients, from nothing to what a model learned from them.
Risk = Literal["none", "counts", "aggregate", "model"]


@dataclass(frozen=True)
class Field:
    """One part of an answer.

    Attributes:
        name: path in the answer's body, or name of arrays; `*` stands for any one part of a path.
        type: what it is made of.
        tells: what it says about patients.
        risk: none: nothing about patients. counts: how many there are of what. aggregate: numbers over many images.
            model: what a model learned from them.
        when: where it is not sent every time.
    """

    name: str
    type: str
    tells: str
    risk: Risk = "none"
    when: str = ""


_CARD = "counts of patients, images, views, scanners, kinds of lesions; 1 to 4 of anything are not told"
_MEMORY = "a model can remember single training images; without differential privacy nothing rules that out"


def _card(when: str = "") -> tuple[Field, ...]:
    return (
        Field("data_card", "counts", _CARD, "counts", when),
        Field("trained_on.boxes", "count", "how many training boxes; 1 to 4 are not told", "counts", when),
        Field("trained_on.patients", "count", "how many training patients; 1 to 4 are not told", "counts", when),
    )


_COURSE = (
    Field("images_per_step", "count", "images that one training step goes through: a setting"),
    Field("scalars.*", "numbers", "losses, means over the steps of the job", "aggregate"),
    Field("transport_error", "number", "rounding of what travels"),
    Field("examples", "count", "how many training patches take part, exactly", "counts"),
)
_TESTED = (
    Field("metrics.*", "numbers", "accuracy, AUROC and the like over the test images", "aggregate"),
    Field(
        "predictions.*", "lists", "true class and probability for each test image, under running numbers",
        "aggregate", "only with release.predictions: true; else they stay here",
    ),
)  # fmt: skip
_LEARNED = (
    *_TESTED,
    Field("cell.*", "names", "which cell of the study it is: as it was asked"),
    Field("history.*", "lists of numbers", "losses and validation AUPRC during training", "aggregate"),
    Field("best.*", "numbers", "the best step and its validation AUPRC", "aggregate"),
    Field("n_real", "count", "how many training boxes were used, exactly", "counts"),
    Field("n_synthetic", "count", "how many synthetic images were used"),
    Field("train_boxes", "count", "how many training boxes there are, exactly", "counts"),
)
_CLASSIFIER = Field(
    "classifier.*", "weights", f"a classifier that learned from this centre's images; {_MEMORY}", "model",
    "only where another centre tests it",
)  # fmt: skip

# By kind: fields of the body, and arrays.
BODY: Mapping[str, tuple[Field, ...]] = {
    "identify": (
        Field("centre", "name", "who this node is"),
        Field("protocol", "number", "version of the protocol"),
        Field("code", "digest", "which version of the project runs here"),
        Field("bundle", "digest", "which version of the project runs here"),
        Field("versions.*", "versions", "of Python and the main packages"),
        Field("platform", "name", "operating system and processor family"),
        Field("clock", "time", "this machine's clock"),
    ),
    "survey": (
        Field("tasks.*.card", "counts", _CARD, "counts"),
        Field("tasks.*.partition", "table", "patients and images by split and class; 1 to 4 are not told", "counts"),
        Field("tasks.*.digest", "keyed digest", "whether the data is the same as before; without this centre's key it cannot be tested "
              "for an image"),  # fmt: skip
        Field("tasks.*.notes", "sentences", "remarks on the data as a whole, such as copies in it", "counts"),
        Field("tasks.*.left_out", "counts", "how many images were left out, by reason; 1 to 4 are not told", "counts"),
        Field("tasks.*.seconds", "number", "how long it took"),
        Field("platform", "names", "versions, processor or GPU"),
        Field("device", "name", "cpu or GPU"),
        Field("precision", "names", "in which precision each model is fast here"),
    ),
    "train_generator": (
        *_card(),
        Field("history.*", "lists of numbers", "losses during training", "aggregate"),
    ),
    "feature_sums": (Field("images", "count", "how many training patches there are, exactly", "counts"),),
    "train_round": (*_COURSE, *_card("in the first answer")),
    "train_discriminator": (*_COURSE, *_card("in the first answer")),
    "measure_generator": (Field("distances.*", "numbers", "distance of synthetic images to the sums of all centres' images"),),
    "synthesise": (Field("counts.*", "counts", "how many synthetic images were drawn here"),),
    "learn": (
        *_LEARNED,
        Field("selected.*", "shares", "which generator's images helped here", "aggregate", "where an arm chooses"),
        Field("selection_scores.*", "numbers", "how much each helped, or its distance to this centre's images", "aggregate",
              "where an arm chooses"),
    ),  # fmt: skip
    "test": _TESTED,
    "train_classifier_round": _COURSE,
    "validate_classifier": (Field("val_auprc", "number", "AUPRC on this centre's validation images", "aggregate"),),
    "adopt_classifier": _LEARNED,
}  # fmt: skip
ARRAYS: Mapping[str, tuple[Field, ...]] = {
    "train_generator": (
        Field("weights.*", "weights", f"a generator of synthetic images; {_MEMORY}", "model"),
        Field("preview.*", "images", "synthetic images for the report, drawn from that generator", "model"),
    ),
    "feature_sums": (
        Field("*.*.count", "count", "how many images each half of the training patches has", "counts"),
        Field("*.*.sum", "vector", "sum of texture features over at least 5 images", "aggregate"),
        Field("*.*.outer", "matrix", "sum of their products over at least 5 images", "aggregate"),
    ),
    "train_round": (
        Field("weights.*", "weights", f"generator and discriminator after local steps; {_MEMORY}", "model"),
    ),
    "train_discriminator": (
        Field(
            "gradient.*",
            "gradients",
            "how synthetic images should change to look real to this centre's discriminator",
            "model",
        ),
        Field("scale.*", "numbers", "factors of those gradients", "model", "where they travel rounded"),
        Field(
            "discriminator.*",
            "weights",
            f"this centre's discriminator; {_MEMORY}",
            "model",
            "only where discriminators change places",
        ),
    ),
    "measure_generator": (Field("preview.*", "images", "synthetic images for the report"),),
    "learn": (_CLASSIFIER,),
    "train_classifier_round": (Field("weights.*", "weights", f"a classifier after local steps; {_MEMORY}", "model"),),
    "adopt_classifier": (_CLASSIFIER,),
}


def fields_of(kind: str) -> tuple[Field, ...]:
    """All that an answer of a kind may hold."""
    return (*ARRAYS.get(kind, ()), *BODY.get(kind, ()))


def undeclared(reply: Reply) -> str:
    """The first part of an answer that is not declared; empty where all are."""
    body = [_pattern(field.name) for field in BODY.get(reply.kind, ())]
    arrays = [_pattern(field.name) for field in ARRAYS.get(reply.kind, ())]
    for path in _paths(reply.body):
        if not any(pattern.fullmatch(path) for pattern in body):
            return path.rstrip("\0").replace("\0", ".")
    for name, array in reply.arrays.items():
        if not any(pattern.fullmatch(name.replace(".", "\0")) for pattern in arrays) or not isinstance(
            array, np.ndarray
        ):
            return name
    return ""


def _pattern(name: str) -> re.Pattern[str]:
    """A declared name as a pattern: it covers all that lies below it."""
    parts = "\0".join("[^\0]*" if part == "*" else re.escape(part) for part in name.split("."))
    return re.compile(parts + "(\0.*)?", re.DOTALL)


def _paths(value: Any, above: str = "") -> Iterator[str]:
    """Paths of all that is no mapping, parts joined by NUL: keys may hold points."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _paths(inner, f"{above}\0{key}" if above else str(key))
    elif isinstance(value, Mapping) and above:
        yield f"{above}\0"  # no part of what may be there
    elif above:
        yield above
