"""Measures of a binary classifier: labels and probabilities of the positive class in, one number out.

Class 1 is the positive class (lesion, or malignant). Decisions are taken at a probability of .5. A measure that needs
both classes is NaN where the test set has one only; `undefined` says why.

A new measure is a function and a line in `METRICS`: results, table and report follow from it.

The measures are written out, and tested against scikit-learn's. Importing `sklearn.metrics` takes 2.3 s of processor time,
`numpy` 0.2 s; a deployed centre would pay that with every job, because each job is a new process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

THRESHOLD = 0.5


@dataclass(frozen=True)
class Metric:
    """A measure; call it with (labels, probability), both (n,).

    Attributes:
        title: the heading of its column.
        higher_is_better: its direction.
        unit: "share" for a value in [0, 1], shown in percent; "number" for any other, shown as it is.
        needs_both_classes: NaN unless the labels hold both.
        chance: value of a classifier that knows nothing; None where it depends on the test set (AUPRC: the share of
            positives).
    """

    name: str
    title: str
    function: Callable[[np.ndarray, np.ndarray], float]
    needs_both_classes: bool
    chance: float | None
    higher_is_better: bool = True
    unit: Literal["share", "number"] = "share"

    def undefined(self, labels: np.ndarray) -> str | None:
        """Why the measure has no value on these labels, or None."""
        classes = np.unique(labels).tolist()
        if not classes:
            return "the test set is empty"
        if self.needs_both_classes and len(classes) < 2:
            return f"the test set holds class {classes[0]} only"
        return None

    def __call__(self, labels: np.ndarray, probability: np.ndarray) -> float:
        """The value; NaN where `undefined`.

        Raises:
            ValueError: unequal lengths, labels other than 0 and 1, or values outside [0, 1].
        """
        labels, probability = np.asarray(labels), np.asarray(probability, dtype=np.float64)
        if labels.shape != probability.shape or labels.ndim != 1:
            raise ValueError(f"labels {labels.shape} and probabilities {probability.shape} must both be (n,)")
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(f"labels must be 0 or 1, found {sorted(set(labels.tolist()) - {0, 1})[0]!r}")
        if not ((probability >= 0) & (probability <= 1)).all():
            raise ValueError("probabilities must lie in [0, 1]; found NaN or a value outside")
        return float("nan") if self.undefined(labels) else float(self.function(labels, probability))


def _decision(probability: np.ndarray) -> np.ndarray:
    return (probability >= THRESHOLD).astype(np.int64)


def accuracy(labels: np.ndarray, probability: np.ndarray) -> float:
    """Share of right decisions."""
    return float(np.mean(_decision(probability) == labels))


def balanced_accuracy(labels: np.ndarray, probability: np.ndarray) -> float:
    """Mean of sensitivity and specificity."""
    right = _decision(probability) == labels
    return float((right[labels == 1].mean() + right[labels == 0].mean()) / 2)


def f1(labels: np.ndarray, probability: np.ndarray) -> float:
    """Harmonic mean of precision and sensitivity of the positive class; 0 where nothing is found."""
    found = _decision(probability)
    return float(2 * np.sum(found * labels) / (found.sum() + labels.sum()))


def auroc(labels: np.ndarray, probability: np.ndarray) -> float:
    """Probability that a positive is ranked above a negative, ties counting half."""
    _, place, count = np.unique(probability, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # from 1, equal probabilities sharing their mean rank
    positives, negatives = np.sum(labels == 1), np.sum(labels == 0)
    return float((rank[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auprc(labels: np.ndarray, probability: np.ndarray) -> float:
    """Average precision of the positive class: precision at each threshold, weighted by the step of recall."""
    order = np.argsort(-probability, kind="stable")
    hits, ranked = np.cumsum(labels[order] == 1), probability[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # equal probabilities are one threshold
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", accuracy, needs_both_classes=False, chance=None),
        Metric("balanced_accuracy", "Balanced acc.", balanced_accuracy, needs_both_classes=True, chance=0.5),
        Metric("f1", "F1", f1, needs_both_classes=True, chance=None),
        Metric("auroc", "AUROC", auroc, needs_both_classes=True, chance=0.5),
        Metric("auprc", "AUPRC", auprc, needs_both_classes=True, chance=None),
    )
}
