"""A centre as the local half of a strategy sees it: its patches, its pools, a place for progress. No message, no path.

`clients` supplies it. In a simulation the same is played for all centres on one machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from data_partitions import PatchDataset
from data_partitions.small_counts import suppressed_count
from federation.secure_sum.member import SumMember
from models import PatchArrays, Precision
from strategies.bodies import OfTask, OwnData, Size

Progress = Callable[[int, int], None]
PrecisionSetting = Literal["fp32", "bf16", "auto"]


class CentreSide(Protocol):
    """What a job may use.

    Attributes:
        centre: its name.
        label: of the job, for people.
        deployed: whether this is a real node: noise is then drawn from its own entropy.
    """

    @property
    def centre(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def deployed(self) -> bool: ...

    def patches(self, body: OfTask) -> PatchDataset:
        """All patches of the body's task: made once, then opened from the cache."""

    def progress(self) -> Progress:
        """A callback (done, total) that shows the state of the job to people at this machine."""

    def read_pool(self, unit: str) -> tuple[np.ndarray, np.ndarray]:
        """Foreign images that an earlier job kept: stored images (n, c, h, w), memory-mapped, and int64 labels (n,).

        Raises:
            MissingInput: this centre does not hold them.
        """

    def write_pool(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        """Keep foreign images under the id of this job."""

    def sum_member(self, of: str, members: Sequence[str], number: int, session: str) -> SumMember:
        """This centre's half of a secure sum.

        Args:
            of: what is trained.
            members: those that may take part.
            number: of the round, from 0 on.
            session: of the attempt.

        Raises:
            ValueError: with a code; this centre has no key to sign with, or lists none of some member.
        """


class SurveySide(CentreSide, Protocol):
    """What the survey alone may use."""

    def make_patches(self, body: OwnData, task: Any) -> PatchDataset:
        """The patches of one task; what is wrong with the data is written down at the centre before it raises.

        Raises:
            DataError: with a code that may travel.
        """

    def digest_key(self) -> bytes:
        """Key of this centre's digests; never sent."""

    def device(self, setting: str) -> str:
        """ "cpu" or "cuda:0" for a setting."""

    def platform(self, device: str) -> str:
        """What decides the last bit of a result on this machine."""

    def precision(self, spec: Mapping[str, Any], device: str, setting: PrecisionSetting) -> Precision:
        """The precision in which a model is fast here."""

    def keep_pictures(self, name: str, images: np.ndarray) -> None:
        """A contact sheet of real patches, which stays here: stored images (n, c, h, w)."""


def as_arrays(patches: PatchDataset) -> PatchArrays:
    """The arrays that the training loops take."""
    return PatchArrays(patches.pixels, patches.index, patches.labels)


def training_patches(here: CentreSide, body: OfTask, labels: Sequence[int]) -> PatchDataset:
    """Training patches of the classes that a generative model makes."""
    return here.patches(body).select(split="train", labels=labels)


def receiver_patches(here: CentreSide, body: OfTask, size: Size, subset_seed: int) -> PatchDataset:
    """The training patches that take part in a classifier: a receiver's subset, all of a provider."""
    return here.patches(body).select(split="train").draw_fraction(size.fraction, size.images, subset_seed)


def trained_on(used: PatchDataset) -> dict[str, Any]:
    """How many boxes and patients a model saw, and of which classes; counts of 1 to 4 are suppressed."""
    counts: dict[str, Any] = {
        name: suppressed_count(int(used.table[column].nunique()))
        for name, column in (("boxes", "box"), ("patients", "patient"))
    }
    return counts | {"classes": [used.classes[label] for label in labels_in(used)]}


def labels_in(patches: PatchDataset) -> list[int]:
    """Labels that some of the patches have, ascending."""
    return np.unique(patches.labels).tolist()


def introduction(here: CentreSide, body: OfTask, own: PatchDataset, *, wanted: bool) -> dict[str, Any]:
    """What a centre says of itself in its first answer of a federation.

    Args:
        own: what the model sees.
    """
    if not wanted:
        return {}
    return {"data_card": here.patches(body).select(split="train").data_card(), "trained_on": trained_on(own)}


def joined(patches: PatchArrays, pools: Sequence[tuple[np.ndarray, np.ndarray]]) -> PatchArrays:
    """A selection with the images of pools behind it."""
    for pixels, labels in pools:
        own = patches.pixels[patches.rows]
        known = patches.labels if patches.labels is not None else np.ones(len(own), np.int64)
        together = np.concatenate([own, pixels])
        patches = PatchArrays(together, np.arange(len(together)), np.concatenate([known, labels]))
    return patches
