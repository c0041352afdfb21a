"""OPTIMAM Mammography Image Database, OMI-DB (Halling-Brown et al. 2021): screening of the NHS, one folder per client.

`data/CLIENT/imagedb_CLIENT.json` holds the studies with the radiologists' marks (boxes), `nbss_CLIENT.json` the episodes
with the opinions after biopsy and surgery, and `images/CLIENT/STUDY/IMAGE.dcm` the images. An exposure may have
a raw and a processed image: the raw one is left out where the other is there, and views other than CC and MLO are.

A mark's label is the opinion on the lesion that it is linked to, in the same breast and episode: malignant where any
biopsy or operation says so, benign where one says so and none is uncertain, else not known. Images of clients without
any mark, biopsy, operation or interval cancer are healthy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from data_partitions.archives.account import Account
from data_partitions.archives.archive import ArchiveSource
from data_partitions.archives.exposures import Exposure, raw_among
from data_partitions.errors import BadFile, Problem
from data_partitions.exams import Box, Exam, Lesion
from data_partitions.reading.cells import BadCell, flag
from data_partitions.reading.dicom import read_header
from data_partitions.reading.folders import files_below, folders_in
from data_partitions.reading.limits import Limits
from data_partitions.reading.looks import FileLook, looks
from data_partitions.reading.opening import guarded, read_bytes

EVENTS = ("SURGERY", "BIOPSYWIDE", "BIOPSYFINE")
# Opinions after biopsy (B), cytology (C), histology (H), and overall (O), as codes or in words.
MALIGNANT = ("B5", "C5", "H5", "OM", "Malignant", "Cyt malig", "Hist malignant", "O Malignant")
BENIGN = ("B2", "C2", "H1", "H2", "OB", "Benign", "Cyt benign", "Histol normal", "Histol benign", "O Benign")
OPEN = ("B1", "B3", "B4", "BA", "C1", "C3", "C4", "H0", "ON", "OS", "OU", "Unsatis/Normal", "Benign unc mal", "Susp of malig",
        "Clinical", "Cyt unsatis", "Cyt atypia", "Cyt susp malig", "Hist unreported", "O Normal", "O Suspicious", "O Uncertain",
        "Normal", "Suspicious", "Uncertain")  # fmt: skip
MARK = {"markid", "x1", "y1", "x2", "y2"}
SIGNS = {
    "Mass": "mass", "SuspiciousCalcifications": "calcification", "WithCalcification": "calcification",
    "Dystrophic": "calcification", "MilkOfCalcium": "calcification", "OtherBenignCluster": "calcification",
    "PlasmaCellMastitis": "calcification", "SutureCalcification": "calcification", "Vascular": "calcification",
    "ArchitecturalDistortion": "distortion",
}  # fmt: skip


class HeaderLook(NamedTuple):
    """What the header of one image says, or what is wrong."""

    intent: str = ""
    laterality: str = ""
    view: str = ""
    age: float | None = None
    code: str = ""
    text: str = ""


class Entry(NamedTuple):
    """One image in the database: its file, client, marks and episode ({} without one)."""

    file: Path
    client: str
    where: str
    marks: dict[str, dict[str, Any]]
    episode: dict[str, Any]
    healthy: bool


class OmiDbSource(ArchiveSource):
    """A folder with `data` and `images`, each with one folder per client."""

    source: Literal["omi_db"] = "omi_db"
    sites: tuple[str, ...] = Field(
        (), description="take the clients of these screening sites (codes); all when left out"
    )
    missing_images: Literal["refuse", "skip"] = Field(
        "refuse",
        description="skip: only part of the images was obtained; missing ones are counted and left out",
    )

    @property
    def in_papers(self) -> dict[str, int]:
        """Szafranowska et al. (2022), in the part that their generator was trained on; the database itself grows."""
        return {"masses": 2215}

    def _exams(self, account: Account) -> list[Exam]:
        data, images = account.folder("data"), account.folder("images")
        entries: dict[str, Entry] = {}
        sites: set[str] = set()
        elsewhere: list[Path] = []  # images of clients of other sites
        for folder in folders_in(data) if not account.fatal else []:
            for name, entry in self._client(account, folder, images, sites, elsewhere):
                entries[name] = entry
        if self.sites and not account.fatal and (unknown := set(self.sites) - sites):
            account.fatal.append(Problem(
                "unknown_centre", f"{self.path}: no client of site {', '.join(sorted(unknown))}; it has {', '.join(sorted(sites))}"
            ))  # fmt: skip
        account.things += len(entries)
        present = {name: entry for name, entry in entries.items() if entry.file.is_file()}
        if self.missing_images == "skip":
            account.note("missing_images", len(entries) - len(present), "images of the database are missing, left out")
        else:
            for name in sorted(set(entries) - set(present)):
                account.fault(
                    "row_without_file",
                    f"{entries[name].where}: file {name}.dcm does not exist; add it, or set `missing_images: skip`",
                )
        known = {entry.file for entry in entries.values()}
        account.unlisted(known.union(*(files_below(folder) for folder in elsewhere)))
        headers = self._shown(account, present)
        found = account.looks({name: present[name].file for name in headers})
        return [self._exam(account, name, present[name], headers[name], look) for name, look in found.items()]

    def _client(
        self, account: Account, folder: Path, images: Path, sites: set[str], elsewhere: list[Path]
    ) -> Iterator[tuple[str, Entry]]:
        """Every image of one client of the chosen sites."""
        client = folder.name
        imagedb = _json(account, folder, "imagedb")
        if imagedb is None:
            return
        site = str(imagedb.get("Site") or "")
        sites.add(site)
        if self.sites and site not in self.sites:
            elsewhere.append(images / client)
            return
        nbss = _json(account, folder, "nbss")
        studies = imagedb.get("STUDIES")
        if not isinstance(studies, dict):
            account.things += 1
            account.fault("bad_annotation", f"imagedb_{client}.json: has no STUDIES; copy it again")
            return
        found = [
            (study, image, _marks(marks), str(content.get("EpisodeID") or ""))
            for study, content in studies.items() if isinstance(content, dict)
            for series in content.values() if isinstance(series, dict)
            for image, marks in series.items() if image[:1].isdigit()
        ]  # fmt: skip
        healthy = nbss is not None and _is_healthy(nbss) and not any(marks for _, _, marks, _ in found)
        for study, image, marks, episode in found:
            of_episode = (nbss or {}).get(episode)
            yield f"{client}/{study}/{image}", Entry(
                images / client / study / f"{image}.dcm", client, f"imagedb_{client}.json image {image}", marks,
                of_episode if isinstance(of_episode, dict) else {}, healthy,
            )  # fmt: skip

    def _shown(self, account: Account, entries: dict[str, Entry]) -> dict[str, HeaderLook]:
        """Headers of the images in the views CC and MLO, without raw ones beside those that a reader sees; others are counted."""
        files = [entry.file for entry in entries.values()] if not account.fatal else []
        headers = dict(
            zip(entries, looks(files, account.cache, "dicom_headers", _look, HeaderLook, self.limits), strict=False)
        )
        study = {name: (entries[name].client, entries[name].file.parent.name) for name in headers}
        raw = raw_among(
            (name, Exposure(*study[name], header.laterality, header.view), header.intent)
            for name, header in headers.items()
        )
        # An image that cannot be read may be the one for presentation, so raw ones of its study do not take its place.
        unclear = {study[name] for name, header in headers.items() if header.code}
        double = {*raw.double, *(name for name in raw.alone if study[name] in unclear)}
        shown: dict[str, HeaderLook] = {}
        for name, header in headers.items():
            if header.code:
                account.fault(header.code, f"{name}.dcm {header.text}")
            elif name in double:
                account.fact("raw_images", name)
            elif header.view not in ("CC", "MLO") or header.laterality not in ("L", "R"):
                account.fact("other_views", name)
            else:
                shown[name] = header
        return shown

    def _exam(self, account: Account, name: str, entry: Entry, header: HeaderLook, look: FileLook) -> Exam:
        lesions = []
        for number, mark in entry.marks.items():
            where = f"{entry.where} mark {number}"
            box = _box(mark)
            if box is None:
                account.unread.add(name)
                account.fault("bad_annotation", f"{where}: X1, Y1, X2, Y2 are not a box; correct them")
                continue
            inside = account.inside(name, where, box, look.shape)
            if inside is None:
                continue
            kind = next((kind for sign, kind in SIGNS.items() if _has(mark.get(sign))), "other")
            malignant = _opinion(account, where, mark, entry.episode, header.laterality)
            lesions.append(Lesion(inside, kind, malignant))
        labels = [lesion.malignant for lesion in lesions]
        benign = entry.healthy or (bool(labels) and None not in labels)
        return account.exam(
            look, entry.file, patient=entry.client, name=name, view=header.view, laterality=header.laterality,
            age=header.age, malignant=True if True in labels else False if benign else None, lesions=tuple(lesions),
            usable_as_healthy=entry.healthy,
        )  # fmt: skip


def _json(account: Account, folder: Path, kind: str) -> dict[str, Any] | None:
    """imagedb_CLIENT.json or nbss_CLIENT.json, in small letters or capitals; None, and a fault, where it cannot be read."""
    names = [f"{word}_{folder.name}.json" for word in (kind, kind.upper())]
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        account.things += 1
        account.fault("row_without_file", f"{folder.name}: no file {names[0]}; add it or remove the client's folder")
        return None
    account.things += 1
    try:
        with guarded("bad_annotation", "is not JSON", "copy it again"):
            content = json.loads(read_bytes(file, account.limits))
    except BadFile as error:
        account.fault(error.code, f"{file.name} {error}")
        return None
    if not isinstance(content, dict):
        account.fault("bad_annotation", f"{file.name} holds no object; copy it again")
        return None
    return content


def _marks(content: object) -> dict[str, dict[str, Any]]:
    """Marks of one image by their number; an image without any has another value there.

    Whatever has a mark's number or one of its names, in any case of its letters, is taken for a mark: one that is misspelt is a
    fault when its box is read, and its image is not healthy.
    """
    marks = {number: mark for number, mark in _object(content).items() if isinstance(mark, dict)}
    return {
        number: mark for number, mark in marks.items()
        if number.isdigit() or MARK & {str(name).strip().lower() for name in mark}
    }  # fmt: skip


def _has(sign: object) -> bool:
    """Whether a mark has a sign: 1, or the name of the sign itself."""
    try:
        return bool(flag(str(sign if sign is not None else ""), "sign"))
    except BadCell:
        return True


def _is_healthy(nbss: dict[str, Any]) -> bool:
    """No biopsy, no operation and no interval cancer in any episode."""
    episodes = [episode for episode in nbss.values() if isinstance(episode, dict)]
    return bool(episodes) and not any(
        episode.get("EpisodeType") in ("CI", "Interval case") or any(episode.get(event) for event in EVENTS)
        for episode in episodes
    )


def _opinion(account: Account, where: str, mark: dict[str, Any], episode: dict[str, Any], side: str) -> bool | None:
    """What biopsies and operations say of the lesions that a mark is linked to."""
    numbers = [number.strip() for number in str(mark.get("LinkedNBSSLesionNumber") or "").split(",") if number.strip()]
    opinions = []
    for event in EVENTS:
        lesions = _object(_object(episode.get(event)).get(side))
        opinions += [str(_object(lesions.get(number)).get("Opinion") or "") for number in numbers]
    given = [opinion for opinion in opinions if opinion]
    unknown = [opinion for opinion in given if opinion not in (*MALIGNANT, *BENIGN, *OPEN)]
    if unknown:
        account.fault(
            "unknown_label", f"{where}: opinion {unknown[0]!r} is unknown; correct it in the client's nbss file"
        )
        return None
    if any(opinion in MALIGNANT for opinion in given):
        return True
    return False if given and all(opinion in BENIGN for opinion in given) else None


def _object(content: object) -> dict[str, Any]:
    """A JSON object; what is none has no entries."""
    return content if isinstance(content, dict) else {}


def _box(mark: dict[str, Any]) -> Box | None:
    try:
        x1, y1, x2, y2 = (round(float(mark[name])) for name in ("X1", "Y1", "X2", "Y2"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    box = Box(min(y1, y2), min(x1, x2), max(y1, y2), max(x1, x2))
    return box if box.height > 0 and box.width > 0 else None


def _look(file: Path, limits: Limits) -> HeaderLook:
    try:
        header = read_header(file, limits)
    except BadFile as error:
        return HeaderLook(code=error.code, text=str(error))
    return HeaderLook(header.intent, header.laterality.upper(), header.view.upper(), header.age_years)
