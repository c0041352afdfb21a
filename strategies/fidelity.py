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

from basics.seeds import derive_seed, rank
from data_partitions import DataError
from federation.wire.exchange import Exchange, gather
from federation.wire.job import Reply
from federation.wire.units import Units
from metrics.feature_spaces import FEATURE_SPACES
from metrics.frechet import FeatureSums, frechet_distance
from models import GeneratorSpec, Precision
from strategies.ask import Ask
from strategies.bodies import Body, Compute, OfTask
from strategies.centre_side import CentreSide, training_patches
from strategies.delivery import drawn
from strategies.keys import FidelityChoice, GenerativeArm
from strategies.kind import Answer, Array, Arrays, Field, Kind, Layout, Received, Sent
from strategies.layouts import PREVIEW, generator_layout, prefixed, preview_layout
from strategies.rounds import FederationFailed
from strategies.view import View, generator_key

HALVES = ("first", "second")
# Sums of a few images confine their features; below this a half is not sent.
FEWEST = 5
_BATCH = 512
_WEIGHTS, _REFERENCE = "weights.", "reference."


# -- local halves --------------------------------------------------------------------------------------


def sums_of_halves(images: np.ndarray, first: np.ndarray, spaces: Sequence[str]) -> dict[str, np.ndarray]:
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
    pixels, labels = drawn(spec, weights, per_class, seed=seed, device=device, precision=precision)
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


class FeatureSumsBody(OfTask):
    """Arguments of `own_sums`.

    Attributes:
        conditional: whether both classes count, or positives only.
        seed: of the halves.
    """

    conditional: bool
    seed: int
    spaces: tuple[str, ...]


def own_sums(here: CentreSide, body: FeatureSumsBody, arrays: Arrays) -> Answer:
    """Sums of features over two halves (by patient) of this centre's training patches.

    Raises:
        DataError: "too_few_to_measure".
    """
    patches = training_patches(here, body, body.conditional)
    patients = patches.table["patient"].to_numpy()
    order = sorted(set(patients.tolist()), key=lambda patient: rank(body.seed, "half", int(patient)))
    first = np.isin(patients, order[::2])
    fewest = min(int(first.sum()), int((~first).sum()))
    if body.spaces and fewest < FEWEST:
        raise DataError("too_few_to_measure", f"a half of the training patches has {fewest}", have=fewest, need=FEWEST)
    return {"images": len(patches)}, sums_of_halves(patches.uint8(), first, body.spaces)


class Measurement(Body):
    """Arguments of `measured`.

    Attributes:
        images: of each class.
        spaces: feature spaces of the reference.
        preview: whether the first images of each class are sent along.
    """

    generator: GeneratorSpec
    seed: int
    compute: Compute
    images: int
    spaces: tuple[str, ...]
    preview: bool


def measured(here: CentreSide, body: Measurement, arrays: Arrays) -> Answer:
    """Distance of a generator's images to a reference; with `preview` the first images of each class."""
    spec, compute = body.generator, body.compute
    groups: dict[str, Arrays] = {_WEIGHTS: {}, _REFERENCE: {}}
    for name, array in arrays.items():
        group, point, rest = name.partition(".")
        groups[group + point][rest] = array
    classes = (0, 1) if spec.conditional else (1,)
    distances, pixels, labels = measure(
        spec, groups[_WEIGHTS], groups[_REFERENCE], dict.fromkeys(classes, body.images), seed=body.seed,
        **compute.options,
    )  # fmt: skip
    if not body.preview:
        return {"distances": distances}, {}
    shown = np.concatenate([np.flatnonzero(labels == label)[:PREVIEW] for label in classes])
    return {"distances": distances}, {"preview.pixels": pixels[shown], "preview.labels": labels[shown]}


# -- kinds ---------------------------------------------------------------------------------------------


