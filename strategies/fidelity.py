"""How near a generator is to real images, measured while a federation trains it.

The reference is the real training patches of all members together: each sends sums of features (mean and covariance follow
from them; no image does), the server adds them up. A centre then draws images of the present generator and measures
their Fréchet distance to the reference. All series that are to be compared (the federation, each centre alone, the
central model) have the same reference and number of images.

A sum counts patients: one patch of each, so that nobody weighs more than another, and at least 20 in either half. A patch and
not the mean of a patient's patches, because means vary less than the images to which they are compared. Which patch, and which
half, follows from the patients alone and not from the study's seed: halves dealt in many ways are equations to be solved. So
many patients are taken that their number says no more than the rounded count; see docs/decisions/0014-rounded-counts.md.

The floor is the distance between one half of the real patches (by patient) and the other.

Longer than most files, because what is summed, both ways in which it travels, and what is compared with it stand together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from basics.seeds import rank
from data_partitions import DataError, PatchDataset
from data_partitions.small_counts import fewest_shown_alike, shown_count
from federation.secure_sum.fixed_point import sum_of, to_ring
from metrics.feature_spaces import FEATURE_SPACES
from metrics.frechet import FeatureSums, frechet_distance
from models import GeneratorSpec, Precision
from strategies.bodies import Body, Compute, OfTask
from strategies.centre_side import (
    CentreSide,
    boxes_as_weight,
    labels_in,
    one_of_each_patient,
    patients_in,
    training_patches,
)
from strategies.delivery import drawn
from strategies.kind import Answer, Answered, Array, Arrays, Count, Field, Kind, Layout, Received, Sent, Uses, Words
from strategies.layouts import PREVIEW, generator_layout, prefixed, preview_layout
from strategies.sums import SUMMED, Summed, in_sum, weight_layout

HALVES = ("first", "second")
_BATCH = 512
# Of the fraction of a feature in a secure sum. 28, as of weights, would shift distances by up to 4e-4 of them; 36 by 3e-6, and leaves
# sums of up to 3e7 at each of four centres (features are below 10).
RING_BITS = 36
_WEIGHTS, _REFERENCE = "weights.", "reference."


# -- local halves --------------------------------------------------------------------------------------


def sums_of_halves(images: np.ndarray, first: np.ndarray, spaces: Sequence[str]) -> dict[str, np.ndarray]:
    """A member's share of the reference: sums over two halves of its images.

    Args:
        images: as they are stored (n, c, h, w).
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
        labels: of the classes that count.
        fewest_patients: in a half; a centre may want more.
    """

    labels: tuple[int, ...]
    spaces: tuple[str, ...]
    fewest_patients: int


def own_sums(here: CentreSide, body: FeatureSumsBody, arrays: Arrays) -> Answer:
    """Sums of features over two halves of this centre's training patients, one patch of each.

    Raises:
        DataError: "too_few_to_measure"; a real centre also refuses sums that differ by a few patients from earlier ones.
    """
    patches = training_patches(here, body, body.labels)
    answer = {"images": boxes_as_weight(patches), "labels": labels_in(patches)}
    if not body.spaces:
        return answer, {}
    have, need = patients_in(patches), 2 * max(body.fewest_patients, here.fewest_patients)
    summed = fewest_shown_alike(have)
    if summed < need:
        text = f"the training patches are of {have} patients, of whom {summed} can be summed up"
        raise DataError("too_few_to_measure", text, have=shown_count(have), need=need)
    one_each = one_of_each_patient(patches)
    rows, first = _summed_rows(one_each, summed)
    rows, first, frozen = here.hold_cohort(one_each, rows, first)
    if frozen:
        answer["earlier_cohort"] = True
    return answer, sums_of_halves(one_each.stored(rows), first, body.spaces)


def _summed_rows(one_each: PatchDataset, summed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows of so many patients, which of them belong to the first half)."""
    patients = one_each.table["patient"].tolist()
    order = sorted(range(len(patients)), key=lambda row: rank(0, "half", int(patients[row])))[:summed]
    rows = np.sort(np.array(order, dtype=int))
    return rows, np.isin(rows, order[::2])


def _halves(patches: PatchDataset, body: FeatureSumsBody) -> list[PatchDataset]:
    one_each = one_of_each_patient(patches.select(split="train", labels=body.labels))
    rows, first = _summed_rows(one_each, fewest_shown_alike(patients_in(one_each)))
    return [replace(one_each, index=one_each.index[part]) for part in (rows[first], rows[~first])]


class SummedFeaturesBody(FeatureSumsBody, Summed):
    """The same, where answers are summed.

    Attributes:
        round: 0, the only one.
        attempt: how often it was asked for before.
    """

    round: int
    attempt: int


def own_sums_in_sum(here: CentreSide, body: SummedFeaturesBody, arrays: Arrays) -> Answer:
    """The same sums, of which only those over all centres can be read."""
    answer, sums = own_sums(here, body, arrays)
    numbers = {name: np.asarray(array, np.float64) for name, array in sums.items()}
    return answer, in_sum(here, body, to_ring(numbers, 1, len(body.sum_members), RING_BITS))


