"""CDD-CESM (Khaled et al. 2022): contrast-enhanced mammograms as JPEG, a spreadsheet, and outlines drawn in a browser tool.

Each breast and view has two images: the low-energy one, which looks like a digital mammogram, and the subtracted one,
which shows the contrast medium. A centre takes one kind. Each outline is a lesion; its label is the pathology of its
image, and its kind is that of the image's finding where the image has one kind only.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from data_partitions.archives.account import Account
from data_partitions.archives.archive import ArchiveSource
from data_partitions.errors import Problem
from data_partitions.exams import Exam, Lesion
from data_partitions.reading.cells import BadCell, age, grade, without_decimals
from data_partitions.reading.contours import pixel_box
from data_partitions.reading.folders import files_in
from data_partitions.reading.image_files import is_image
from data_partitions.reading.looks import FileLook
from data_partitions.reading.opening import brief
from data_partitions.reading.views import SIDES, USED, is_view

FOLDERS = {"low_energy": "Low energy images of CDD-CESM", "subtracted": "Subtracted images of CDD-CESM"}
MARKS = {"low_energy": "_DM_", "subtracted": "_CM_"}  # in the images' names
TABLES = ("Radiology-manual-annotations", "Radiology manual annotations", "Radiology_manual_annotations")
GRADES = ("A", "B", "C", "D")
OUTLINES = "Radiology_hand_drawn_segmentations_v2.csv"
PATHOLOGY = {"normal": False, "benign": False, "malignant": True}
DISPUTED = ""  # the pathology of an image whose rows say different ones
FINDINGS = {"mass": "mass", "calcification": "calcification", "architectural": "distortion", "distortion": "distortion"}
COLUMNS = ("patient_id", "image_name", "side", "view", "pathology_classification/_follow_up")
OUTLINE_COLUMNS = ("filename", "region_shape_attributes")


class Row(NamedTuple):
    """What the spreadsheet says of one image; `findings` are our kinds."""

    where: str
    patient: str
    laterality: str
    view: str
    density: str
    age: float | None
    birads: str
    pathology: str
    findings: frozenset[str]


class CddCesmSource(ArchiveSource):
    """A folder with the two folders of images, the spreadsheet and the table of outlines."""

    source: Literal["cdd_cesm"] = "cdd_cesm"
    images: Literal["low_energy", "subtracted"] = "low_energy"
    table: str | None = Field(None, description="the spreadsheet, .xlsx or .csv; found by its name when left out")
    spacing_mm: float | None = Field(None, gt=0, description="of a pixel, which the files do not give")

    @property
    def official(self) -> dict[str, int]:
        """Of the images of one kind: half of the archive's 2,006."""
        return {"images": 1003, "patients": 326}

    @property
    def in_papers(self) -> dict[str, int]:
        """A public preparation of the low-energy images; images with an outline."""
        return {"malignant": 326} if self.images == "low_energy" else {}

    def _exams(self, account: Account) -> list[Exam]:
        folder = account.folder(FOLDERS[self.images], "images")
        table = self._table(folder.parent)
        if not table.is_file():
            account.fatal.append(
                Problem("missing_file", f"{self.path} has no {TABLES[0]}.xlsx or .csv; add it, or set `table`")
            )
            return []
        rows, named = self._rows(account, table)
        doubted = set(
            account.unread
        )  # by a row of theirs that cannot be read; that of an outline says nothing of the label
        files = self._files(account, folder, rows, named)
        shapes = self._outlines(account, folder.parent / OUTLINES, named)
        counts = {"single_points": 0}
        exams = []
        for name, look in account.looks(files).items():
            row, found = rows[name], shapes.get(name, [])
            lesions = _lesions(account, name, row, look, found, counts)
            exams.append(account.exam(
                look, files[name], patient=row.patient, name=name, view=row.view, laterality=row.laterality,
                density=row.density, age=row.age, malignant=PATHOLOGY.get(row.pathology), lesions=tuple(lesions),
                usable_as_healthy=row.pathology == "normal" and not found, spacing_mm=self.spacing_mm, scanner=self.images,
                own_label=name not in doubted,
            ))  # fmt: skip
        account.note("single_points", counts["single_points"], "outlines of a single point, which are not lesions")
        return exams

    def _table(self, folder: Path) -> Path:
        if self.table is not None:
            return folder / self.table
        known = [folder / f"{name}{suffix}" for name in TABLES for suffix in (".csv", ".xlsx")]
        return next((file for file in known if file.is_file()), known[1])

    def _rows(self, account: Account, path: Path) -> tuple[dict[str, Row], set[str]]:
        """Rows of the chosen kind of image by name, and every name of either kind, faulty rows included.

        An image with several findings has several rows.
        """
        rows: dict[str, Row] = {}
        named: set[str] = set()
        for number, cells in account.records(path, COLUMNS, remedy="correct `table`"):
            name, where = _name(cells["image_name"]), f"{path.name} row {number}"
            named.add(name)
            if not self._is_chosen(account, name, where, "Image_name"):
                continue
            row = _row(account, where, name, cells)
            if row is None:
                account.unread.add(name)
            elif name not in rows:
                rows[name] = row
            elif (rows[name].patient, rows[name].pathology) != (row.patient, row.pathology):
                account.fault("duplicate_image", f"{where}: {name} has another patient or pathology than in {rows[name].where}; "
                              "correct one of them")  # fmt: skip
                if rows[name].pathology != row.pathology:
                    rows[name] = rows[name]._replace(pathology=DISPUTED)
            else:
                rows[name] = rows[name]._replace(findings=rows[name].findings | row.findings)
        return rows, named

    def _is_chosen(self, account: Account, name: str, where: str, column: str) -> bool:
        """Whether an image's name is one of the chosen kind; one of no kind is a fault."""
        if not any(mark in f"{name}_" for mark in MARKS.values()):
            account.fault("bad_value", f"{where}: {column} {name!r} is no image's name such as P1_L_DM_CC; correct it")
        return MARKS[self.images] in f"{name}_"

    def _outlines(self, account: Account, path: Path, known: set[str]) -> dict[str, list[tuple[str, np.ndarray]]]:
        """(where, points (k, 2) of (y, x)) of each outline, by image."""
        found: dict[str, list[tuple[str, np.ndarray]]] = {}
        for number, cells in account.records(path, OUTLINE_COLUMNS, findings=True):
            name, where = _name(cells["filename"]), f"{path.name} row {number}"
            if not name:  # which image the outline is on is not known
                account.refuse("bad_value", f"{where}: filename is empty; fill it in or drop the row")
            if not self._is_chosen(account, name, where, "filename"):
                continue
            try:
                shape = json.loads(cells["region_shape_attributes"] or "{}")
                points = _points(shape) if shape else None
            except Exception as error:  # whatever a shape of another form raises
                account.unread.add(name)
                account.fault(
                    "bad_annotation", f"{where}: region_shape_attributes is not an outline ({brief(error)}); correct it"
                )
                continue
            if points is None:  # an image without any region
                continue
            if name not in known:
                account.fault("lesion_without_row", f"{where}: no row of the spreadsheet names {name}")
                continue
            if account.repeated(name, where, points.tobytes()):
                continue
            found.setdefault(name, []).append((where, points))
        return found

    def _files(self, account: Account, folder: Path, rows: dict[str, Row], named: set[str]) -> dict[str, Path]:
        own = [file for file in files_in(folder) if MARKS[self.images] in f"{_name(file.stem)}_" and is_image(file)]
        of_other_kind = (
            file for name in (*FOLDERS.values(), "images") for file in files_in(folder.parent / name)
            if _name(file.stem) in named and MARKS[self.images] not in f"{_name(file.stem)}_"
        )  # fmt: skip
        account.unlisted({*own, *of_other_kind})
        chosen = account.one_each(own, lambda file: _name(file.stem))
        for name in sorted((set(chosen) | account.several) - named, key=str):
            account.things += 1
            account.fault("file_without_row", f"{name}: no row of the table names an image of this name")
        found = {name: file for name, file in chosen.items() if name in rows}
        for name in sorted(set(rows) - set(found) - account.several):
            account.fault(
                "row_without_file", f"{rows[name].where}: no file {name}.jpg in {folder.name}; add it or drop the row"
            )
        return found