def _sums_layout(spaces: Sequence[str], ends: Sequence[str]) -> Layout:
    layout: dict[str, Array] = {}
    for space in spaces:
        dimensions = FEATURE_SPACES[space].dimensions
        for end in ends:
            layout[f"{space}{end}.count"] = Array((), "int64")
            layout[f"{space}{end}.sum"] = Array((dimensions,), "float64")
            layout[f"{space}{end}.outer"] = Array((dimensions * (dimensions + 1) // 2,), "float64")
    return layout


def _halves_layout(body: FeatureSumsBody) -> Layout:
    return _sums_layout(body.spaces, [f".{half}" for half in HALVES])


FEATURE_SUMS = Kind(
    name="feature_sums",
    title="sum up features",
    phase="share",
    body=FeatureSumsBody,
    work=own_sums,
    answer=(Field("images", "count", "how many training patches there are, exactly", "counts"),),
    sends=(
        Sent(
            "*.*.count",
            "count",
            "how many images each half of the training patches has",
            "counts",
            layout=_halves_layout,
        ),
        Sent("*.*.sum", "vector", "sum of texture features over at least 5 images", "aggregate", layout=_halves_layout),
        Sent("*.*.outer", "matrix", "sum of their products over at least 5 images", "aggregate", layout=_halves_layout),
    ),
)
MEASURE = Kind(
    name="measure_generator",
    title="measure a generator",
    phase="share",
    body=Measurement,
    work=measured,
    answer=(Field("distances.*", "numbers", "distance of synthetic images to the sums of all centres' images"),),
    sends=(
        Sent("preview.*", "images", "synthetic images for the report", layout=lambda body: preview_layout(body.generator, body.images),
             sent_if=lambda body: body.preview),
    ),
    receives=(
        Received("weights.*", lambda body: prefixed(generator_layout(body.generator), _WEIGHTS)),
        Received("reference.*", lambda body: prefixed(_sums_layout(body.spaces, ("",)), _REFERENCE)),
    ),
)  # fmt: skip


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
        choice: how often, with how many images, in which feature spaces.
        sums: what is asked of each member.
        measurements: what is asked of the centre that draws and measures: (on the way, at the end).
    """

    choice: FidelityChoice
    sums: tuple[Ask, ...]
    measurements: tuple[Ask, Ask]

    @property
    def asks(self) -> tuple[Ask, ...]:
        """All that measuring asks for."""
        return (*self.sums, *(ask for ask in self.measurements if ask.times))

    @property
    def identity(self) -> list[Any]:
        """What a result depends on."""
        return [self.choice.model_dump(mode="json"), self.measurements[0].json]

    def due(self, number: int, last: int) -> bool:
        """See `is_due`."""
        return is_due(self.choice, number, last)

    def reference(self, units: Units) -> Exchange[Reference]:
        """Ask all members for their sums.

        Raises:
            FederationFailed: a member does not answer.
        """
        jobs = [ask.job(units, label="features of real patches") for ask in self.sums]
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
        for space in self.choice.spaces:
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
        arrays = {_WEIGHTS + name: array for name, array in weights.items()}
        arrays |= {_REFERENCE + name: array for name, array in reference.arrays.items()}
        ask = self.measurements[preview]
        job = ask.job(units, inputs=[identity, *reference.units], arrays=arrays, label=label)
        (reply,) = yield from gather([job])
        found = reply.body.get("distances")
        wanted = {FEATURE_SPACES[space].distance for space in self.choice.spaces}
        if not reply.ok:
            raise FederationFailed(f"{label}: centre {reply.centre!r} could not measure it ({reply.code})")
        if not isinstance(found, dict) or set(found) != wanted or not all(isinstance(v, float) for v in found.values()):
            raise FederationFailed(f"{label}: centre {reply.centre!r} sent no distances")
        return reply


def planned_fidelity(
    view: View, strategy: str, name: str, arm: GenerativeArm, task: str, spec: GeneratorSpec, last: int
) -> Fidelity:
    """How an arm's generator is measured: against all members' training patches, at the first receiver.

    Args:
        last: rounds, or updates.
    """
    choice, at = arm.fidelity, (arm.receivers or view.receivers)[0]
    sums = []
    for centre in view.members(arm):
        fixed = view.data(centre, task) | {
            "conditional": arm.conditional, "seed": derive_seed(view.seed, f"halves/{task}", centre), "spaces": choice.spaces,
        }  # fmt: skip
        sums.append(Ask(FEATURE_SUMS, strategy, centre, task, fixed, same=f"{task}/{arm.conditional}/{choice.spaces}"))
    fixed = {
        "generator": spec, "seed": derive_seed(view.seed, f"fidelity/{task}", at),
        "compute": view.compute(at, generator_key(name, task)), "images": choice.images, "spaces": choice.spaces,
    }  # fmt: skip
    asks = [
        Ask(MEASURE, strategy, at, None, fixed | {"preview": preview}, times=times)
        for preview, times in ((False, sum(is_due(choice, number, last) for number in range(1, last))), (True, 1))
    ]
    return Fidelity(choice, tuple(sums), (asks[0], asks[1]))


def is_due(choice: FidelityChoice, number: int, last: int) -> bool:
    """Whether the generator is measured after round `number` of `last`; after the last it always is."""
    return number == last or (bool(choice.spaces) and number % choice.every == 0)
