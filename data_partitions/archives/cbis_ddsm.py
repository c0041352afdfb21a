"""CBIS-DDSM (Lee et al. 2017): scanned film with one mask per abnormality, and the official split by patient.

Four tables (mass or calc, train or test) name for each abnormality its image, its mask and a crop. Which of the two
files of an abnormality is the mask cannot be told from the table, where they are swapped for a part of the rows: it is
the one of the image's own size. Files are looked for in the archive's own folders (as DICOM, or converted with the
folders kept), or in the folders of the JPEG edition, which go by series UID.

Each connected area of a mask is a lesion (`contours.mask_boxes`), and equal boxes on one image are one: that is how
1,318 and 378 rows of masses become the 1,296 and 402 lesions of Szafranowska et al.; `tally` counts each step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image
from pydantic import Field

from data_partitions.archives.archive import Account, ArchiveSource
from data_partitions.errors import Problem
from data_partitions.exams import Box, Exam, Lesion
from data_partitions.reading.contours import mask_boxes
from data_partitions.reading.dicom import EXTENSIONS, BadDicom, read_header
from data_partitions.reading.image_files import BadImage, FileLook, looks, read_image
from data_partitions.small_cells import cell

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
PICTURES = (*EXTENSIONS, ".png", ".jpg", ".jpeg", ".tif", ".tiff")


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


class MaskLook(NamedTuple):
    """What one look at a mask showed: its boxes, or what is wrong."""

    boxes: list[list[int]]
    code: str = ""
    text: str = ""


class CbisDdsmSource(ArchiveSource):
    """A folder with the four tables (or a folder `csv` of them) and the images."""

    source: Literal["cbis_ddsm"] = "cbis_ddsm"
    abnormalities: Literal["all", "mass", "calcification"] = Field("all", description="whose tables are read")
    official_split: bool = Field(True, description="the archive's test patients are the test split, and no one else is")
    spacing_mm: float | None = Field(None, gt=0, description="of a pixel; the files do not say")

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
        places = _Places(self.path)
        self._unlisted(account, places, named)
        by_image: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_image[row.image].append(row)
        files: dict[str, Path] = {}
        for name, of_image in by_image.items():
            found = places.files(of_image[0].cells[IMAGE])
            if len(found) == 1:
                files[name] = found[0]
            else:
                what = "no image" if not found else f"{len(found)} files where one image is expected"
                for row in of_image:
                    account.fault("row_without_file", f"{row.where}: {what} for {name}; add it or drop the row")
        images = account.looks(files)
        boxes = self._boxes(account, rows, images, places)
        account.report["counts"] = counts = tally(rows, boxes)
        for table, count in counts.items():
            steps = {"rows": count["rows_benign"] + count["rows_malignant"], "masks": count["masks"], "areas": count["areas"],
                     "lesions": count["lesions_benign"] + count["lesions_malignant"]}  # fmt: skip
            told = ", ".join(f"{cell(number)} {step}" for step, number in steps.items())
            account.report["notes"].append(f"{table}: {told}")
        if self.official_split:
            self._reserve(account, rows)
        exams = [self._exam(account, by_image[name], files[name], look, boxes) for name, look in images.items()]
        return account.without_copies(exams)

    def _rows(self, account: Account) -> tuple[list[Row], set[str]]:
        """The rows of the chosen tables, and every image that they name, in rows with a fault too."""
        rows: list[Row] = []
        named: set[str] = set()
        seen: dict[tuple[str, str], str] = {}
        for (kind, split), name in TABLES.items():
            if self.abnormalities not in ("all", kind):
                continue
            file = next((f for f in (self.path / name, *sorted(self.path.glob(f"*/{name}"))) if f.is_file()), None)
            if file is None:
                account.fatal.append(
                    Problem("missing_file", f"{self.path} holds no {name}; add it, or set `abnormalities`")
                )
                continue
            for number, cells in account.records(file, COLUMNS):
                named.add(cells[IMAGE].split("/")[0])
                row = _row(account, kind, split, f"{name} row {number}", cells)
                if row is None:
                    continue
                key = row.image, cells["abnormality_id"]
                if key in seen:
                    account.fault(
                        "duplicate_lesion",
                        f"{row.where}: abnormality {key[1]} of {key[0]} stands in {seen[key]} already",
                    )
                    continue
                seen[key] = row.where
                rows.append(row)
        return rows, named

    def _unlisted(self, account: Account, places: _Places, known: set[str]) -> None:
        """Image folders of the chosen tables that no row names; those of masks end in the abnormality's number."""
        for key, prefix in FOLDERS.items():
            if self.abnormalities in ("all", key[0]) and not account.fatal:
                for name in places.named(prefix):
                    if name not in known and name.rsplit("_", 1)[0] not in known:
                        account.things += 1
                        account.fault("file_without_row", f"{name}: no row of {TABLES[key]} names this folder")

    def _boxes(
        self, account: Account, rows: list[Row], images: dict[str, FileLook], places: _Places
    ) -> dict[str, list[Box]]:
        """Boxes of each row's mask, by `where`; rows without any are faults."""
        masks: dict[str, Path] = {}
        for row in rows:
            if row.image in images:
                file = _mask_file(account, row, images[row.image].shape, places)
                if file is not None:
                    masks[row.where] = file
        found = dict(zip(masks, looks(list(masks.values()), account.cache, "masks", _look, MaskLook), strict=True))
        boxes: dict[str, list[Box]] = {}
        for where, look in found.items():
            if look.code:
                account.fault(look.code, f"{where}: {masks[where].relative_to(self.path)} {look.text}")
            else:
                boxes[where] = [Box(*box) for box in look.boxes]
        account.unread.update(row.image for row in rows if row.image in images and row.where not in boxes)
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
    """Per table, such as "mass train": rows with either label, rows with a mask that can be read, the connected areas of
    those masks, and the lesions with either label that are left when equal boxes on one image are one."""
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


