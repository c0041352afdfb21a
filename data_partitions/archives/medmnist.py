"""MedMNIST (Yang et al. 2023): one .npz with images and labels of a fixed training, validation and test split.

No patients are named, so every image counts as one. Which labels are malignant differs from set to set and is easy to get
wrong: label 0 of BreastMNIST is malignant, label 1 "normal, benign".
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from data_partitions.archives.copies import groups_of_copies
from data_partitions.archives.exclusions import listed, without
from data_partitions.errors import DataError, Problem, allowed
from data_partitions.exams import Box, Cohort, Exam
from data_partitions.patches import PatchTask
from data_partitions.reading.body import body_mask
from data_partitions.reading.image_files import files_digest
from data_partitions.small_cells import cell
from data_partitions.split import SPLITS

# Labels that count as positive: cancer, or the disease that the set is about.
POSITIVE = {"breastmnist": (0,), "pneumoniamnist": (1,), "dermamnist": (0, 1, 4), "nodulemnist3d": (1,)}
OFFICIAL = {
    "breastmnist": {"images": 780, "malignant": 210, "split train": 546, "split val": 78, "split test": 156},
    "pneumoniamnist": {"images": 5856, "split train": 4708, "split val": 524, "split test": 624},
    "dermamnist": {"images": 10015, "split train": 7007, "split val": 1003, "split test": 2005},
}


class MedmnistSource(BaseModel):
    """One .npz file; labels are (n,) or, as distributed, (n, 1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["medmnist"] = "medmnist"
    path: Path = Field(description="the .npz file")
    positive: tuple[int, ...] | None = Field(None, description="labels that count as malignant; known for some sets")
    official_split: bool = Field(True, description="keep the set's own training, validation and test images")
    background: Literal["dark", "none"] = Field("none", description="none: the whole image is tissue")
    max_bad_fraction: float = Field(0.0, ge=0, le=1, description="share of images that may be left out as unusable")
    exclude: Path | None = Field(None, description="csv of images to leave out, such as train_00012")

    @property
    def official(self) -> dict[str, int]:
        """Counts as the authors give them; none for a set not listed here."""
        return OFFICIAL.get(self._set, {})

    @property
    def _set(self) -> str:
        return self.path.stem.split("_")[0].lower()  # breastmnist_224.npz is a larger breastmnist.npz

    def files_digest(self) -> str:
        """Changes when the file is written again."""
        if not self.path.is_file():
            raise DataError("missing_file", f"file {self.path} does not exist; mend `path`", field="path")
        return files_digest([self.path, *listed(self.path, self.exclude)])

    def load(self, centre: str, seed: int, cache: Path | None = None, task: PatchTask | None = None) -> Cohort:
        """All images, each a patient of its own. Raises DataError."""
        positive = self.positive or POSITIVE.get(self._set)
        if positive is None:
            raise DataError(
                "no_label", f"{self.path.name}: which labels are malignant is not known; list them in `positive`"
            )
        self.files_digest()
        arrays = _arrays(self.path, self.path.stat().st_mtime_ns)
        problems: list[Problem] = []
        exams: list[Exam] = []
        digests: list[tuple[str, str, str]] = []
        total = 0
        for split in SPLITS:
            images, labels = _part(self.path, arrays, split)
            total += len(images)
            for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
                name = f"{split}_{number:05d}"
                if label < 0 or label != int(label):
                    problems.append(Problem("unknown_label", f"{self.path.name} {name}: label {label} is no class"))
                    continue
                digests.append((name, name, hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()))
                exams.append(Exam(
                    patient=name, name=name, shape=pixels.shape[:2], malignant=int(label) in positive,
                    open=partial(ArrayImage, self.path, split, number, dark_background=self.background == "dark"),
                    split=split if self.official_split else "",
                ))  # fmt: skip
        skipped = allowed(problems, max(1, total), self.max_bad_fraction, f"{self.path}")
        groups, copies = groups_of_copies(digests)
        report: dict = {"notes": []}
        if skipped:
            report["skipped"] = skipped
            report["notes"] += [f"{cell(n)} left out: {code}" for code, n in sorted(skipped.items())]
        if copies:
            report["duplicate_images"] = len(copies)
            report["notes"].append(
                f"{cell(len(copies))} sets of identical images, each kept on one side of every split"
            )
        moved = _across(copies) if self.official_split else 0
        if moved:
            report["notes"].append(
                f"{cell(moved)} of them lie in several official splits and are kept in the first by name"
            )
        private = {"duplicate_images": copies, "problems": [problem.text for problem in problems]}
        joined = {patient: group for patient, group in groups.items() if patient != group}
        return without(Cohort(exams, report, private, joined), self.exclude)


class ArrayImage:
    """One image of the file."""

    def __init__(self, path: Path, split: str, number: int, *, dark_background: bool) -> None:
        pixels = _arrays(path, path.stat().st_mtime_ns)[f"{split}_images"][number]
        self.pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        self.dark_background = dark_background

    def window(self, box: Box) -> np.ndarray:
        return self.pixels[box.top : box.bottom, box.left : box.right]

    def tissue(self, step: int) -> np.ndarray:
        sampled = np.rint(self.pixels[::step, ::step].mean(axis=2)).astype(np.uint8)
        return body_mask(sampled) if self.dark_background else np.ones(sampled.shape, dtype=bool)


@lru_cache(maxsize=2)
def _arrays(path: Path, changed: int) -> dict[str, np.ndarray]:
    """All arrays of a file as it was at `changed`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            "bad_table", f"{path} is no .npz file of arrays ({error}); fetch it again", field="path"
        ) from error


def _part(path: Path, arrays: dict[str, np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, height, width) or (n, height, width, 3), and labels (n,)."""
    missing = [name for name in (f"{split}_images", f"{split}_labels") if name not in arrays]
    if missing:
        raise DataError(
            "bad_columns",
            f"{path.name}: no array {' or '.join(missing)}; it has {', '.join(sorted(arrays))}",
            field="path",
        )
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    flat = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if images.dtype != np.uint8 or not flat:
        raise DataError(
            "bad_image", f"{path.name}: {split}_images is {images.dtype} {images.shape}; expected uint8 (n, h, w[, 3])"
        )
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise DataError(
            "bad_value", f"{path.name}: {split}_labels has shape {labels.shape} for {len(images)} images; expected (n, 1)"
        )  # fmt: skip
    return images, labels.reshape(-1).astype(np.int64)


def _across(copies: list[list[str]]) -> int:
    """Sets of copies that lie in more than one official split."""
    splits: dict[int, set[str]] = defaultdict(set)
    for number, names in enumerate(copies):
        splits[number] |= {name.split("_")[0] for name in names}
    return sum(len(found) > 1 for found in splits.values())
