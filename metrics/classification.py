"""Measures of a classifier: labels and probabilities of the classes in, one number out.

Of two classes, class 1 is the positive one (lesion, or malignant), decisions are taken at a probability of .5, and measures
are those of the positive class. Of more classes the most probable one is decided for, and measures are means over classes
("macro"): AUROC and AUPRC of each class against all others, over the classes that the test set holds. A measure that needs two
classes is NaN where the test set has one only; `undefined` says why.

A new measure is a `Metric` and a line in `_BUILTIN`: results, table and report follow from it.

The measures are written out, and tested against scikit-learn's. Importing `sklearn.metrics` takes 2.3 s of processor time,
`numpy` 0.2 s; a deployed centre would pay that with every job, because each job is a new process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from basics.plugins import Table, instance_of

THRESHOLD = 0.5
# Between the name of a measure and that of the class that it is about.
OF = "."


@dataclass(frozen=True)
class Metric:
    """A measure; call it with (labels, probability).

    Attributes:
        title: the heading of its column.
        function: (labels (n,), probability (n, classes)) -> number. None: the mean of `of_class` over classes.
        of_class: (whether an image shows the class, 0 or 1 (n,), probability of it (n,)) -> number, for measures of one class
            against all others. Of more than two classes it is given for each class, too.
        higher_is_better: its direction.
        unit: "share" for a value in [0, 1], shown in percent; "number" for any other, shown as it is.
        needs_two_classes: NaN unless the labels hold two.
    """

    name: str
    title: str
    function: Callable[[np.ndarray, np.ndarray], float] | None = None
    of_class: Callable[[np.ndarray, np.ndarray], float] | None = None
    needs_two_classes: bool = True
    higher_is_better: bool = True
    unit: Literal["share", "number"] = "share"

    def undefined(self, labels: np.ndarray) -> str | None:
        """Why the measure has no value on these labels, or None."""
        classes = np.unique(labels).tolist()
        if not classes:
            return "the test set is empty"
        if self.needs_two_classes and len(classes) < 2:
            return f"the test set holds class {classes[0]} only"
        return None

    def __call__(self, labels: np.ndarray, probability: np.ndarray) -> float:
        """The value; NaN where `undefined`.

        Args:
            labels: (n,), from 0 on.
            probability: (n, classes), or (n,) of class 1 of two.

        Raises:
            ValueError: unequal lengths, a label without a probability, or values outside [0, 1].
        """
        labels, probability = checked(labels, probability)
        if self.undefined(labels):
            return math.nan
        if self.function is not None:
            return float(self.function(labels, probability))
        values = [self.value_of(label, labels, probability) for label in scored(probability.shape[1])]
        defined = [value for value in values if not math.isnan(value)]
        return math.fsum(defined) / len(defined) if defined else math.nan

    def value_of(self, label: int, labels: np.ndarray, probability: np.ndarray) -> float:
        """The measure of one class against all others; NaN where the test set holds no image of it, or no other.

        Args:
            labels, probability: as `checked` returns them.
        """
        assert self.of_class is not None, f"{self.name} is no measure of one class"
        shown = (labels == label).astype(np.int64)
        if not 0 < shown.sum() < len(shown):
            return math.nan
        return float(self.of_class(shown, probability[:, label]))


def checked(labels: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and probabilities float64 (n, classes).

    Raises:
        ValueError: as for `Metric.__call__`.
    """
    labels, probability = np.asarray(labels), np.asarray(probability, dtype=np.float64)
    if probability.ndim == 1:
        probability = np.stack([1 - probability, probability], axis=1)
    if labels.ndim != 1 or probability.ndim != 2 or len(labels) != len(probability):
        raise ValueError(f"labels {labels.shape} and probabilities {probability.shape} must be (n,) and (n, classes)")
    classes = probability.shape[1]
    if len(labels) and not np.isin(labels, np.arange(classes)).all():
        raise ValueError(
            f"labels must be 0 to {classes - 1}, found {sorted(set(labels.tolist()) - {*range(classes)})[0]!r}"
        )
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]; found NaN or a value outside")
    return labels, probability


