"""Measures as they leave a centre: two decimals below 1,000 test patients, three from there on.

Twelve digits of a measure say which of two weights ranks a single image higher. Two hide what few images change, and are what
so few patients can support.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from metrics.classification import METRICS, OF

_MANY = 1000


def shown_digits(patients: int) -> int:
    """Decimals of a share over so many patients, or significant digits of another number."""
    return 2 if patients < _MANY else 3


def shown_share(value: float, patients: int) -> float:
    """A value in [-1, 1], rounded; NaN stays."""
    return round(float(value), shown_digits(patients)) + 0.0  # no -0.0


def shown_shares(values: Iterable[float], patients: int) -> list[float]:
    """`shown_share` of each."""
    return [shown_share(value, patients) for value in values]


def shown_number(value: float, patients: int) -> float:
    """A value of any size, rounded to as many significant digits; NaN and infinity stay."""
    return float(f"{value:.{shown_digits(patients)}g}")


def shown_metrics(values: Mapping[str, float], patients: int) -> dict[str, float | None]:
    """Measures of a test set of so many patients, by name, as they travel; None where one is not defined: JSON has no NaN."""
    shown: dict[str, float | None] = {}
    for name, value in values.items():
        share = METRICS[name.partition(OF)[0]].unit == "share"
        shown[name] = None if math.isnan(value) else (shown_share if share else shown_number)(value, patients)
    return shown