class _Places:
    """Where the files of a table's cell are: below the folder it starts with, or in that of its series."""

    def __init__(self, path: Path) -> None:
        self.roots = [path, *sorted(folder for folder in path.iterdir() if folder.is_dir())]

    def files(self, cell: str) -> list[Path]:
        parts = cell.strip().split("/")
        for root in self.roots:
            for name in (parts[0], parts[2] if len(parts) > 3 else ""):
                if name and (root / name).is_dir():
                    return sorted(file for file in (root / name).rglob("*") if file.suffix.lower() in PICTURES)
        return []

    def named(self, prefix: str) -> list[str]:
        return sorted({folder.name for root in self.roots for folder in root.glob(f"{prefix}*") if folder.is_dir()})


def _row(account: Account, kind: str, split: str, where: str, cells: dict[str, str]) -> Row | None:
    side, view, pathology = (
        cells["left_or_right_breast"].upper(),
        cells["image_view"].upper(),
        cells["pathology"].upper(),
    )
    if not cells["patient_id"] or not cells[IMAGE] or not cells[MASK]:
        account.fault("bad_value", f"{where}: patient_id, image file path or ROI mask file path is empty; fill it in")
    elif pathology not in PATHOLOGY:
        account.fault("unknown_label", f"{where}: pathology {pathology!r} is none of {', '.join(PATHOLOGY)}")
    elif side not in ("LEFT", "RIGHT") or view not in ("CC", "MLO"):
        account.fault("unknown_label", f"{where}: {side!r} {view!r} is no side (LEFT, RIGHT) and view (CC, MLO)")
    else:
        density = cells["breast_density"] if cells["breast_density"] in ("1", "2", "3", "4") else ""
        return Row(
            where, kind, split, cells["patient_id"], cells[IMAGE].split("/")[0], side[0], view, density,
            cells["assessment"], PATHOLOGY[pathology], cells,
        )  # fmt: skip
    return None


def _mask_file(account: Account, row: Row, shape: tuple[int, int], places: _Places) -> Path | None:
    """The file of the image's own size among those of an abnormality, mask and crop."""
    candidates = list(dict.fromkeys(places.files(row.cells[MASK]) + places.files(row.cells[CROP])))
    sizes = {file: _size(file) for file in candidates}
    fitting = [file for file, size in sizes.items() if size == shape]
    if len(fitting) == 1:
        return fitting[0]
    if not candidates:
        account.fault(
            "row_without_file", f"{row.where}: no mask for {row.cells[MASK].split('/')[0]}; add it or drop the row"
        )
        return None
    found = ", ".join(f"{file.name} {size or 'unreadable'}" for file, size in sizes.items())
    account.fault(
        "mask_size",
        f"{row.where}: of its files ({found}) one has to have the size of the image, {shape}; copy them again",
    )
    return None


def _size(file: Path) -> tuple[int, int] | None:
    """(height, width) from a file's header."""
    try:
        if file.suffix.lower() in EXTENSIONS:
            return read_header(file).shape
        with Image.open(file) as picture:
            return picture.height, picture.width
    except (BadDicom, OSError):
        return None


def _look(file: Path) -> MaskLook:
    try:
        mask = read_image(file)[..., 0] > 127
    except BadImage as error:
        return MaskLook([], error.code, str(error))
    # An area of a single pixel is no lesion: see the rule of the paper.
    boxes = [box for box in mask_boxes(mask) if mask[box.top : box.bottom, box.left : box.right].sum() > 1]
    return (
        MaskLook([list(box) for box in boxes])
        if boxes
        else MaskLook([], "empty_mask", "is empty; copy it again or drop its row")
    )
