"""CBIS-DDSM (Lee et al. 2017): scanned film with one mask per abnormality, and the official split by patient.

Four tables (mass or calc, train or test) name the image, the mask and a crop of each abnormality. `cbis_ddsm_files`
finds these files.

Each connected area of a mask is a lesion (`contours.mask_areas`), and equal boxes on one image are one lesion. So 1,318
and 378 rows of masses become the 1,296 and 402 lesions of Szafranowska et al.; `tally` counts each step.

Longer than most files, because each step from rows of the tables to lesions is counted where it is taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from data_partitions.archives.account import Account
from data_partitions.archives.archive import ArchiveSource
from data_partitions.archives.cbis_ddsm_files import Places, image_file, mask_file, names_in
from data_partitions.errors import Problem
from data_partitions.exams import Box, Exam, Lesion
from data_partitions.reading.cells import BadCell, grade, without_decimals
from data_partitions.reading.folders import files_below, folders_in
from data_partitions.reading.looks import FileLook
from data_partitions.reading.masks import MaskLook, MaskRule, mask_looks
from data_partitions.reading.views import USED, is_view
from data_partitions.small_counts import shown_count

TABLES = {
    (kind, split): f"{short}_case_description_{split}_set.csv"
    for kind, short in (("mass", "mass"), ("calcification", "calc"))
    for split in ("train", "test")
}
FOLDERS = {("mass", "train"): "Mass-Training_", ("mass", "test"): "Mass-Test_",
           ("calcification", "train"): "Calc-Training_", ("calcification", "test"): "Calc-Test_"}  # fmt: skip
PATHOLOGY = {"MALIGNANT": True, "BENIGN": False, "BENIGN_WITHOUT_CALLBACK": False}
IMAGE, MASK, CROP = "image_file_path", "roi_mask_file_path", "cropped_image_file_path"
COLUMNS = (
    "patient_id", "breast_density", "left_or_right_breast", "image_view", "abnormality_id", "assessment", "pathology",
    IMAGE, MASK, CROP,
)  # fmt: skip
OFFICIAL = {
    "mass train: rows": 1318, "mass test: rows": 378, "calcification train: rows": 1546, "calcification test: rows": 326,
}  # fmt: skip


class Row(NamedTuple):
    """One abnormality: a row of a table."""

    where: str
    kind: str
    split: str
    patient: str
    image: str
    laterality: str
    view: str
    density: str
    birads: str
    malignant: bool
    cells: Mapping[str, str]


class CbisDdsmSource(ArchiveSource):
    """A folder with the four tables (or a folder `csv` of them) and the images."""

    source: Literal["cbis_ddsm"] = "cbis_ddsm"
    abnormalities: Literal["all", "mass", "calcification"] = Field("all", description="whose tables are read")
    official_split: bool = Field(True, description="the archive's test patients, and they alone, are the test split")
    spacing_mm: float | None = Field(None, gt=0, description="of a pixel, which the files do not give")
    mask_threshold: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="masks are soft: what is above this share of their largest possible value is the lesion",
    )

    @property
    def official(self) -> dict[str, int]:
        """Rows of the description tables that are read."""
        wanted = "" if self.abnormalities == "all" else self.abnormalities
        return {name: count for name, count in OFFICIAL.items() if name.startswith(wanted)}

    @property
    def in_papers(self) -> dict[str, int]:
        """Masses in the study of differential privacy and conditional GANs: connected areas of masks, copies dropped."""
        return {} if self.abnormalities == "calcification" else {"mass train: lesions": 1296, "mass test: lesions": 402}

    def _exams(self, account: Account) -> list[Exam]:
        rows, named = self._rows(account)
        places = Places(self.path)
        self._unlisted(account, places, named)
        by_image: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_image[row.image].append(row)
        files: dict[str, Path] = {}
        for name, of_image in by_image.items():
            file = image_file(account, [row.where for row in of_image], of_image[0].cells[IMAGE], places)
            if file is not None:
                files[name] = file
        images = account.looks(files)
        boxes = self._boxes(account, rows, images, places)
        account.report["counts"] = counts = tally(rows, boxes)
        for table, count in counts.items():
            steps = {"rows": count["rows_benign"] + count["rows_malignant"], "masks": count["masks"], "areas": count["areas"],
                     "lesions": count["lesions_benign"] + count["lesions_malignant"]}  # fmt: skip
            amounts = ", ".join(f"{shown_count(number)} {step}" for step, number in steps.items())
            account.report["notes"].append(f"{table}: {amounts}")
        if self.official_split:
            self._reserve(account, rows)
        exams = [self._exam(account, by_image[name], files[name], look, boxes) for name, look in images.items()]
        return account.without_copies(exams)

    def _rows(self, account: Account) -> tuple[list[Row], set[str]]:
        """The rows of the chosen tables, and every image that they name, faulty rows included."""
        rows: list[Row] = []
        named: set[str] = set()
        seen: dict[tuple[str, str], str] = {}
        for (kind, split), name in TABLES.items():
            if self.abnormalities not in ("all", kind):
                continue
            file = self._table(account, name)
            if file is None:
                account.fatal.append(
                    Problem("missing_file", f"{self.path} has no {name}; add it, or set `abnormalities`")
                )
                continue
            for number, cells in account.records(file, COLUMNS, findings=True):
                image = cells[IMAGE].split("/")[0]
                named.add(image)
                row = _row(account, kind, split, f"{name} row {number}", cells)
                if row is None:
                    account.unread.add(image)
                    continue
                if row.view not in USED:
                    account.unread.add(image)
                    account.leave_out("other_views", row.where)
                    continue
                key = row.image, without_decimals(cells["abnormality_id"])
                if key in seen:
                    account.unread.add(image)
                    account.fault(
                        "duplicate_lesion",
                        f"{row.where}: abnormality {key[1]} of {key[0]} is in {seen[key]} already",
                    )
                    continue
                seen[key] = row.where
                rows.append(row)
        return rows, named

    def _table(self, account: Account, name: str) -> Path | None:
        places = (self.path, *folders_in(self.path))
        return account.only([folder / name for folder in places if (folder / name).is_file()])

    def _unlisted(self, account: Account, places: Places, known: set[str]) -> None:
        """Image folders of the chosen tables that no row names are faults; mask folders end in the abnormality's number.

        Image files elsewhere are counted: they lie in no folder that a table names, chosen or not.
        """
        for key, prefix in FOLDERS.items():
            if self.abnormalities in ("all", key[0]) and not account.fatal:
                for name in places.named(prefix):
                    if name not in known and name.rsplit("_", 1)[0] not in known:
                        account.things += 1
                        account.fault(
                            "file_without_row",
                            f"{name}: no row of {TABLES[key]} names this folder; add one, or remove it",
                        )
        folders = self._named_folders(account) if not account.fatal else set()

        def is_named(file: Path) -> bool:
            above = file.relative_to(self.path).parts[:-1][
                :2
            ]  # folders of images lie in the archive or one level below
            return any(name in folders or name.startswith(tuple(FOLDERS.values())) for name in above)

        account.unlisted({file for file in files_below(self.path) if is_named(file)})

    def _named_folders(self, account: Account) -> set[str]:
        """Every folder that a row of any table names, also of those that are not chosen."""
        aside = Account(self.path, self.encoding, limits=account.limits)
        found: set[str] = set()
        for name in TABLES.values():
            if (file := self._table(aside, name)) is not None:
                rows = aside.records(file, (IMAGE, MASK, CROP))
                found.update(
                    folder for _, cells in rows for column in (IMAGE, MASK, CROP) for folder in names_in(cells[column])
                )
        return found

    def _boxes(
        self, account: Account, rows: list[Row], images: dict[str, FileLook], places: Places
    ) -> dict[str, list[Box]]:
        """Boxes of each row's mask, by `where`; rows without any are faults."""
        masks: dict[str, Path] = {}
        for row in rows:
            if row.image in images:
                cells = row.cells[MASK], row.cells[CROP]
                file = mask_file(account, row.where, cells, images[row.image].shape, places)
                if file is not None:
                    masks[row.where] = file
        found = dict(
            zip(
                masks,
                mask_looks(list(masks.values()), account.cache, MaskRule(threshold=self.mask_threshold), self.limits),
                strict=True,
            )
        )
        boxes: dict[str, list[Box]] = {}
        for where, look in found.items():
            # An area of a single pixel is not a lesion by the rule of Szafranowska et al.
            boxes_here = [area.box for area in look.found if area.pixels > 1]
            if look.code:
                account.fault(look.code, f"{where}: {account.below(masks[where])} {_told(look)}")
            elif not boxes_here:
                account.fault(
                    "empty_mask", f"{where}: {account.below(masks[where])} is empty; copy it again or drop its row"
                )
            else:
                boxes[where] = boxes_here
                for fact in look.facts:
                    account.fact(fact, where)
        account.unplaced.update(row.image for row in rows if row.image in images and row.where not in boxes)
        return boxes

    def _reserve(self, account: Account, rows: list[Row]) -> None:
        account.for_test = {row.patient for row in rows if row.split == "test"}
        both = account.for_test & {row.patient for row in rows if row.split == "train"}
        account.note(
            "patients_in_both_sets", len(both),
            "patients are in the test set for one kind of abnormality and in the training set for the other: taken as test",
        )  # fmt: skip

    def _exam(
        self, account: Account, rows: list[Row], file: Path, look: FileLook, boxes: dict[str, list[Box]]
    ) -> Exam:  # fmt: skip
        first = rows[0]
        lesions: dict[Box, Lesion] = {}
        for row in rows:
            for box in boxes.get(row.where, ()):
                if box not in lesions or (row.malignant and not lesions[box].malignant):
                    lesions[box] = Lesion(box, row.kind, row.malignant, row.birads)
        return account.exam(
            look, file, patient=first.patient, name=first.image, view=first.view, laterality=first.laterality,
            density=first.density, malignant=any(row.malignant for row in rows), lesions=tuple(lesions.values()),
            usable_as_healthy=False, spacing_mm=self.spacing_mm, scanner="film",
        )  # fmt: skip


