"""DDSM (Heath et al. 2001): scanned film, one folder per case with an .ics file and a chain-coded overlay per image.

The images are in a lossless JPEG of their own that no current decoder reads. Convert them first (at full size, names
kept), for example to 16-bit PNG. The boundary of each abnormality is a lesion; the cores inside it are not read. Images
of cases without any overlay, the archive's normal volumes, are healthy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from data_partitions.archives.account import Account
from data_partitions.archives.archive import ArchiveSource
from data_partitions.errors import BadFile
from data_partitions.exams import Exam, Lesion
from data_partitions.reading.cells import BadCell, age, decimal, grade, whole
from data_partitions.reading.contours import pixel_box
from data_partitions.reading.folders import files_below, files_in
from data_partitions.reading.image_files import is_image
from data_partitions.reading.looks import FileLook
from data_partitions.reading.opening import guarded, read_bytes
from data_partitions.reading.views import is_side_and_view

VIEWS = {"LEFT_CC": ("L", "CC"), "LEFT_MLO": ("L", "MLO"), "RIGHT_CC": ("R", "CC"), "RIGHT_MLO": ("R", "MLO")}
# x and y of the steps 0 .. 7: up, then clockwise.
STEPS = np.array([(0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1)])
MARKED, UNMARKED = "OVERLAY", "NON_OVERLAY"  # how a line about an image ends
GRADES = ("1", "2", "3", "4")
KINDS = {"MASS": "mass", "CALCIFICATION": "calcification", "OTHER": "other"}
PATHOLOGY = {"MALIGNANT": True, "BENIGN": False, "BENIGN_WITHOUT_CALLBACK": False, "UNPROVEN": None}


class Abnormality(NamedTuple):
    """One entry of an overlay: its kind, label, BI-RADS and boundary (k, 2) of (y, x)."""

    kind: str
    malignant: bool | None
    birads: str
    boundary: np.ndarray


class Picture(NamedTuple):
    """One line of an .ics file: an image of a case."""

    where: str
    laterality: str
    view: str
    shape: tuple[int, int]
    spacing_mm: float | None
    overlay: bool
    stem: Path  # of the files that belong to it: A_1004_1.LEFT_CC


class Case(NamedTuple):
    """One .ics file. normal: each of its lines about an image says that there is no overlay."""

    name: str
    age: float | None
    density: str
    digitizer: str
    pictures: tuple[Picture, ...]
    normal: bool


class DdsmSource(ArchiveSource):
    """A folder with cases at any depth (cases/cancers/cancer_01/case0001, ...)."""

    source: Literal["ddsm"] = "ddsm"

    @property
    def official(self) -> dict[str, int]:
        """Counts of the whole database as its authors give them."""
        return {"images": 4 * 2620, "patients": 2620}

    def _exams(self, account: Account) -> list[Exam]:
        cases = [case for file in files_below(self.path, "*.ics") if (case := _case(account, file)) is not None]
        if not cases:
            account.fault(
                "missing_file",
                f"{self.path} has no .ics file that can be read; set `path` to the folder with the cases",
            )
            account.fatal += account.problems
        self._unlisted(account, cases)
        pictures: dict[str, tuple[Case, Picture]] = {}
        files: dict[str, Path] = {}
        for case in cases:
            for picture in case.pictures:
                name = account.below(picture.stem)
                if name in pictures:
                    account.unread.add(name)
                    account.fault(
                        "duplicate_image",
                        f"{picture.where}: {name} is in {pictures[name][1].where} already; keep one of them",
                    )
                    continue
                file = _file(account, picture)
                if file is not None:
                    pictures[name], files[name] = (case, picture), file
        stems = {picture.stem for case in cases for picture in case.pictures}
        account.unlisted({file for file in files_below(self.path) if file.with_suffix("") in stems})
        exams = []
        for name, look in account.looks(files).items():
            case, picture = pictures[name]
            if look.shape == picture.shape:
                exams.append(self._exam(account, name, case, picture, files[name], look))
            else:
                account.fault(
                    "image_size",
                    f"{picture.where}: {files[name].name} is {look.shape}, {picture.shape} announced; convert at full size",
                )
        return exams

    def _unlisted(self, account: Account, cases: list[Case]) -> None:
        """Overlays that no .ics file announces; no image of such a case is taken as normal."""
        known = {picture.stem for case in cases for picture in case.pictures if picture.overlay}
        for file in files_below(self.path, "*.OVERLAY"):
            if file.with_suffix("") not in known and not account.fatal:
                account.things += 1
                account.fault("lesion_without_row", f"{account.below(file)}: no .ics file announces this overlay")
                beside = (p.stem for case in cases for p in case.pictures if p.stem.parent == file.parent)
                account.unread.update(stem.relative_to(self.path).as_posix() for stem in beside)

    def _exam(
        self, account: Account, name: str, case: Case, picture: Picture, file: Path, look: FileLook
    ) -> Exam:  # fmt: skip
        lesions = []
        for number, found in enumerate(_overlay(account, name, picture) if picture.overlay else [], start=1):
            where = f"{picture.stem.name}.OVERLAY abnormality {number}"
            if account.repeated(name, where, (found.kind, found.malignant, found.boundary.tobytes())):
                continue
            box = account.inside(name, where, pixel_box(found.boundary), look.shape)
            if box is not None:
                lesions.append(Lesion(box, found.kind, found.malignant, found.birads, found.boundary))
        labels = [lesion.malignant for lesion in lesions]
        malignant = True if True in labels else False if case.normal or (labels and None not in labels) else None
        return account.exam(
            look, file, patient=case.name, name=name, view=picture.view, laterality=picture.laterality,
            density=case.density, age=case.age, malignant=malignant, lesions=tuple(lesions), usable_as_healthy=case.normal,
            spacing_mm=picture.spacing_mm, scanner=case.digitizer,
        )  # fmt: skip


def chain(x: int, y: int, code: str) -> np.ndarray:
    """Points (k + 1, 2) of (y, x) of a boundary that starts at (x, y) and takes the k steps of `code`, digits 0 to 7."""
    steps = STEPS[[int(digit) for digit in code]] if code else np.empty((0, 2), dtype=int)
    xy = np.vstack([[(x, y)], steps]).cumsum(axis=0)
    return xy[:, ::-1].astype(np.float64)


def _case(account: Account, file: Path) -> Case | None:
    text = _text(account, file)
    if text is None:
        account.things += 1
        return None
    lines = [line.split() for line in text.splitlines() if line.strip()]
    values = {words[0]: " ".join(words[1:]) for words in lines}
    name = values.get("filename", "") or file.stem
    pictures = []
    normal = True
    for words in lines:
        where = f"{file.name} {words[0]}"
        if words[0] not in VIEWS:
            if "PIXELS_PER_LINE" not in words and "LINES" not in words:
                continue
            if is_side_and_view(words[0]):
                account.fact("other_views", where)
            else:
                account.things += 1
                account.fault(
                    "unknown_label", f"{where} is no side and view; known: {', '.join(VIEWS)}; correct the line"
                )
            normal &= words[-1] == UNMARKED
            continue
        account.things += 1
        normal &= words[-1] == UNMARKED
        try:
            picture = _picture(where, words, file.parent / f"{name.replace('-', '_')}.{words[0]}")
        except BadCell as error:
            account.fault("bad_value", f"{where}: {error}")
            continue
        pictures.append(picture)
    if not pictures:
        account.things += 1
        account.fault(
            "bad_table", f"{file.name}: names no image (LEFT_CC, LEFT_MLO, RIGHT_CC, RIGHT_MLO); copy it again"
        )
        return None
    try:
        years, density = (
            age(values.get("PATIENT_AGE", ""), "PATIENT_AGE"),
            grade(values.get("DENSITY", ""), "DENSITY", GRADES),
        )
    except BadCell as error:
        account.fault("bad_value", f"{file.name}: {error}")
        return None
    return Case(name, years, density, values.get("DIGITIZER", ""), tuple(pictures), normal)


def _picture(where: str, words: list[str], stem: Path) -> Picture:
    """What a line says of its image. Raises BadCell."""
    values = dict(zip(words, words[1:], strict=False))
    try:
        shape = tuple(whole(values.get(key, ""), key) or 0 for key in ("LINES", "PIXELS_PER_LINE"))
    except BadCell:
        shape = (0, 0)
    if 0 in shape:
        raise BadCell("LINES and PIXELS_PER_LINE do not give the size of the image; correct the line")
    if words[-1] not in (MARKED, UNMARKED):
        raise BadCell(f"the line ends in {words[-1]!r}, and not in {MARKED} or {UNMARKED}; correct it")
    microns = decimal(values.get("RESOLUTION", ""), "RESOLUTION", 0, 1000)
    spacing_mm = microns / 1000 if microns else None
    return Picture(where, *VIEWS[words[0]], (shape[0], shape[1]), spacing_mm, words[-1] == MARKED, stem)


def _text(account: Account, file: Path) -> str | None:
    """The text of a file; None, and a fault, where it cannot be read."""
    try:
        with guarded("bad_table", "cannot be read", "copy it again"):
            return read_bytes(file, account.limits).decode("latin-1")
    except BadFile as error:
        account.fault(error.code, f"{file.name} {error}")
        return None


def _file(account: Account, picture: Picture) -> Path | None:
    """The converted image: A_1004_1.LEFT_CC.png, or with the ending of any other format of images."""
    beside = [file for file in files_in(picture.stem.parent) if file.name.startswith(f"{picture.stem.name}.")]
    found = account.one_each((file for file in beside if is_image(file)), lambda _: picture.stem)
    if found or picture.stem in account.several:
        return found.get(picture.stem)
    if (packed := picture.stem.with_name(picture.stem.name + ".LJPEG")).exists():
        account.fault(
            "not_converted",
            f"{picture.where}: {packed.name} cannot be read; convert it to {picture.stem.name}.png at full size",
        )
    else:
        account.fault("row_without_file", f"{picture.where}: no file {picture.stem.name}.png; add it or drop the line")
    return None


def _overlay(account: Account, name: str, picture: Picture) -> list[Abnormality]:
    """The abnormalities of one overlay; one that cannot be read is a fault."""
    file = picture.stem.with_name(picture.stem.name + ".OVERLAY")
    if not file.is_file():
        account.unread.add(name)
        account.fault("row_without_file", f"{picture.where}: overlay {file.name} is announced but missing; add it")
        return []
    text = _text(account, file)
    if text is None:
        account.unread.add(name)
        return []
    head, *entries = re.split(r"^\s*ABNORMALITY\b", text, flags=re.MULTILINE)
    total = re.search(r"TOTAL_ABNORMALITIES\s+(\d{1,9})\b", head)
    if total is None or int(total[1]) != len(entries):
        account.unread.add(name)
        announced = total[1] if total else "none"
        account.fault(
            "bad_annotation", f"{file.name}: {len(entries)} abnormalities, {announced} announced; copy the file again"
        )
    abnormalities = []
    for number, text in enumerate(entries, start=1):
        where = f"{file.name} abnormality {number}"
        kinds = re.findall(r"LESION_TYPE\s+(\S+)", text)
        pathology = re.search(r"PATHOLOGY\s+(\S+)", text)
        assessment = re.search(r"ASSESSMENT\s+(\d)", text)
        boundary = re.search(r"BOUNDARY\s+(\d{1,9})\s+(\d{1,9})\s+([0-7\s]*)#", text)
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            problem = "unknown_label", f"{where}: lesion type {unknown[0]!r} is unknown; known: {', '.join(KINDS)}"
        elif pathology is None or pathology[1] not in PATHOLOGY:
            word = pathology[1] if pathology else ""
            problem = "unknown_label", f"{where}: pathology {word!r} is unknown; known: {', '.join(PATHOLOGY)}"
        elif boundary is None:
            problem = (
                "bad_annotation",
                f"{where}: no boundary of x, y and steps 0 to 7 that ends in #; copy the file again",
            )
        else:
            points = chain(int(boundary[1]), int(boundary[2]), "".join(boundary[3].split()))
            # An abnormality with calcifications in a mass has both types.
            kind = next((KINDS[kind] for kind in KINDS if kind in kinds), "other")
            abnormalities.append(
                Abnormality(kind, PATHOLOGY[pathology[1]], assessment[1] if assessment else "", points)
            )
            continue
        account.unread.add(name)
        account.fault(*problem)
    return abnormalities
