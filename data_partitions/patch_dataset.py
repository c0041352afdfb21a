"""Patches of one centre on disk: pixels that processes share by memory map, and a table with one row per patch."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from basics.csv_table import read_cell, text_cell
from basics.image_shape import ImageShape, Storage
from basics.seeds import rank
from data_partitions.card_words import OTHER, WORDS
from data_partitions.small_counts import HIDDEN, STEP, is_small, shown_count, shown_total
from data_partitions.split import SPLITS

COLUMNS = (
    "label", "box", "crop", "patient", "image", "split", "lesion_type", "view", "laterality", "density", "age",
    "birads", "malignant", "spacing_mm", "scanner", "width", "background",
)  # fmt: skip
PIXELS = "pixels.npy"
PRIVATE = "private.json"  # the only file with identities
TEXT = ("split", "lesion_type", "view", "laterality", "density", "birads", "scanner")


@dataclass(frozen=True)
class PatchDataset:
    """A selection of a centre's patches.

    pixels: uint8 or uint16 (n, channels, height, width), all patches of the centre, usually a memory map.
    table: one row per patch of `pixels`, columns COLUMNS; `box` numbers a lesion or a healthy region, `crop` its stored
    crops, `patient` and `image` are running numbers within this data set, not identities.
    index: int64, the rows of this selection, ascending.
    report: what was found, skipped and moved while the patches were made (counts only).
    classes: names of the task's classes, in the order of their labels.
    folder: where they were opened; None for a data set that was made in memory.
    """

    pixels: np.ndarray
    full_table: pd.DataFrame
    index: np.ndarray
    report: dict
    classes: tuple[str, ...]
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows of this selection, in the order of `index`."""
        return self.full_table.iloc[self.index]

    @property
    def labels(self) -> np.ndarray:
        """int64 (len(self),): positions in `classes`."""
        return self.full_table["label"].to_numpy(np.int64)[self.index]

    def select(
        self, split: str | None = None, labels: Iterable[int] | None = None, patients: Iterable[int] | None = None
    ) -> PatchDataset:
        """The part of this selection with this split, these labels and these patients (None: any)."""
        if split is not None and split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
        table = self.table
        keep = np.ones(len(table), dtype=bool)
        if split is not None:
            keep &= (table["split"] == split).to_numpy()
        if labels is not None:
            keep &= table["label"].isin(list(labels)).to_numpy()
        if patients is not None:
            keep &= table["patient"].isin(list(patients)).to_numpy()
        return replace(self, index=self.index[keep])

    def stored(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(k, channels, height, width) as they are stored: `rows` count within this selection."""
        return np.asarray(self.pixels[self.index[rows]])

    def float32(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """float32 (k, channels, height, width) in [-1, 1]: black becomes -1 and white 1."""
        stored = self.stored(rows)
        return stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max / 2) - np.float32(1)

    def people(self) -> dict[int, str]:
        """Names of the patients by their running numbers: identities, which stay here.

        Raises:
            ValueError: the data set was made in memory.
        """
        if self.folder is None:
            raise ValueError(
                "patches that were made in memory have no names of patients; open them from the folder of build_patches"
            )
        codes = json.loads((self.folder / PRIVATE).read_text(encoding="utf-8"))["patients"]
        return {number: name for name, number in codes.items()}

    def counts(self) -> dict[str, dict[int, int]]:
        """Boxes (not crops) by split and label, zeros included."""
        boxes = self.table.drop_duplicates("box")
        found = boxes.groupby(["split", "label"]).size()
        labels = range(len(self.classes))
        return {split: {label: int(found.get((split, label), 0)) for label in labels} for split in SPLITS}

    def digest(self, secret: bytes) -> str:
        """HMAC-SHA256 of this selection's pixels and table, hexadecimal.

        Keyed, because a plain hash would let anyone who has an image find out whether it is in here.
        """
        keyed = hmac.new(secret, digestmod=hashlib.sha256)
        keyed.update(np.asarray(self.pixels.shape[1:], dtype=np.int64).tobytes())
        for start in range(0, len(self), 1024):
            keyed.update(np.ascontiguousarray(self.stored(slice(start, start + 1024))).tobytes())
        keyed.update(self.table.to_csv(index=False, float_format="%.10g").encode())
        return keyed.hexdigest()

    def draw_fraction(self, fraction: float | None = None, boxes: int | None = None, seed: int = 0) -> PatchDataset:
        """A part of this selection, drawn by patient and stratified by class.

        fraction: share of the patients of each class; one with patches of several counts for the last of them. boxes: number of
        boxes of all classes together, in the selection's own ratio; the last patient drawn may give only some of its boxes.
        Draws with one seed are nested: a smaller one is part of every larger one. Both None: everything.
        """
        if fraction is not None and boxes is not None:
            raise ValueError(f"fraction {fraction} and boxes {boxes} are both given; give one of them")
        if fraction is not None:
            return self._draw_patients(fraction, seed)
        return self if boxes is None else self._draw_boxes(boxes, seed)

    def _draw_patients(self, fraction: float, seed: int) -> PatchDataset:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction {fraction} is outside (0, 1]")
        last = self.table.groupby("patient")["label"].max()
        drawn: list[int] = []
        for label in sorted(set(last)):
            members = sorted(last.index[last == label], key=lambda patient: rank(seed, "draw", int(patient)))
            drawn += members[: max(1, round(fraction * len(members)))]
        return self.select(patients=drawn)

    def _draw_boxes(self, boxes: int, seed: int) -> PatchDataset:
        unique = self.table.drop_duplicates("box")
        if boxes < 2 or boxes > len(unique):
            raise ValueError(f"boxes {boxes} is outside 2 .. {len(unique)}, the boxes that this selection has")
        drawn: list[int] = []
        left, of = boxes, len(unique)
        for label in sorted(set(unique["label"]), reverse=True):
            members = unique[unique["label"] == label]
            wanted = round(left * (len(members) / of))
            left, of = left - wanted, of - len(members)
            order = sorted(
                zip(members["patient"].tolist(), members["box"].tolist(), strict=True),
                key=lambda pair: (rank(seed, "draw", pair[0]), pair[1]),
            )
            drawn += [box for _, box in order[:wanted]]
        return replace(self, index=self.index[self.table["box"].isin(drawn).to_numpy()])

    def partition_rows(self, secret: bytes) -> list[dict]:
        """Patients, images (boxes) and keyed digest of this selection, by split and class; counts as they may be shown.

        Every split and class has its row, so that none tells a 0 from a small count. Small ones have no digest.
        """
        rows: list[dict] = []
        for split in SPLITS:
            for label, name in enumerate(self.classes):
                part = self.select(split=split, labels=(label,))
                boxes = part.table.drop_duplicates("box")
                rows.append({
                    "split": split, "class": name,
                    "patients": shown_count(boxes["patient"].nunique()), "images": shown_count(len(boxes)),
                    "digest": "" if is_small(len(boxes)) else part.digest(secret)[:16],
                })  # fmt: skip
        return rows

    def data_card(self) -> dict:
        """What a centre says about its data: rounded counts without identities, and words of `card_words` only.

        `boxes` alone gives numbers of boxes. `scanner` and the like share its total out, so that no sum of theirs is a second
        rounding of the same boxes. A value of fewer than 5 patients is "other", and a spacing of so few is left out.
        """
        boxes = self.table.drop_duplicates("box")
        counts = self.counts()
        spacings = boxes.assign(spacing_mm=boxes["spacing_mm"].round(4)).groupby("spacing_mm")["patient"].nunique()
        # Healthy boxes have no kind: without them the kinds share out the lesions and not some mixture.
        lesions = boxes[boxes["lesion_type"] != ""]
        shared_out = {name: boxes for name in ("scanner", "view", "laterality", "density")} | {"lesion_type": lesions}
        return {
            "image": dict(zip(("channels", "height", "width"), map(int, self.pixels.shape[1:]), strict=True)),
            "classes": list(self.classes),
            "patients": shown_count(boxes["patient"].nunique()),
            "boxes": {
                split: {self.classes[label]: shown_count(n) for label, n in labels.items()}
                for split, labels in counts.items()
            },
            "spacing_mm": sorted(float(value) for value in spacings.index[spacings >= STEP]),
            **{name: _shared_out(own, name, counts) for name, own in shared_out.items()},
        }


def _shared_out(boxes: pd.DataFrame, name: str, counts: Mapping[str, Mapping[int, int]]) -> dict[str, int | str]:
    """How a column's words share out the boxes, {word: part of their shown total}; what is small is left out.

    Args:
        counts: of all boxes, by split and label.
    """
    labels = set(boxes["label"])
    cells = [n for of_split in counts.values() for label, n in of_split.items() if label in labels]
    shown = shown_total(cells)
    if shown == HIDDEN:
        return {}
    words = boxes[name].map(WORDS[name])
    rare = [word for word, patients in boxes.groupby(words)["patient"].nunique().items() if is_small(patients)]
    held = boxes.groupby(words.where(~words.isin(rare), OTHER))["patient"].agg(["size", "nunique"])
    return {
        str(word): shown_count(round(int(n) * int(shown) / sum(cells)))
        for word, n, patients in held.itertuples() if not is_small(patients)
    }  # fmt: skip


def open_patches(folder: Path) -> PatchDataset:
    """The patches in a folder that `build_patches` wrote; pixels stay on disk."""
    pixels = np.load(folder / PIXELS, mmap_mode="r")
    table = pd.read_csv(folder / "table.csv", keep_default_na=False, na_values={
        "age": [""], "spacing_mm": [""], "malignant": [""],
    }, converters={name: read_cell for name in TEXT})  # fmt: skip
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    classes = tuple(json.loads((folder / "classes.json").read_text(encoding="utf-8")))
    return PatchDataset(pixels, table, np.arange(len(table), dtype=np.int64), report, classes, folder)


class PixelWriter:
    """Writes patches one by one into the file of a data set, which is whole when the block ends: none is kept in memory."""

    def __init__(self, folder: Path, shape: ImageShape, storage: Storage):
        self._path, self._shape, self._dtype, self._count = folder / PIXELS, shape, np.dtype(storage), 0

    def __enter__(self) -> PixelWriter:
        self._file = self._path.open("wb")
        self._header()
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.seek(0)
        self._header()  # as long as the first: numpy leaves room for the number to grow
        self._file.close()

    def append(self, image: np.ndarray) -> None:
        """One patch (channels, height, width)."""
        assert image.shape == self._shape and image.dtype == self._dtype, f"a patch is {image.dtype} {image.shape}"
        self._file.write(np.ascontiguousarray(image).data)
        self._count += 1

    def _header(self) -> None:
        described = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, described)


def write_patches(folder: Path, table: pd.DataFrame, report: dict, classes: Sequence[str]) -> None:
    """Write what belongs to the pixels in a folder, to be opened by `open_patches`."""
    (folder / "classes.json").write_text(json.dumps(list(classes)), encoding="utf-8")
    text = io.StringIO()
    table = table.assign(**{name: table[name].map(text_cell, na_action="ignore") for name in TEXT})
    table.to_csv(text, index=False, columns=list(COLUMNS), float_format="%.10g", lineterminator="\n")
    (folder / "table.csv").write_text(text.getvalue(), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(report, indent=1, sort_keys=True), encoding="utf-8")
