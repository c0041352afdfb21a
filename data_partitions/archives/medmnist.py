"""MedMNIST (Yang et al. 2023): one .npz with images and labels of a fixed training, validation and test split.

The files name no patients, so every image counts as a patient. Which labels are malignant differs from set to set and is
easy to get wrong: label 0 of BreastMNIST is malignant, label 1 "normal, benign".
"""

from __future__ import annotations

import hashlib
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from data_partitions.archives.account import Account
from data_partitions.archives.archive import ArchiveSource
from data_partitions.errors import BadFile, DataError
from data_partitions.exams import Box, Cohort, Exam
from data_partitions.patches import PatchTask
from data_partitions.reading.body import body_mask
from data_partitions.reading.image_files import is_blank
from data_partitions.reading.limits import Limits
from data_partitions.reading.opening import brief, check_unpacked
from data_partitions.small_counts import shown_count
from data_partitions.split import SPLITS

# Labels that count as positive: cancer, or the disease that the set is about.
POSITIVE = {"breastmnist": (0,), "pneumoniamnist": (1,), "dermamnist": (0, 1, 4), "nodulemnist3d": (1,)}
# What the labels of a set are called, in their order, where `names` does not say; elsewhere by their numbers.
NAMES = {
    "breastmnist": ("malignant", "normal or benign"), "pneumoniamnist": ("normal", "pneumonia"),
    "dermamnist": ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
}  # fmt: skip
FETCH_AGAIN = "download it again"
OFFICIAL = {
    "breastmnist": {"images": 780, "malignant": 210, "split train": 546, "split val": 78, "split test": 156},
    "pneumoniamnist": {"images": 5856, "split train": 4708, "split val": 524, "split test": 624},
    "dermamnist": {"images": 10015, "split train": 7007, "split val": 1003, "split test": 2005},
}


class MedmnistSource(ArchiveSource):
    """One .npz file; labels are (n,) or, as distributed, (n, 1)."""

    source: Literal["medmnist"] = "medmnist"
    path: Path = Field(description="the .npz file")
    positive: tuple[int, ...] | None = Field(None, description="labels that count as malignant; known for some sets")
    names: tuple[str, ...] | None = Field(None, description="what the labels are called, from 0 on, for task.classes")
    official_split: bool = Field(True, description="keep the set's own training, validation and test images")
    background: Literal["dark", "none"] = Field("none", description="none: the whole image is tissue")

    @property
    def counted_as(self) -> Literal["patient", "lesion", "image"]:
        return "image"

    @property
    def official(self) -> dict[str, int]:
        """Counts as the authors give them; empty for a set that is not listed here."""
        return OFFICIAL.get(self._set, {})

    @property
    def _positive(self) -> tuple[int, ...] | None:
        return self.positive or POSITIVE.get(self._set)

    @property
    def _set(self) -> str:
        return self.path.stem.split("_")[0].lower()  # breastmnist_224.npz is a larger breastmnist.npz

    def _require_path(self) -> None:
        if not self.path.is_file():
            raise DataError("missing_file", f"file {self.path} does not exist; correct `path`", field="path")

    def _cohort(self, account: Account, seed: int, task: PatchTask | None) -> Cohort:
        if task is not None and task.label == "malignancy" and self._positive is None:
            raise DataError(
                "no_label", f"{self.path.name}: which labels are malignant is not known; list them in `positive`"
            )
        cohort = super()._cohort(account, seed, task)
        copies = account.private.get("duplicate_images", [])
        across = sum(len({name.split("_")[0] for name in names}) > 1 for names in copies)
        if self.official_split and across:
            account.report["notes"].append(
                f"{shown_count(across)} of them are in several official splits and are kept in the first by name"
            )
        return cohort

    def _exams(self, account: Account) -> list[Exam]:
        """All images, each a patient of its own. Their names are exclusion lists' too: train_00012."""
        positive, names = self._positive, self.names or NAMES.get(self._set, ())
        arrays = _arrays(self.path, self.path.stat().st_mtime_ns, self.limits)
        exams: list[Exam] = []
        for split in SPLITS:
            images, labels = _part(self.path, arrays, split)
            account.things += len(images)
            for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
                name = f"{split}_{number:05d}"
                if not (0 <= label < 2**31 and label == int(label)):  # before any conversion: 0.7 is not 0
                    account.fault(
                        "unknown_label",
                        f"{self.path.name} {name}: label {label} is not a class; classes are whole numbers from 0",
                    )
                    continue
                label = int(label)
                if is_blank(pixels) and not account.keep_blank:
                    account.fact("blank_images", name)
                    continue
                if names and label >= len(names):
                    account.fault(
                        "unknown_label",
                        f"{self.path.name} {name}: label {label} has no name; `names` has {len(names)}: {', '.join(names)}",
                    )
                    continue
                account.digests[name] = (
                    f"blank {name}"
                    if is_blank(pixels)
                    else hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
                )
                exams.append(Exam(
                    patient=name, name=name, shape=pixels.shape[:2], malignant=None if positive is None else label in positive,
                    diagnosis=names[label] if names else str(label),
                    open=partial(ArrayImage, self.path, self.limits, split, number, dark_background=self.background == "dark"),
                    split=split if self.official_split else "",
                ))  # fmt: skip
        return exams