def _row(account: Account, where: str, name: str, cells: dict[str, str]) -> Row | None:
    pathology = cells["pathology_classification/_follow_up"].lower()
    side, view = SIDES.get(cells["side"].upper(), ""), cells["view"].upper()
    if not cells["patient_id"] or not name:
        account.fault("bad_value", f"{where}: Patient_ID or Image_name is empty; fill it in or drop the row")
    elif pathology not in PATHOLOGY:
        account.fault("unknown_label", f"{where}: pathology {pathology!r} is unknown; known: {', '.join(PATHOLOGY)}")
    elif not side or not is_view(view):
        account.fault(
            "unknown_label", f"{where}: {cells['side']!r} {cells['view']!r} is not a side (L, R) and a view (CC, MLO)"
        )
    elif view not in USED:
        account.leave_out("other_views", where)
    else:
        words = [word.strip().lower() for word in re.split(r"[$,;&+]", cells.get("findings", "")) if word.strip()]
        kinds = frozenset(
            next((kind for start, kind in FINDINGS.items() if word.startswith(start)), "other") for word in words
        )
        try:
            years, density = age(cells.get("age", "")), grade(cells.get("breast_density_(acr)", ""), "density", GRADES)
        except BadCell as error:
            account.fault("bad_value", f"{where}: {error}")
            return None
        return Row(
            where, without_decimals(cells["patient_id"]), side, view, density, years,
            without_decimals(cells.get("birads", "")), pathology, kinds,
        )  # fmt: skip
    return None