def from_ring(total: Arrays) -> dict[str, np.ndarray]:
    """Sums over all centres, as one centre would send its own."""
    return {
        name: np.asarray(np.rint(array)).astype(np.int64) if name.endswith(".count") else array
        for name, array in sum_of(total, RING_BITS).items()
    }


class Measurement(Body):
    """Arguments of `measured`.

    Attributes:
        images: of each class.
        labels: of the classes.
        spaces: feature spaces of the reference.
        preview: whether the first images of each class are sent along.
    """

    generator: GeneratorSpec
    seed: int
    compute: Compute
    images: int
    labels: tuple[int, ...]
    spaces: tuple[str, ...]
    preview: bool


def measured(here: CentreSide, body: Measurement, arrays: Arrays) -> Answer:
    """Distance of a generator's images to a reference; with `preview` the first images of each class."""
    spec, compute = body.generator, body.compute
    groups: dict[str, Arrays] = {_WEIGHTS: {}, _REFERENCE: {}}
    for name, array in arrays.items():
        group, point, rest = name.partition(".")
        groups[group + point][rest] = array
    distances, pixels, labels = measure(
        spec, groups[_WEIGHTS], groups[_REFERENCE], dict.fromkeys(body.labels, body.images), seed=body.seed,
        **compute.options,
    )  # fmt: skip
    if not body.preview:
        return {"distances": distances}, {}
    shown = np.concatenate([np.flatnonzero(labels == label)[:PREVIEW] for label in body.labels])
    return {"distances": distances}, {"preview.pixels": pixels[shown], "preview.labels": labels[shown]}


class SumsAnswer(Answered):
    """What is answered beside sums of features."""

    images: Count
    labels: list[int]
    earlier_cohort: bool = False


class MeasuredAnswer(Answered):
    """Distances of a generator."""

    distances: dict[Words, float]


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


def summed_features_layout(body: FeatureSumsBody) -> Layout:
    """The same in a secure sum."""
    return {name: Array(array.shape, "uint64") for name, array in _halves_layout(body).items()}


def _halves_layout(body: FeatureSumsBody) -> Layout:
    return _sums_layout(body.spaces, [f".{half}" for half in HALVES])


FEATURE_SUMS = Kind(
    name="feature_sums",
    title="sum up features",
    phase="share",
    body=FeatureSumsBody,
    work=own_sums,
    answer=(
        Field("images", "count", "how many training boxes there are, rounded to 5", "counts"),
        Field("labels", "numbers", "classes of which there is a training patch", "counts"),
        Field(
            "earlier_cohort",
            "yes",
            "fewer than 20 patients came since an earlier sum, which is made again",
            "counts",
            when="only then",
        ),
    ),
    answer_model=SumsAnswer,
    sends=(
        Sent(
            "*.*.count",
            "count",
            "how many patients each half of the training patches has; together a multiple of 5, less 2",
            "counts",
            layout=_halves_layout,
        ),
        Sent(
            "*.*.sum",
            "vector",
            "sum of texture features, one image of each of at least 20 patients",
            "aggregate",
            layout=_halves_layout,
        ),
        Sent("*.*.outer", "matrix", "sum of their products over the same patients", "aggregate", layout=_halves_layout),
    ),
    reveals="Sums and products of features of each half. Over few patients they come close to the features of single images, and two "
    "sums that differ by a patient give that patient's.",
    uses=(Uses("sum", _halves, lambda body: bool(body.spaces)),),
)
SUMMED_FEATURES = Kind(
    name="feature_secure_sums",
    title="sum up features in a secure sum",
    phase="share",
    body=SummedFeaturesBody,
    work=own_sums_in_sum,
    answer=FEATURE_SUMS.answer,
    answer_model=SumsAnswer,
    masked=lambda body: body.masked,
    sends=(
        Sent("*.*.*", "masked sums", f"counts, sums and products of texture features of each half: {SUMMED}", "aggregate",
             layout=summed_features_layout),
        Sent("weight", "masked count", f"1 for each centre: {SUMMED}", layout=weight_layout),
    ),
    reveals="Sums and products of features of each half, over the patients of all centres together. A coordinator that owns all but one of "
    "them reads that one's.",
    uses=FEATURE_SUMS.uses,
)  # fmt: skip
MEASURE = Kind(
    name="measure_generator",
    title="measure a generator",
    phase="share",
    body=Measurement,
    work=measured,
    answer=(Field("distances.*", "numbers", "distance of synthetic images to the sums of all centres' images"),),
    answer_model=MeasuredAnswer,
    sends=(
        Sent("preview.*", "images", "synthetic images for the report", layout=lambda body: preview_layout(body.generator, body.images),
             sent_if=lambda body: body.preview),
    ),
    receives=(
        Received("weights.*", lambda body: prefixed(generator_layout(body.generator), _WEIGHTS)),
        Received("reference.*", lambda body: prefixed(_sums_layout(body.spaces, ("",)), _REFERENCE)),
    ),
)  # fmt: skip
