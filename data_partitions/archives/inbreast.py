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
from data_partitions.exams import Exam, Lesion
from data_partitions.reading.contours import painted_areas, pixel_box
from data_partitions.reading.folders import files_in
from data_partitions.reading.image_files import is_dicom
from data_partitions.reading.looks import FileLook
from data_partitions.reading.opening import brief, read_bytes

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

    def _exams(self, account: Account) -> list[Exam]:
        images = account.folder("AllDICOMs")
        rows, named = _rows(account, self._table(images.parent))
        files, patients = _dicoms(account, images)
        for name in sorted(set(files) - named):
            account.things += 1
            account.fault("file_without_row", f"{files[name].name}: no row of the table has the file name {name}")
        for name in sorted(set(rows) - set(files) - account.several):
            account.fault(
                "row_without_file", f"{rows[name]['where']}: no file AllDICOMs/{name}_*.dcm; add it or drop the row"
            )
        looks = account.looks({name: files[name] for name in sorted(set(rows) & set(files))})
        outlines = _outlines(account, images.parent / "AllXML", named)
        exams, counts = [], {"outlines": 0, "single_points": 0}
        for name, look in looks.items():
            found = outlines.get(name, [])
            lesions = self._lesions(account, name, look, found, rows[name]["bi_rads"], counts)
            exams.append(account.exam(
                look, files[name], patient=patients[name], name=name, view=rows[name]["view"],
                laterality=rows[name]["laterality"], density=rows[name]["acr"],
                malignant=self._malignant(rows[name]["bi_rads"]), lesions=tuple(lesions),
                usable_as_healthy=rows[name]["bi_rads"] == "1" and not found,
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


def _rows(account: Account, path: Path) -> tuple[dict[str, dict[str, str]], set[str]]:
    """Rows of the table by file name, with their cells checked, and every file name of the table."""
    named: set[str] = set()
    rows: dict[str, dict[str, str]] = {}
    footers = 0
    for number, cells in account.records(path, COLUMNS):
        where = f"{path.name} row {number}"
        name = cells["file_name"]
        row = {
            "where": where, "laterality": cells["laterality"].upper(), "view": VIEWS.get(cells["view"].upper(), ""),
            "acr": cells["acr"], "bi_rads": cells["bi_rads"].lower(),
        }  # fmt: skip
        if not name:  # the sheet ends with rows of sums
            footers += 1
            account.things -= 1
        elif name in named:
            account.fault(
                "duplicate_image", f"{where}: file name {name} is in an earlier row already; keep one of them"
            )
        elif row["bi_rads"] not in BIRADS:
            account.fault(
                "unknown_label", f"{where}: Bi-Rads {cells['bi_rads']!r} is unknown; known: {', '.join(BIRADS)}"
            )
        elif row["laterality"] not in ("L", "R") or not cells["view"]:
            account.fault(
                "unknown_label",
                f"{where}: {cells['laterality']!r} {cells['view']!r} is not a side (L, R) and a view (CC, MLO)",
            )
        elif not row["view"]:
            account.leave_out("other_views", where)
        elif row["acr"] not in ("", "1", "2", "3", "4"):
            account.fault("unknown_label", f"{where}: ACR {cells['acr']!r} is unknown; known: 1, 2, 3, 4")
        else:
            rows[name] = row
        named.add(name)
    account.note("rows_without_file_name", footers, "rows of the table without a file name, taken as its footer")
    return rows, named


def _dicoms(account: Account, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Image file and patient by file name, from names such as 20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm."""
    named: list[Path] = []
    for file in files_in(folder):
        if file.suffix.lower() != ".dcm" and not is_dicom(file):
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
