"""How many real images a centre's discriminator sees until the shared generator is as good as one of pooled data.

Carrasco Limeros et al. (2022, paper 002) report that in a federation of three hospitals the smallest one "converges
around 1.6 times faster", reaching an FID similar to that of the central model, and do not define it. Here a centre has
converged at the *first crossing*: the first point at which the distance to real images, joined by straight lines
between the measured rounds, is at most the *target*, the last measured value of the model trained on pooled data. A
later rise above the target does not undo it. The ratio is the images seen by the centre training alone over those seen
in the federation: above 1, the federation was faster.

What was not measured is not guessed. A curve that is below the target at its first measured round crossed it somewhere
before, one that never comes down to it may do so later; both give bounds, and ratios inherit them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.study import Study

PAPER_RATIO = 1.6
# In the order in which they are shown; others, by name, after them. A line does not break at this hyphen.
MEASURES = {
    "fd_texture": "FD\N{NON-BREAKING HYPHEN}Texture",
    "fd_randnet": "FD\N{NON-BREAKING HYPHEN}RandNet",
}


@dataclass(frozen=True)
class Bounds:
    """A number that lies in [low, high]; exact where they are equal, not bounded above where `high` is infinite."""

    low: float
    high: float

    @property
    def exact(self) -> bool:
        return self.low == self.high

    @property
    def reached(self) -> bool:
        return math.isfinite(self.high)


UNKNOWN = Bounds(0.0, math.inf)


@dataclass(frozen=True)
class Convergence:
    """One centre of one federated arm against the target. None: that series was not measured, or there is no target."""

    arm: str
    task: str
    metric: str
    centre: str
    central_arm: str  # "" when the record has none
    target: float  # NaN likewise
    floor: float
    final: float  # last value of the federation
    federation: Bounds | None  # images seen
    alone: Bounds | None  # images seen
    seconds: Bounds | None  # simulated seconds of the federation

    @property
    def ratio(self) -> Bounds:
        """Images seen alone over images seen in the federation."""
        if self.federation is None or self.alone is None:
            return UNKNOWN
        return quotient(self.alone, self.federation)


def first_crossing(x: Sequence[float], values: Sequence[float], target: float) -> Bounds | None:
    """Where a falling curve first is at most `target`, by straight lines between its points.

    x, values: (n,); points are ordered by x, equal ones kept in the order given; a point that is not finite in both is
    left out. None without any point or without a target. [0, x] for a curve whose first point is there already, [x,
    infinity] with the last x for one that never gets there.
    """
    points = sorted(
        ((float(a), float(v)) for a, v in zip(x, values, strict=True) if math.isfinite(a) and math.isfinite(v)),
        key=lambda point: point[0],
    )
    if not points or math.isnan(target):
        return None
    first = next((i for i, (_, v) in enumerate(points) if v <= target), None)
    if first is None:
        return Bounds(points[-1][0], math.inf)
    end, below = points[first]
    if first == 0:
        return Bounds(0.0, end)
    start, above = points[first - 1]
    at = start + (end - start) * (above - target) / (above - below)
    return Bounds(at, at)


def quotient(numerator: Bounds, denominator: Bounds) -> Bounds:
    """Bounds of the ratio of two numbers of at least 0; a division by exactly zero has no bound."""
    low = numerator.low / denominator.high if denominator.high > 0 else 0.0
    high = numerator.high / denominator.low if denominator.low > 0 else math.inf
    return Bounds(low, high)


@dataclass(frozen=True)
class _Curve:
    """One centre in one series: its rows of convergence.csv in the order of rounds, column by column."""

    images: tuple[float, ...]
    seconds: tuple[float, ...]
    values: tuple[float, ...]
    floors: tuple[float, ...]


_NOTHING = _Curve((), (), (), ())
# Arm, task, metric, series, centre.
_Key = tuple[str, str, str, str, str]


def convergences(table: pd.DataFrame, study: Study) -> list[Convergence]:
    """Every federated arm, task, metric and centre of convergence.csv, arms and centres in the scenario's order."""
    curves = _curves(table)
    wanted = dict.fromkeys(key[:3] for key in curves if key[3] == "federation")
    targets = {of: central_target(curves, study, *of) for of in wanted}
    found = []
    for (arm, task, metric, series, centre), curve in curves.items():
        if series != "federation":
            continue
        central, target = targets[arm, task, metric]
        alone = curves.get((arm, task, metric, "alone", centre), _NOTHING)
        found.append(
            Convergence(
                arm, task, metric, centre, central, target,
                floor=_last(curve.floors),
                final=_last(curve.values),
                federation=first_crossing(curve.images, curve.values, target),
                alone=first_crossing(alone.images, alone.values, target),
                seconds=first_crossing(curve.seconds, curve.values, target),
            )
        )  # fmt: skip
    arms, centres, metrics = _places(study.arms), _places(study.centres), _places(MEASURES)

    def order(c: Convergence) -> tuple[int | str, ...]:
        arm, metric, centre = (
            arms.get(c.arm, len(arms)),
            metrics.get(c.metric, len(metrics)),
            centres.get(c.centre, len(centres)),
        )
        return arm, c.arm, c.task, metric, c.metric, centre, c.centre

    return sorted(found, key=order)


def central_target(curves: Mapping[_Key, _Curve], study: Study, arm: str, task: str, metric: str) -> tuple[str, float]:
    """(arm of the central model, its last value) that `arm` is measured against; ("", NaN) without one.

    Among several central models the first, in the scenario's order, that is of the same `model` as the arm; without
    such, the first.
    """
    settings = study.settings.get("arms") or {}
    order = _places(study.arms)
    central = {key[0]: curve for key, curve in curves.items() if key[1:4] == (task, metric, "central")}
    if not central:
        return "", math.nan
    names = sorted(central, key=lambda name: (order.get(name, len(order)), name))
    model = (settings.get(arm) or {}).get("model")
    name = next((n for n in names if (settings.get(n) or {}).get("model") == model), names[0])
    return name, _last(central[name].values)


def smallest_centre(sizes: dict[str, int], centres: Sequence[str]) -> str | None:
    """The one of `centres` with the fewest images, the first of equals; None unless all sizes are known."""
    if not centres or any(centre not in sizes for centre in centres):
        return None
    return min(centres, key=lambda centre: sizes[centre])


def _curves(table: pd.DataFrame) -> dict[_Key, _Curve]:
    rows: dict[_Key, list[tuple[float, ...]]] = {}
    table = table.sort_values(["round", "images_seen"])
    keys = zip(*(table[name].astype(str) for name in ("arm", "task", "metric", "series", "centre")), strict=True)
    numbers = zip(*(table[name].astype(float) for name in ("images_seen", "virtual_s", "value", "floor")), strict=True)
    for key, row in zip(keys, numbers, strict=True):
        rows.setdefault(key, []).append(row)
    return {key: _Curve(*zip(*own, strict=True)) for key, own in rows.items()}


def _last(values: Sequence[float]) -> float:
    return next((v for v in reversed(values) if math.isfinite(v)), math.nan)


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(names)}
