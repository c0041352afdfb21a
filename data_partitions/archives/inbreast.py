"""INbreast (Moreira et al. 2012): 410 digital mammograms as DICOM, OsiriX outlines, a spreadsheet with BI-RADS and density.

Lesions follow Szafranowska et al. (2022): the outlines of one kind are painted together, and each connected area of at
least two pixels is a lesion; "spiculated regions", in every spelling, are masses. Single-pixel calcifications count as
lesions only with `single_points`. Healthy boxes come from images of BI-RADS 1 without any outline, never from images
with such a calcification. For departures see `contours`; and distortions are a kind of their own here, not "other".

The archive has no biopsies: the BI-RADS of its image decides whether a lesion is malignant.
"""

from __future__ import annotations

import plistlib
import re
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from data_partitions.archives.account import Account
from data_partitions.archives.archive import ArchiveSource
from data_partitions.exams import Cohort, Exam, Lesion
from data_partitions.patches import PatchTask
from data_partitions.reading.cells import BadCell, grade, is_known, without_decimals
from data_partitions.reading.contours import painted_areas, pixel_box
from data_partitions.reading.folders import files_in
from data_partitions.reading.image_files import is_dicom
from data_partitions.reading.looks import FileLook
from data_partitions.reading.opening import brief, read_bytes
from data_partitions.reading.views import is_view

KINDS = {
    "mass": "mass", "spiculated region": "mass", "espiculated region": "mass",
    "calcification": "calcification", "calcifications": "calcification", "cluster": "calcification",
    "distortion": "distortion",
    "asymmetry": "other", "assymetry": "other", "unnamed": "other", "point 1": "other", "point 3": "other", "": "other",
}  # fmt: skip
COLUMNS = ("file_name", "laterality", "view", "acr", "bi_rads")
VIEWS = {"CC": "CC", "MLO": "MLO", "ML": "MLO"}  # file names say ML where the table says MLO
BIRADS = ("0", "1", "2", "3", "4", "4a", "4b", "4c", "5", "6")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


