"""How much an AUROC difference owes to the choice of test patients: a paired bootstrap over patients.

The spread over repeats does not contain it, since every repeat is tested on the same patients. Patients, not images,
are drawn with replacement (images of one patient are not independent), the same draw for both arms and all repeats.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

DRAWS = 1000


def weighted_auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC for each row of case weights; ties between the classes count one half.

    labels: 0 or 1 (n,); scores: float (n,); weights: float (draws, n), at least 0.
    Returns float64 (draws,); NaN where a class has no weight. Written out: scikit-learn's takes one row of weights at a time,
    and there are a thousand.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # first case of each distinct score
    positive = np.add.reduceat(weights[:, order] * (labels[order] == 1), starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * (labels[order] == 0), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    concordant = (positive * (below + negative / 2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return concordant / (positive.sum(axis=1) * negative.sum(axis=1))


def auroc_draws(predictions: pd.DataFrame, seed: int = 0) -> dict[int, np.ndarray]:
    """repeat -> AUROC float64 (DRAWS,) of one arm on one test set under resampled patients; of several classes their mean.

    predictions: rows of predictions.csv (repeat, case, patient, class, label, probability). The draws depend only on the
    test set and the seed, so those of two arms are paired. Empty when the test set has fewer than two patients or classes.
    """
    draws: dict[int, np.ndarray] = {}
    for repeat, table in predictions.groupby("repeat"):
        found = [_class_draws(own, seed) for _, own in table.groupby("class", sort=True) if own["label"].nunique() == 2]
        if not found or table["patient"].nunique() < 2:
            return {}
        # A draw may hold no patient of a rare class: the mean is over the others.
        draws[int(str(repeat))] = found[0] if len(found) == 1 else _mean_of_defined(np.stack(found))
    return draws


def _class_draws(table: pd.DataFrame, seed: int) -> np.ndarray:
    table = table.sort_values("case")
    patients, codes = np.unique(table["patient"], return_inverse=True)
    weights = _times_drawn(len(patients), seed)[:, codes]
    return weighted_auroc(table["label"].to_numpy(), table["probability"].to_numpy(), weights)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis without NaN; NaN where all are."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(axis=0) / defined.sum(axis=0)


@lru_cache(maxsize=4)  # the same for every arm and repeat
def _times_drawn(patients: int, seed: int) -> np.ndarray:
    """float32 (DRAWS, patients): small integers, so exact."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(patients, np.full(patients, 1 / patients), DRAWS).astype(np.float32)


def interval(arm: dict[int, np.ndarray], baseline: dict[int, np.ndarray]) -> tuple[float, float] | None:
    """95 % interval (2.5th to 97.5th percentile) of the mean difference over the repeats that both have, or None."""
    repeats = sorted(arm.keys() & baseline.keys())
    if not repeats:
        return None
    low, high = np.nanpercentile(np.mean([arm[r] - baseline[r] for r in repeats], axis=0), [2.5, 97.5])
    return float(low), float(high)
