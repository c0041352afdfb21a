"""BCDR, the Breast Cancer Digital Repository (Lopez et al. 2012): digital (D01, D02, DN01) and film (F01 to F03) sets.

Each set is a folder with `bcdr_SET_outlines.csv` (one row per outline) and, except F03, `bcdr_SET_img.csv` (one row per
image). Each outline is a lesion, as in Szafranowska et al. (2022), where "nodule" is a mass; one with several signs has
the first of mass, calcification, distortion. Its label is the biopsy's. Healthy boxes come from DN01 alone, whose women
have no finding: in another set, an image without an outline may hold a finding that was outlined in the other view only.

Departures: an image that two sets share is taken once, with the outlines of both.

Longer than most files, because six sets of one archive share their tables and their faults.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from data_partitions.archives.account import Account
from data_partitions.archives.archive import ArchiveSource
from data_partitions.errors import Problem
from data_partitions.exams import Exam, Lesion
from data_partitions.reading.cells import BadCell, age, flag, grade, whole, without_decimals
from data_partitions.reading.contours import pixel_box
from data_partitions.reading.folders import files_below, plain_path
from data_partitions.reading.label_words import LabelWords, UnknownWord
from data_partitions.reading.looks import FileLook
from data_partitions.reading.views import is_side_and_view

SETS = ("d01", "d02", "dn01", "f01", "f02", "f03")
NORMAL = ("dn01",)
DIGITAL_SPACING_MM = 0.07
# The outlines' image_view counts from 1, the images' image_type_id from 0; both in this order.
VIEWS = (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO"))
NAMES = {"RCC": ("R", "CC"), "LCC": ("L", "CC"), "RO": ("R", "MLO"), "LO": ("L", "MLO")}  # the ends of file names
SIGNS = {
    "mammography_nodule": "mass", "mammography_calcification": "calcification",
    "mammography_microcalcification": "calcification", "mammography_architectural_distortion": "distortion",
    "mammography_stroma_distortion": "distortion", "mammography_axillary_adenopathy": "other",
}  # fmt: skip
WORDS = LabelWords(("malign", "malignant"), ("benign",))
OUTLINE_COLUMNS = (
    "patient_id", "image_view", "image_filename", "lw_x_points", "lw_y_points", *SIGNS, "classification",
)  # fmt: skip
IMAGE_COLUMNS = ("patient_id", "image_filename")
TABLE = re.compile(r"bcdr_(?P<set>[a-z]+\d+)_(?P<what>outlines|img)\.csv", re.IGNORECASE)


class Row(NamedTuple):
    """What the tables say about one image."""

    file: Path
    where: str
    patient: str
    laterality: str
    view: str
    density: str
    age: float | None
    set: str


class BcdrSource(ArchiveSource):
    """A folder that holds the unpacked sets."""

    source: Literal["bcdr"] = "bcdr"
    sets: tuple[Literal["d01", "d02", "dn01", "f01", "f02", "f03"], ...] = Field(
        (), description="sets to take, such as [d01, d02, dn01]; all that exist when left out"
    )
    spacing_mm: float | None = Field(
        None, gt=0, description="of film, whose files do not say; digital images have 0.07"
    )

    @property
    def official(self) -> dict[str, int]:
        """Counts of film and digital together on the repository's site; the sets for download are parts of it."""
        return {"images": 3703 + 3612, "patients": 1010 + 724, "lesions": 1517 + 818}

    @property
    def in_papers(self) -> dict[str, int]:
        """Szafranowska et al. (2022), of the sets that they used."""
        return {"patients": 1010, "lesions": 1493, "masses": 639}

    def _exams(self, account: Account) -> list[Exam]:
        tables = self._tables(account)
        rows: dict[str, Row | None] = {}  # None: its row is a fault already
        for name, files in tables.items():
            if "img" in files:
                _read_images(account, name, files["img"], rows)
        outlines: dict[str, list[tuple[str, str, bool | None, np.ndarray]]] = defaultdict(list)
        for name, files in tables.items():
            if "outlines" in files:
                _read_outlines(account, name, files["outlines"], rows, outlines, known_images="img" in files)
        self._unlisted(account, tables, rows)
        present = {}
        for name, row in rows.items():
            if row is None:
                continue
            if row.file.is_file():
                present[name] = row.file
            else:
                account.fault("row_without_file", f"{row.where}: file {name} does not exist; add it or drop the row")
        exams = [
            self._exam(account, name, row, look, outlines.get(name, []))
            for name, look in account.looks(present).items()
            if (row := rows[name]) is not None
        ]
        return account.without_copies(exams)

    def _tables(self, account: Account) -> dict[str, dict[str, Path]]:
        """set -> "img" and "outlines" -> file."""
        found: dict[str, dict[str, Path]] = defaultdict(dict)
        tables: dict[tuple[str, str], list[Path]] = defaultdict(list)
        for file in _all_tables(self.path):
            if _table_of(file)[0] in (self.sets or SETS):
                tables[_table_of(file)].append(file)
        for (name, what), files in tables.items():
            table = account.only(files)
            if table is not None:
                found[name][what] = table
        for name in self.sets or (() if found else ("SET",)):
            if name not in found:
                account.fatal.append(
                    Problem("missing_file", f"{self.path} has no bcdr_{name}_outlines.csv or bcdr_{name}_img.csv")
                )
        return dict(sorted(found.items()))

    def _unlisted(self, account: Account, tables: dict[str, dict[str, Path]], rows: Mapping[str, Row | None]) -> None:
        """Images of the chosen sets that no table names are faults; other image files are counted, but for those of other sets."""
        chosen = {path.parent for files in tables.values() for path in files.values()}
        of_others = {path.parent for path in _all_tables(self.path)} - chosen
        known = {row.file for row in rows.values() if row is not None}
        for file in files_below(self.path):
            home = next((folder for folder in file.parents if folder in chosen | of_others), None)
            if account.below(file) in rows or home in of_others:
                known.add(file)
            elif home is not None and file.suffix.lower() in (".tif", ".tiff") and not account.fatal:
                known.add(file)
                account.things += 1
                account.fault(
                    "file_without_row", f"{account.below(file)}: no table has a row for it; add one, or remove it"
                )
        account.unlisted(known)

    def _exam(
        self, account: Account, name: str, row: Row, look: FileLook,
        outlines: list[tuple[str, str, bool | None, np.ndarray]],
    ) -> Exam:  # fmt: skip
        lesions = []
        for where, kind, malignant, contour in outlines:
            box = account.inside(name, f"{where}: the {kind}", pixel_box(contour), look.shape)
            if box is not None:
                lesions.append(Lesion(box, kind, malignant, contour=contour))
        film = row.set.startswith("f")
        return account.exam(
            look, row.file, patient=row.patient, name=name, view=row.view, laterality=row.laterality,
            density=row.density, age=row.age, lesions=tuple(lesions), malignant=_of_image(lesions, row.set),
            usable_as_healthy=row.set in NORMAL, spacing_mm=self.spacing_mm if film else DIGITAL_SPACING_MM,
            scanner="film" if film else "digital",
        )  # fmt: skip