def _name(text: str) -> str:
    """The name of an image without its ending and without the spaces that some names hold."""
    return re.sub(r"\s+", "", text).removesuffix(".jpg").removesuffix(".JPG")


def _points(shape: dict[str, Any]) -> np.ndarray:
    """Points (k, 2) of (y, x) of a region as the tool writes it. Raises ValueError, KeyError or TypeError."""
    kind = shape["name"]
    if kind in ("polygon", "polyline"):
        xy = np.array([shape["all_points_x"], shape["all_points_y"]], dtype=np.float64)
    elif kind == "point":
        xy = np.array([[shape["cx"]], [shape["cy"]]], dtype=np.float64)
    elif kind == "rect":
        x, y = float(shape["x"]), float(shape["y"])
        xy = np.array([[x, x + float(shape["width"])], [y, y + float(shape["height"])]])
    elif kind in ("circle", "ellipse"):
        rx, ry = (float(shape.get(name, shape.get("r", 0))) for name in ("rx", "ry"))
        turn, angles = float(shape.get("theta", 0)), np.linspace(0, 2 * np.pi, 361)
        across, down = rx * np.cos(angles), ry * np.sin(angles)
        xy = np.array([
            float(shape["cx"]) + across * np.cos(turn) - down * np.sin(turn),
            float(shape["cy"]) + across * np.sin(turn) + down * np.cos(turn),
        ])  # fmt: skip
    else:
        raise ValueError(f"shape {kind!r} is unknown")
    if xy.ndim != 2 or xy.shape[1] < 1 or not np.isfinite(xy).all():
        raise ValueError("it has no points")
    return np.ascontiguousarray(xy[::-1].T)


def _lesions(
    account: Account, name: str, row: Row, look: FileLook, found: list[tuple[str, np.ndarray]], counts: dict[str, int]
) -> list[Lesion]:  # fmt: skip
    kind = next(iter(row.findings)) if len(row.findings) == 1 else "other"
    lesions = []
    for where, points in found:
        box = account.inside(name, where, pixel_box(points), look.shape)
        if box is None:
            continue
        if len(points) < 2:
            counts["single_points"] += 1
            continue
        # An outline on an image called normal is a finding without a label.
        malignant = None if row.pathology == "normal" else PATHOLOGY.get(row.pathology)
        lesions.append(Lesion(box, kind, malignant, row.birads, points))
    return lesions
