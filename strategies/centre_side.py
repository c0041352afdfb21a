"""A centre as the local half of a strategy sees it: its patches, its pools, a place for progress. No message, no path.

`clients` supplies it. In a simulation the same is played for all centres on one machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np

from basics.seeds import rank
from data_partitions import PatchDataset
from data_partitions.small_counts import shown_count, shown_total, shown_weight
from federation.secure_sum.member import SumMember
from metrics import shown_share, shown_shares
from models import PatchArrays, Precision
from strategies.bodies import OfTask, OwnData, Size

Progress = Callable[[int, int], None]
# (images of each class, what for) -> stored images (n, c, h, w) and their int64 labels (n,)
Draw = Callable[[int, str], tuple[np.ndarray, np.ndarray]]
# Of whom features may be summed up: in each half of a sum, and of each class of a distance.
FEWEST_PATIENTS = 20
PrecisionSetting = Literal["fp32", "bf16", "auto"]


class CentreSide(Protocol):
    """What a job may use.

    Attributes:
        centre: its name.
        label: of the job, for people.
        deployed: whether this is a real node: noise is then drawn from its own entropy.
        fewest_patients: the fewest over which features may be summed up or compared; 0 in a simulation, where the scenario
            alone says it.
    """

    @property
    def centre(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def deployed(self) -> bool: ...
    @property
    def fewest_patients(self) -> int: ...

    def hold_cohort(
        self, one_each: PatchDataset, rows: np.ndarray, first: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Called before sums over patients leave: a real centre sums up those of an earlier sum, if fewer than 20 have come since.

        Args:
            one_each: one patch of each patient.
            rows: those to be summed up; first: bool, which of these belong to the first half.

        Returns:
            both as they are to be, and whether they are those of an earlier sum.
        """

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

    def check_copies(self, own: PatchDataset, draw: Draw, preview: np.ndarray, labels: np.ndarray) -> None:
        """Keep a generator here whose images are near copies of the patches that it learned from.

        Args:
            draw: so many images of each class, for a purpose.
            preview: images of it that would leave, as they are stored (n, c, h, w), with their labels.

        Raises:
            ValueError: "near_copies"; never in a simulation, where nothing leaves.
        """

    def sign(self, what: str, about: Sequence[Any], arrays: Mapping[str, np.ndarray]) -> str:
        """This centre's signature on arrays that another one is to take over through the server; empty in a simulation.

        Args:
            what: the arrays are, e.g. "a classifier".
            about: what else holds for them; JSON.
        """

    def verify(
        self, centre: str, what: str, about: Sequence[Any], arrays: Mapping[str, np.ndarray], signature: str
    ) -> None:
        """Check another centre's signature; a simulation has none.

        Raises:
            ValueError: "not_signed".
        """

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
    """How many boxes and patients a model saw, and of which classes; the boxes are the total of those that the data card shows."""
    return {
        "boxes": shown_total(n for labels in used.counts().values() for n in labels.values()),
        "patients": shown_count(used.table["patient"].nunique()),
        "classes": [used.classes[label] for label in labels_in(used)],
    }


def boxes_as_weight(patches: PatchDataset) -> int:
    """How many boxes there are, as a number to compute with that may leave: rounded by split and class, at least 5.

    Boxes and not crops, of which there are several in each: their rounded number would give the exact number of boxes.
    """
    shown = shown_total(n for labels in patches.counts().values() for n in labels.values())
    return shown_weight(0) if isinstance(shown, str) else shown


def one_of_each_patient(patches: PatchDataset) -> PatchDataset:
    """One patch of each patient, so that nobody counts more than another; always the same one of the same patches."""
    table = patches.table
    named = list(zip(*(table[name].tolist() for name in ("patient", "box", "crop")), strict=True))
    first: dict[int, int] = {}
    for row in sorted(range(len(named)), key=lambda row: rank(0, "patch", *named[row])):
        first.setdefault(named[row][0], row)
    return replace(patches, index=patches.index[sorted(first.values())])


def patients_in(patches: PatchDataset) -> int:
    """How many patients there are."""
    return int(patches.table["patient"].nunique())


def shown_course(history: Mapping[str, Any], best: Mapping[str, Any], validation: PatchDataset) -> dict[str, Any]:
    """How a training went, as it leaves: validation AUPRC is rounded; by what a step was chosen here, it was not."""
    patients = patients_in(validation)
    return {
        "history": dict(history) | {"val_auprc": shown_shares(history["val_auprc"], patients)},
        "best": dict(best) | {"val_auprc": shown_share(best["val_auprc"], patients)},
    }


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
