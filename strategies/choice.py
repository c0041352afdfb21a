"""Which of several shared generators a receiver uses, and how much of each.

Paper 000 found that mixing two sources rarely beats the better one, and nobody knows beforehand which that is. The receiver
chooses on what it has: the distance of a generator's images to its own training patches, or the gain on its own
validation patches of a classifier trained with them. Test patches are never looked at. In a cell that learns from a part
of the receiver's patches only that part and the validation patches decide.

Distances did not predict utility in our trials (a generator may be near and teach nothing new), so both ways are offered, and
the report says what was chosen how often.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from data_partitions import DataError, PatchDataset
from data_partitions.small_counts import shown_count
from metrics.feature_spaces import FEATURE_SPACES, FeatureSpaceName
from metrics.frechet import FeatureSums, frechet_distance
from strategies.centre_side import FEWEST_PATIENTS, labels_in, one_of_each_patient
from strategies.kind import Body

# Images of a class on which a distance is taken at most: enough for a stable one, few enough to cost little.
_IMAGES = 512


class Choice(Body):
    """How generators are chosen; also a section of a scenario."""

    by: Literal["distance", "validation"] = Field(
        description="distance to the receiver's training patches, or gain on its validation patches (AUPRC)"
    )
    how: Literal["select", "weight"] = Field(
        "select", description="the best `keep` in equal parts, or all by 1 / distance or by their gain"
    )
    keep: int = Field(1, ge=1, description="generators that are selected")
    space: FeatureSpaceName = Field("texture", description="feature space of the distance")
    fewest_patients: int = Field(
        FEWEST_PATIENTS,
        ge=2,
        description="fewest patients of a class whose patches a distance is taken to; a hospital may want more",
    )


def own_images(train: PatchDataset, fewest: int) -> dict[int, np.ndarray]:
    """What distances are taken to: of each class with enough patients one patch of each, images (n, c, h, w) by label.

    Raises:
        DataError: "too_few_to_measure": no class has so many patients.
    """
    own = {label: one_of_each_patient(train.select(labels=(label,))) for label in labels_in(train)}
    enough = {label: patches.stored() for label, patches in own.items() if len(patches) >= fewest}
    if not enough:
        have = max(map(len, own.values()), default=0)
        raise DataError(
            "too_few_to_measure",
            f"no class has more than {have} patients, {fewest} wanted",
            have=shown_count(have),
            need=fewest,
        )
    return enough


def distances(
    own: Mapping[int, np.ndarray], pools: Mapping[str, Mapping[int, np.ndarray]], space: str
) -> dict[str, float]:
    """Fréchet distance of each pool to the receiver's own patches, as the mean over the classes that all of them have.

    Args:
        own, pools: images (n, c, h, w) by label, as they are stored.

    Raises:
        ValueError: no class has two images in every pool and at the receiver.
    """
    features = FEATURE_SPACES[space]
    # A distance needs two images a side; and only distances over the same classes can be compared.
    common = {label for label, images in own.items() if len(images) > 1}
    for classes in pools.values():
        common &= {label for label, images in classes.items() if len(images) > 1}
    if not common:
        raise ValueError(
            f"pools {', '.join(map(repr, pools))} and the receiver have no class with two images in common; no distance is defined"
        )
    mine = {label: FeatureSums.of(features(own[label][:_IMAGES])) for label in sorted(common)}
    return {
        source: float(np.mean([
            frechet_distance(mine[label], FeatureSums.of(features(classes[label][:_IMAGES]))) for label in mine
        ]))
        for source, classes in pools.items()
    }  # fmt: skip


def gains(sources: Mapping[str, object], auprc_with: Callable[[str | None], float]) -> dict[str, float]:
    """Gain on validation of each source over the receiver's own patches alone.

    Args:
        auprc_with: trains with one source (None: with none) and gives the validation AUPRC.
    """
    alone = auprc_with(None)
    return {source: auprc_with(source) - alone for source in sources}


def shares(choice: Choice, scores: Mapping[str, float]) -> dict[str, float]:
    """Share of each chosen source; they sum to one. None is chosen where no one gains on validation.

    Args:
        scores: distances, or gains.
    """
    if choice.by == "distance":
        ranked = sorted(scores, key=lambda source: (scores[source], source))
        worth = {source: 1.0 / max(scores[source], 1e-12) for source in ranked}
    else:
        ranked = sorted((s for s in scores if scores[s] > 0), key=lambda source: (-scores[source], source))
        worth = {source: scores[source] for source in ranked}
    if choice.how == "select":
        kept = ranked[: choice.keep]
        return {source: 1.0 / len(kept) for source in kept}
    total = sum(worth.values())
    return {source: value / total for source, value in worth.items()}


def counts(total: int, share_of: Mapping[str, float]) -> dict[str, int]:
    """`total` images divided by shares (largest remainder; equal remainders go to the name that comes first)."""
    exact = {source: total * share for source, share in share_of.items()}
    whole = {source: int(value) for source, value in exact.items()}
    left = total - sum(whole.values()) if whole else 0
    for source in sorted(exact, key=lambda s: (whole[s] - exact[s], s))[:left]:
        whole[source] += 1
    return whole