class InbreastSource(ArchiveSource):
    """The folder "INbreast Release 1.0" with AllDICOMs, AllXML and INbreast.xls (or .csv)."""

    source: Literal["inbreast"] = "inbreast"
    table: str | None = Field(None, description="the spreadsheet; INbreast.csv, .xls or .xlsx when left out")
    single_points: bool = Field(False, description="a finding of one pixel is a lesion too, with a box of one pixel")
    malignant: tuple[str, ...] = Field(("4", "4a", "4b", "4c", "5", "6"), description="BI-RADS that count as malignant")
    benign: tuple[str, ...] = Field(("1", "2", "3"), description="BI-RADS that count as benign; others have no label")

    @property
    def official(self) -> dict[str, int]:
        """Counts of the whole archive as its authors give them."""
        return {"images": 410, "patients": 115, "masses": 116}

    @property
    def in_papers(self) -> dict[str, int]:
        """Szafranowska et al. (2022), whose rule for lesions this is."""
        return {"images": 410, "patients": 115, "lesions": 3028, "masses": 116}

    def _cohort(self, account: Account, seed: int, task: PatchTask | None) -> Cohort:
        """Outlines are needed for all but whole images that are told apart by their BI-RADS."""
        outlines_needed = task is not None and not (task.whole_image and task.label == "malignancy")
        exams = self._read(account, outlines_needed=outlines_needed)
        return account.cohort(exams, self.max_bad_fraction, task)

    def _exams(self, account: Account) -> list[Exam]:
        return self._read(account, outlines_needed=False)

    def _read(self, account: Account, *, outlines_needed: bool) -> list[Exam]:
        images = account.folder("AllDICOMs")
        remedy = "add it, or set `table`" if self.table is None else "correct `table`"
        rows, named = _rows(account, self._table(images.parent), remedy)
        files, patients = _dicoms(account, images)
        for name in sorted(set(files) - named):
            account.things += 1
            account.fault("file_without_row", f"{files[name].name}: no row of the table has the file name {name}")
        for name in sorted(set(rows) - set(files) - account.several):
            account.fault(
                "row_without_file", f"{rows[name]['where']}: no file AllDICOMs/{name}_*.dcm; add it or drop the row"
            )
        looks = account.looks({name: files[name] for name in sorted(set(rows) & set(files))})
        folder = images.parent / "AllXML"
        if outlines_needed and not folder.is_dir():
            account.refuse("missing_file", f"{folder} does not exist, and the task needs the outlines in it; add it, or take whole "
                           "images and `label: malignancy`, for which BI-RADS is enough")  # fmt: skip
        outlines = _outlines(account, folder, named)
        outlined = {file.stem for file in files_in(folder, "*.xml")}
        account.unlisted({file for file in files_in(images) if _is_image_of_the_archive(file)})
        exams, counts = [], {"outlines": 0, "single_points": 0}
        for name, look in looks.items():
            found = outlines.get(name, [])
            if name not in outlined and rows[name]["bi_rads"] not in ("", "1"):
                account.fact("without_outlines", name)
                if outlines_needed and self._malignant(rows[name]["bi_rads"]):
                    account.things += 1
                    account.fault("row_without_file", f"{rows[name]['where']}: BI-RADS {rows[name]['bi_rads']}, and no file "
                                  f"AllXML/{name}.xml says where its lesion is; add it or drop the row")  # fmt: skip
            lesions = self._lesions(account, name, look, found, rows[name]["bi_rads"], counts)
            exams.append(account.exam(
                look, files[name], patient=patients[name], name=name, view=rows[name]["view"],
                laterality=rows[name]["laterality"], density=rows[name]["acr"],
                malignant=self._malignant(rows[name]["bi_rads"]), lesions=tuple(lesions),
                usable_as_healthy=rows[name]["bi_rads"] == "1" and not found, own_label=True,
            ))  # fmt: skip
        account.report["outlines"] = counts["outlines"]
        account.note("single_points", counts["single_points"], "areas of a single pixel" + (
            "" if self.single_points else ", which are not lesions; no healthy box is drawn from their images"
        ))  # fmt: skip
        return exams

    def _table(self, folder: Path) -> Path:
        if self.table is not None:
            return folder / self.table
        known = [folder / f"INbreast{suffix}" for suffix in (".csv", ".xls", ".xlsx")]
        return next((file for file in known if file.is_file()), known[1])

    def _malignant(self, birads: str) -> bool | None:
        return True if birads in self.malignant else False if birads in self.benign else None

    def _lesions(
        self, account: Account, name: str, look: FileLook, found: list[tuple[str, np.ndarray]], birads: str, counts: dict
    ) -> list[Lesion]:  # fmt: skip
        """The connected areas of each kind of outline on one image."""
        lesions = []
        for kind in dict.fromkeys(kind for kind, _ in found):
            contours = []
            for contour in (contour for other, contour in found if other == kind):
                if account.inside(name, f"{name}.xml: the {kind}", pixel_box(contour), look.shape) is not None:
                    contours.append(contour)
            counts["outlines"] += len(contours)
            for area in painted_areas(contours, look.shape):
                counts["single_points"] += area.pixels == 1
                if area.pixels > 1 or self.single_points:
                    own = contours[area.outlines[0]] if len(area.outlines) == 1 else None
                    lesions.append(Lesion(area.box, kind, self._malignant(birads), birads, own))
        return lesions


