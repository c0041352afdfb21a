"""How near a generator is to real images, measured while a federation trains it.

The reference is the real training patches of all members together: each sends sums of features (mean and covariance follow
from them; no image does), the server adds them up. A centre then draws images of the present generator and measures
their Fréchet distance to the reference. All series that are to be compared (the federation, each centre alone, the
central model) have the same reference and number of images.

The floor is the distance between one half of the real patches (by patient) and the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from federation.wire.exchange import Exchange, gather
from federation.wire.job import Reply
from federation.wire.units import Units
from metrics.feature_spaces import FEATURE_SPACES
from metrics.frechet import FeatureSums, frechet_distance
from models import GeneratorSpec, Precision
from strategies.one_shot import synthesise
from strategies.rounds import FederationFailed

HALVES = ("first", "second")
# Sums of a few images confine their features; below this a half is not sent.
FEWEST = 5
_BATCH = 512
# Images of each class that the last measurement sends along for the report.
PREVIEW = 32


# -- local halves --------------------------------------------------------------------------------------


def feature_sums(images: np.ndarray, first: np.ndarray, spaces: Sequence[str]) -> dict[str, np.ndarray]:
    """A member's share of the reference: sums over two halves of its images.

    Args:
        images: uint8 (n, c, h, w).
        first: bool (n,), which belong to the first half.
    """
    arrays: dict[str, np.ndarray] = {}
    for space in spaces:
        for half, chosen in zip(HALVES, (first, ~first), strict=True):
            sums = _sums(images[chosen], space)
            arrays |= sums.to_arrays(f"{space}.{half}")
    return arrays


def measure(
    spec: GeneratorSpec, weights: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], per_class: Mapping[int, int],
    *, seed: int, device: str, precision: Precision,
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:  # fmt: skip
    """Distance of a generator's images to a reference, by name of the metric; the images and their labels."""
    pixels, labels = synthesise(spec, weights, per_class, seed=seed, device=device, precision=precision)
    spaces = {name.split(".")[0] for name in reference}
    distances = {
        FEATURE_SPACES[space].distance: frechet_distance(
            _sums(pixels, space), FeatureSums.from_arrays(reference, space)
        )
        for space in sorted(spaces)
    }
    return distances, pixels, labels


def _sums(images: np.ndarray, space: str) -> FeatureSums:
    parts = [images[start : start + _BATCH] for start in range(0, max(1, len(images)), _BATCH)]
    return sum_up([FeatureSums.of(FEATURE_SPACES[space](part)) for part in parts])


def sum_up(parts: Sequence[FeatureSums]) -> FeatureSums:
    """Sums over the union, added in order."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


# -- server half ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """Real images of all members, as sums.

    Attributes:
        arrays: sums by feature space.
        floors: distance between the halves, by metric.
        images: training patches of each member.
        units: ids of what it was made from.
    """

    arrays: dict[str, np.ndarray]
    floors: dict[str, float]
    images: dict[str, int]
    units: tuple[str, ...]


@dataclass(frozen=True)
class Fidelity:
    """What is measured of a federation, and where.

    Attributes:
        every: rounds between two measurements; the last round is always measured.
        images: generated images of each class that is made.
        spaces: names of `metrics.FEATURE_SPACES`.
        bodies: by member: data, task and what else `feature_sums` needs.
        task: of the data.
        measured_at: the centre that draws and measures.
        body: what it needs: generator, seed, compute.
    """

    every: int
    images: int
    spaces: tuple[str, ...]
    bodies: Mapping[str, dict[str, Any]]
    task: str
    measured_at: str
    body: dict[str, Any]

    def due(self, number: int, last: int) -> bool:
        """Whether the generator is measured after round `number` of `last`."""
        return number == last or (bool(self.spaces) and number % self.every == 0)

    def reference(self, units: Units) -> Exchange[Reference]:
        """Ask all members for their sums.

        Raises:
            FederationFailed: a member does not answer.
        """
        jobs = [
            units.job(
                "feature_sums", centre, self.task, body | {"spaces": list(self.spaces)}, label="features of real patches"
            )
            for centre, body in self.bodies.items()
        ]  # fmt: skip
        replies = yield from gather(jobs)
        bad = [reply for reply in replies if not reply.ok]
        if bad:
            raise FederationFailed(f"centre {bad[0].centre!r} did not send sums of features ({bad[0].code})")
        try:
            return self._reference(replies)
        except (KeyError, TypeError, ValueError) as problem:
            raise FederationFailed(f"sums of features cannot be used: {problem}") from None

    def _reference(self, replies: Sequence[Reply]) -> Reference:
        arrays: dict[str, np.ndarray] = {}
        floors: dict[str, float] = {}
        for space in self.spaces:
            halves = [
                sum_up([FeatureSums.from_arrays(r.arrays, f"{space}.{half}") for r in replies]) for half in HALVES
            ]
            arrays |= (halves[0] + halves[1]).to_arrays(space)
            floors[FEATURE_SPACES[space].distance] = frechet_distance(*halves)
        images = {reply.centre: int(reply.body["images"]) for reply in replies}
        return Reference(arrays, floors, images, tuple(reply.unit for reply in replies))

    def measurement(self, units: Units, reference: Reference, identity: str, weights: Mapping[str, np.ndarray],
                    *, preview: bool, label: str) -> Exchange[Reply]:  # fmt: skip
        """Have a generator measured; with `preview` the reply holds some of its images.

        Raises:
            FederationFailed: it was not.
        """
        body = self.body | {"images": self.images, "preview": preview}
        arrays = {f"weights.{k}": v for k, v in weights.items()} | {
            f"reference.{k}": v for k, v in reference.arrays.items()
        }
        job = units.job(
            "measure_generator",
            self.measured_at,
            None,
            body,
            inputs=[identity, *reference.units],
            arrays=arrays,
            label=label,
        )
        (reply,) = yield from gather([job])
        found = reply.body.get("distances")
        wanted = {FEATURE_SPACES[space].distance for space in self.spaces}
        if not reply.ok:
            raise FederationFailed(f"{label}: centre {reply.centre!r} could not measure it ({reply.code})")
        if not isinstance(found, dict) or set(found) != wanted or not all(isinstance(v, float) for v in found.values()):
            raise FederationFailed(f"{label}: centre {reply.centre!r} sent no distances")
        return reply