def tally(rows: Iterable[Row], boxes: Mapping[str, list[Box]]) -> dict[str, dict[str, int]]:
    """Per table, such as "mass train": rows by label, rows whose mask can be read, the connected areas of those masks, and
    lesions by label, where equal boxes on one image count once."""
    counts: dict[str, dict[str, int]] = {}
    lesions: dict[str, dict[tuple[str, Box], bool]] = defaultdict(dict)
    for row in rows:
        table = f"{row.kind} {row.split}"
        count = counts.setdefault(table, dict.fromkeys(
            ("rows_benign", "rows_malignant", "masks", "areas", "lesions_benign", "lesions_malignant"), 0
        ))  # fmt: skip
        count["rows_malignant" if row.malignant else "rows_benign"] += 1
        count["masks"] += row.where in boxes
        for box in boxes.get(row.where, ()):
            count["areas"] += 1
            key = row.image, box
            lesions[table][key] = row.malignant or lesions[table].get(key, False)
    for table, labels in lesions.items():
        counts[table]["lesions_malignant"] = sum(labels.values())
        counts[table]["lesions_benign"] = len(labels) - sum(labels.values())
    return counts


def _told(look: MaskLook) -> str:
    """What is wrong with a mask. Its values have a remedy of their own here: the archive's masks have no classes to be named."""
    if look.code != "bad_annotation":
        return look.text
    return f"{look.text.partition('; ')[0]}; masks of this archive are black and white: convert it again, or set `mask_threshold`"


