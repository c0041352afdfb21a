"""A metric: the Brier score, the mean over images of the squared error of all classes' probabilities (Brier 1950).

Halved for two classes, so that it is the squared error of the second one's probability: 0 is perfect, .25 is a constant .5.
"""

from __future__ import annotations

import numpy as np

from metrics import Metric


def brier(labels: np.ndarray, probability: np.ndarray) -> float:
    """Labels (n,) from 0 on and probabilities (n, classes)."""
    classes = probability.shape[1]
    error = np.sum((probability - np.eye(classes)[labels]) ** 2, axis=1)
    return float(np.mean(error)) / (2 if classes == 2 else 1)


BRIER = Metric("brier", "Brier score", brier, needs_two_classes=False, higher_is_better=False, unit="number")