def scored(classes: int) -> Sequence[int]:
    """Labels of which the mean is taken: of two classes the positive one alone, of more all."""
    return (1,) if classes == 2 else range(classes)


def decided(probability: np.ndarray) -> np.ndarray:
    """The class that each image is taken for (n,)."""
    if probability.shape[1] == 2:
        return (probability[:, 1] >= THRESHOLD).astype(np.int64)
    return probability.argmax(axis=1)


def accuracy(labels: np.ndarray, probability: np.ndarray) -> float:
    """Share of right decisions."""
    return float(np.mean(decided(probability) == labels))


def balanced_accuracy(labels: np.ndarray, probability: np.ndarray) -> float:
    """Mean over the classes of the test set of the share that is found; of two, of sensitivity and specificity."""
    right = decided(probability) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def f1(labels: np.ndarray, probability: np.ndarray) -> float:
    """Harmonic mean of precision and sensitivity; 0 where nothing is found. Mean over classes that are there or decided for."""
    found = decided(probability)
    there = [label for label in scored(probability.shape[1]) if (labels == label).any() or (found == label).any()]
    return float(np.mean([_f1(found == label, labels == label) for label in there]))


def _f1(found: np.ndarray, shown: np.ndarray) -> float:
    return float(2 * np.sum(found & shown) / (found.sum() + shown.sum()))


def auroc(labels: np.ndarray, probability: np.ndarray) -> float:
    """Probability that a positive is ranked above a negative, ties counting half."""
    _, place, count = np.unique(probability, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # from 1, equal probabilities sharing their mean rank
    positives, negatives = np.sum(labels == 1), np.sum(labels == 0)
    return float((rank[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auprc(labels: np.ndarray, probability: np.ndarray) -> float:
    """Average precision: precision at each threshold, weighted by the step of recall."""
    order = np.argsort(-probability, kind="stable")
    hits, ranked = np.cumsum(labels[order] == 1), probability[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # equal probabilities are one threshold
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


_BUILTIN: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", accuracy, needs_two_classes=False),
        Metric("balanced_accuracy", "Balanced acc.", balanced_accuracy),
        Metric("f1", "F1", f1),
        Metric("auroc", "AUROC", of_class=auroc),
        Metric("auprc", "AUPRC", of_class=auprc),
    )
}
# The built-in ones are measured in every study; one of a plug-in where `study.metrics` names it.
METRICS: Table[Metric] = Table("metrics", _BUILTIN, instance_of(Metric, named=lambda metric: metric.name))


def measure(
    labels: np.ndarray, probability: np.ndarray, classes: Sequence[str], more: Sequence[str] = ()
) -> dict[str, float]:
    """All measures of a test set by name; of more than two classes also those of each class, such as "auroc.mel".

    Args:
        probability: (n, classes).
        classes: their names.
        more: names of metrics of plug-ins, measured beside those of every study.
    """
    labels, probability = checked(labels, probability)
    found = {name: metric(labels, probability) for name, metric in _measured(more).items()}
    for name, label in _of_each_class(classes, more):
        found[name + OF + classes[label]] = METRICS[name].value_of(label, labels, probability)
    return found


def measured_names(classes: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """The names that `measure` gives values to, in its order."""
    return [*_measured(more), *(name + OF + classes[label] for name, label in _of_each_class(classes, more))]


def _measured(more: Sequence[str]) -> dict[str, Metric]:
    return METRICS.builtin | {name: METRICS[name] for name in more}


def _of_each_class(classes: Sequence[str], more: Sequence[str]) -> list[tuple[str, int]]:
    if len(classes) == 2:
        return []
    return [
        (name, label) for name, metric in _measured(more).items() if metric.of_class for label in range(len(classes))
    ]


def selection_score(labels: np.ndarray, probability: np.ndarray) -> float:
    """By what a classifier is chosen on validation images: AUPRC, of more than two classes the mean over those there."""
    return METRICS["auprc"](labels, probability)