def _all_tables(folder: Path) -> list[Path]:
    return [file for file in files_below(folder, "*.csv") if TABLE.fullmatch(file.name)]


def _table_of(file: Path) -> tuple[str, str]:
    """Set and kind of a table by its name."""
    _, name, what = file.stem.lower().split("_")
    return name, what


def _of_image(lesions: list[Lesion], name: str) -> bool | None:
    """Malignant where any lesion is, benign where all are or the set is normal; else not known."""
    labels = [lesion.malignant for lesion in lesions]
    if any(labels):
        return True
    return False if (labels and None not in labels) or (not labels and name in NORMAL) else None


def _read_images(account: Account, name: str, path: Path, rows: dict[str, Row | None]) -> None:
    for where, cells in _records(account, path, IMAGE_COLUMNS):
        key = _key(account, path, cells)
        if key in rows:
            account.fault("duplicate_image", f"{where}: image {key} is in an earlier row already; keep one of them")
            continue
        rows[key] = None
        try:
            rows[key] = _row(account, name, path, where, cells, whole(cells.get("image_type_id", ""), "image_type_id"))
        except BadCell as error:
            account.fault("bad_value", f"{where}: {error}")


def _read_outlines(
    account: Account, name: str, path: Path, rows: dict[str, Row | None],
    outlines: dict[str, list[tuple[str, str, bool | None, np.ndarray]]], *, known_images: bool,
) -> None:  # fmt: skip
    seen: dict[str, str] = {}
    for where, cells in _records(account, path, OUTLINE_COLUMNS, findings=True):
        number = without_decimals(cells.get("segmentation_id", ""))
        key = _key(account, path, cells)
        if number and number in seen:
            account.unread.add(key)
            account.fault("duplicate_lesion", f"{where}: segmentation {number} is in {seen[number]} already")
            continue
        seen[number] = where
        if known_images and key not in rows:
            account.fault(
                "lesion_without_row", f"{where}: image {cells['image_filename']} is not in the table of images"
            )
            continue
        code = _view_code(account, where, cells)
        try:
            if key not in rows:
                rows[key] = None  # unless its view is known
                rows[key] = None if code is None else _row(account, name, path, where, cells, code)
            outline = None if code is None else _outline(account, where, cells)
            density, years = _density(cells), _age(cells)
        except BadCell as error:
            account.unread.add(key)
            account.fault("bad_value", f"{where}: {error}")
            continue
        row = rows[key]
        if row is None or outline is None or code is None:
            account.unread.add(key)
            continue
        if (row.laterality, row.view) != VIEWS[code]:
            account.unread.add(key)
            account.fault(
                "bad_value",
                f"{where}: image_view {code + 1} is not that of {cells['image_filename']}; correct one",
            )
            continue
        # The table of images may say less of the woman than that of the outlines.
        rows[key] = row._replace(density=row.density or density, age=row.age if row.age is not None else years)
        outlines[key].append((where, *outline))