def _row(account: Account, kind: str, split: str, where: str, cells: dict[str, str]) -> Row | None:
    side, view, pathology = (
        cells["left_or_right_breast"].upper(),
        cells["image_view"].upper(),
        cells["pathology"].upper(),
    )
    if not cells[IMAGE].split("/")[0]:  # which image the finding is on is not known
        account.refuse("bad_value", f"{where}: image file path is empty; fill it in or drop the row")
    elif not cells["patient_id"] or not cells[MASK]:
        account.fault("bad_value", f"{where}: patient_id or ROI mask file path is empty; fill it in or drop the row")
    elif pathology not in PATHOLOGY:
        account.fault("unknown_label", f"{where}: pathology {pathology!r} is unknown; known: {', '.join(PATHOLOGY)}")
    elif side not in ("LEFT", "RIGHT") or not is_view(view):
        account.fault("unknown_label", f"{where}: {side!r} {view!r} is not a side (LEFT, RIGHT) and a view (CC, MLO)")
    else:
        try:
            density = grade(cells["breast_density"], "breast_density", ("1", "2", "3", "4"))
        except BadCell as error:
            account.fault("bad_value", f"{where}: {error}")
            return None
        return Row(
            where, kind, split, cells["patient_id"], cells[IMAGE].split("/")[0], side[0], view, density,
            without_decimals(cells["assessment"]), PATHOLOGY[pathology], cells,
        )  # fmt: skip
    return None