class ArrayImage:
    """One image of the file."""

    def __init__(self, path: Path, limits: Limits, split: str, number: int, *, dark_background: bool) -> None:
        pixels = _arrays(path, path.stat().st_mtime_ns, limits)[f"{split}_images"][number]
        self.pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        self.dark_background = dark_background

    def window(self, box: Box) -> np.ndarray:
        return self.pixels[box.top : box.bottom, box.left : box.right]

    def tissue(self, step: int) -> np.ndarray:
        sampled = np.rint(self.pixels[::step, ::step].mean(axis=2)).astype(np.uint8)
        return body_mask(sampled) if self.dark_background else np.ones(sampled.shape, dtype=bool)


@lru_cache(maxsize=2)
def _arrays(path: Path, changed: int, limits: Limits) -> dict[str, np.ndarray]:
    """All arrays of a file as it was at `changed`."""
    try:
        check_unpacked(path, limits, FETCH_AGAIN)
        with np.load(path, allow_pickle=False) as file:
            return {name: _array(file, name) for name in file.files}
    except BadFile as error:
        raise DataError(error.code, f"{path} {error}", field="path") from error
    except Exception as error:  # of zipfile, zlib, numpy's header, memory, ...
        raise DataError(
            "bad_table", f"{path} is not an .npz file of arrays ({brief(error)}); {FETCH_AGAIN}", field="path"
        ) from error


def _array(file: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """One array. Raises BadFile where it holds objects, which are never unpickled."""
    try:
        return file[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise BadFile(
            "bad_value", f"holds Python objects in {name}; save images as uint8 and labels as whole numbers"
        ) from error


def _part(path: Path, arrays: dict[str, np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, height, width) or (n, height, width, 3), and labels (n,)."""
    missing = [name for name in (f"{split}_images", f"{split}_labels") if name not in arrays]
    if missing:
        raise DataError(
            "bad_columns",
            f"{path.name}: has no array {' or '.join(missing)}; it has {', '.join(sorted(arrays))}",
            field="path",
        )
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    flat = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if images.dtype != np.uint8 or not flat or 0 in images.shape[1:]:
        raise DataError(
            "bad_image", f"{path.name}: {split}_images is {images.dtype} {images.shape}; expected uint8 (n, h, w[, 3])"
        )
    if labels.dtype.kind not in "buif":
        raise DataError("bad_value", f"{path.name}: {split}_labels is {labels.dtype}; expected whole numbers")
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise DataError(
            "bad_value", f"{path.name}: {split}_labels has shape {labels.shape} for {len(images)} images; expected (n, 1)"
        )  # fmt: skip
    return images, labels.reshape(-1)