def _rows(account: Account, path: Path, remedy: str) -> tuple[dict[str, dict[str, str]], set[str]]:
    """Rows of the table by file name, with their cells checked, and every file name of the table."""
    named: set[str] = set()
    rows: dict[str, dict[str, str]] = {}
    footers = 0
    for number, cells in account.records(path, COLUMNS, remedy=remedy):
        where = f"{path.name} row {number}"
        name, word = without_decimals(cells["file_name"]), cells["view"].upper()
        try:
            density, wrong = grade(cells["acr"], "ACR", ("1", "2", "3", "4")), ""
        except BadCell as error:
            density, wrong = "", str(error)
        row = {
            "where": where, "laterality": cells["laterality"].upper(), "view": VIEWS.get(word, ""),
            "acr": density, "bi_rads": without_decimals(cells["bi_rads"]).lower(),
        }  # fmt: skip
        if not is_known(name):  # the sheet ends with rows of sums
            footers += 1
            account.things -= 1
        elif name in named:
            account.fault(
                "duplicate_image", f"{where}: file name {name} is in an earlier row already; keep one of them"
            )
            if name in rows and rows[name]["bi_rads"] != row["bi_rads"]:
                rows[name]["bi_rads"] = ""  # which of them is meant is not known
        elif row["bi_rads"] not in BIRADS:
            account.fault(
                "unknown_label", f"{where}: Bi-Rads {cells['bi_rads']!r} is unknown; known: {', '.join(BIRADS)}"
            )
        elif row["laterality"] not in ("L", "R") or not is_view(word):
            account.fault(
                "unknown_label",
                f"{where}: {cells['laterality']!r} {cells['view']!r} is not a side (L, R) and a view (CC, MLO)",
            )
        elif not row["view"]:
            account.leave_out("other_views", where)
        elif wrong:
            account.fault("unknown_label", f"{where}: {wrong}")
        else:
            rows[name] = row
        named.add(name)
    account.note("rows_without_file_name", footers, "rows of the table without a file name, taken as its footer")
    return rows, named


def _dicoms(account: Account, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Image file and patient by file name, from names such as 20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm."""
    named: list[Path] = []
    for file in files_in(folder):
        if not _is_image_of_the_archive(file):
            continue
        if file.stem.count("_") < 2:
            account.things += 1
            account.fault(
                "bad_value", f"{file.name}: its name holds no patient's code (NUMBER_PATIENT_MG_...); rename it"
            )
        else:
            named.append(file)
    files = account.one_each(named, lambda file: file.stem.split("_")[0])
    return files, {name: file.stem.split("_")[1] for name, file in files.items()}


def _is_image_of_the_archive(file: Path) -> bool:
    return file.suffix.lower() == ".dcm" or is_dicom(file)


def _outlines(account: Account, folder: Path, known: set[str]) -> dict[str, list[tuple[str, np.ndarray]]]:
    """(kind, points (k, 2) of (y, x)) of each outline, by file name. Normal images have no file."""
    found: dict[str, list[tuple[str, np.ndarray]]] = {}
    for file in files_in(folder, "*.xml"):
        account.things += 1
        if file.stem not in known:
            account.fault("lesion_without_row", f"{file.name}: no row of the table has the file name {file.stem}")
            continue
        try:
            content = plistlib.loads(read_bytes(file, account.limits), fmt=plistlib.FMT_XML)
            regions = [dict(region) for region in content["Images"][0]["ROIs"]]
        except Exception as error:  # of expat, of plistlib, or of indexing a list of another shape
            account.unread.add(file.stem)
            account.fault(
                "bad_annotation", f"{file.name} is not an OsiriX list of outlines ({brief(error)}); copy it again"
            )
            continue
        for number, region in enumerate(regions, start=1):
            where = f"{file.name} outline {number}"
            label = str(region.get("Name", "")).strip()
            points = [[float(value) for value in NUMBER.findall(str(text))] for text in region.get("Point_px", ())]
            announced = region.get("NumberOfPoints", len(points))
            if label.lower() not in KINDS:
                problem = (
                    "unknown_label",
                    f"{where}: kind {label!r} is unknown; known: {', '.join(name for name in KINDS if name)}",
                )
            elif not points or announced != len(points) or any(len(point) != 2 for point in points):
                problem = (
                    "bad_annotation",
                    f"{where}: {len(points)} points of (x, y), {announced} announced; copy the file again",
                )
            else:
                xy = np.array(points, dtype=np.float64)
                found.setdefault(file.stem, []).append((KINDS[label.lower()], xy[:, ::-1]))
                continue
            account.unread.add(file.stem)
            account.fault(*problem)
    return found