def _view_code(account: Account, where: str, cells: dict[str, str]) -> int | None:
    """Place in VIEWS of an outline's view; None, and a fault or a count, where it is none of them."""
    try:
        code = whole(cells["image_view"], "image_view")
    except BadCell as error:
        account.fault("bad_value", f"{where}: {error}")
        return None
    if code is None:
        account.fault("bad_value", f"{where}: image_view is empty; write 1 (RCC), 2 (LCC), 3 (RO) or 4 (LO)")
    elif 1 <= code <= len(VIEWS):
        return code - 1
    else:
        account.leave_out("other_views", where)
    return None


def _key(account: Account, path: Path, cells: dict[str, str]) -> str:
    return account.below(path.parent / plain_path(cells["image_filename"]))


def _records(
    account: Account, path: Path, required: tuple[str, ...], *, findings: bool = False
) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, cells) of each row that names an image and a patient."""
    for number, cells in account.records(path, required, findings=findings):
        where = f"{path.name} row {number}"
        if cells["patient_id"] and cells["image_filename"]:
            yield where, cells
            continue
        text = f"{where}: patient_id or image_filename is empty; fill it in or drop the row"
        if cells["image_filename"]:
            account.unread.add(_key(account, path, cells))
            account.fault("bad_value", text)
        elif findings:  # which image the finding is on is not known
            account.refuse("bad_value", text)
        else:
            account.fault("bad_value", text)


def _row(account: Account, name: str, path: Path, where: str, cells: dict[str, str], code: int | None) -> Row | None:
    """An image of a set; its view is that of its file's name, and the code has to agree. code: from 0. Raises BadCell."""
    file = path.parent / plain_path(cells["image_filename"])
    words = file.stem.rsplit("_", 1)[-1].upper(), cells.get("image_type_name", "").upper()
    named = next((NAMES[word] for word in words if word in NAMES), None)
    coded = VIEWS[code] if code is not None and code < len(VIEWS) else None
    view = named or coded
    if view is None and (code is not None or any(map(is_side_and_view, words))):
        account.leave_out("other_views", where)
        return None
    if view is None:
        account.fault(
            "unknown_label", f"{where}: {file.name} ends in no view (RCC, LCC, RO, LO), and no code says it; add one"
        )
        return None
    if code is not None and view != coded:
        account.fault("bad_value", f"{where}: the view of {file.name} is not that of its code {code}; correct one")
        return None
    # Digital and film sets number their patients separately; within each kind a number is one person.
    patient = f"{'film' if name.startswith('f') else 'digital'} {without_decimals(cells['patient_id'])}"
    return Row(file, where, patient, *view, _density(cells), _age(cells), name)


def _outline(account: Account, where: str, cells: dict[str, str]) -> tuple[str, bool | None, np.ndarray] | None:
    """Kind, label and points (k, 2) of (y, x) of one row. Raises BadCell."""
    kinds = [kind for sign, kind in SIGNS.items() if flag(cells[sign], sign)]
    try:
        x, y = (np.array(cells[f"lw_{axis}_points"].split(), dtype=np.float64) for axis in "xy")
    except ValueError:
        x = y = np.empty(0)
    if len(x) < 2 or len(x) != len(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        account.fault("bad_annotation", f"{where}: lw_x_points and lw_y_points are not an outline of at least 2 points")
        return None
    try:
        malignant = WORDS.read(cells["classification"])
    except UnknownWord:
        account.fault(
            "unknown_label", f"{where}: classification {cells['classification']!r} is neither Benign nor Malign"
        )
        return None
    return kinds[0] if kinds else "other", malignant, np.column_stack([y, x])


def _density(cells: dict[str, str]) -> str:
    return grade(cells.get("density", ""), "density", ("1", "2", "3", "4"))


def _age(cells: dict[str, str]) -> float | None:
    """None where it is not known, for which 0 stands, too."""
    return age(cells.get("age", "")) or None
