"""Dermatoscopic images of the ISIC archive in the layouts of three releases: HAM10000, ISIC 2019 and ISIC 2020.

    ham10000   HAM10000_metadata.csv: lesion_id, image_id, dx, ..., maybe dataset (the source: a natural centre)
    2019       ISIC_2019_Training_Metadata.csv and _GroundTruth.csv (one column per diagnosis); no source column: FLamby's
               table of centres (Ogier du Terrail et al. 2022) can be given as `sites`
    2020       ISIC_2020_Training_GroundTruth_v2.csv: image_name, patient_id, target; _Duplicates.csv is honoured

What counts as one person: in 2020 the patient; in the others, which name no patients, the lesion; where 2019 names no
lesion, the image. Malignant: mel, bcc and akiec of HAM10000; MEL, BCC, SCC and AK of 2019 (AK is part of akiec); target of 2020,
which is melanoma.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from data_partitions.archives.account import Account
from data_partitions.archives.archive import ArchiveSource
from data_partitions.dealing.partition import PartitionRule, partition
from data_partitions.exams import Cohort, Exam
from data_partitions.patches import PatchTask
from data_partitions.reading.cells import BadCell, age, flag
from data_partitions.reading.folders import files_below
from data_partitions.reading.image_files import is_image
from data_partitions.reading.label_words import LabelWords, UnknownWord
from data_partitions.small_counts import shown_count

TABLES = {
    "ham10000": (
        "HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab", "HAM10000_metadata_with_source.csv",
    ),
    "2019": ("ISIC_2019_Training_Metadata.csv",),
    "2020": ("ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv", "train.csv"),
}  # fmt: skip
TRUTH_2019 = "ISIC_2019_Training_GroundTruth.csv"
COPIES_2020 = "ISIC_2020_Training_Duplicates.csv"
DIAGNOSES_2019 = ("mel", "nv", "bcc", "ak", "bkl", "df", "vasc", "scc", "unk")
COLUMNS = {"ham10000": ("image_id", "lesion_id", "dx"), "2019": ("image",), "2020": ("image_name", "patient_id")}
POSITIVE = {"ham10000": ("mel", "bcc", "akiec"), "2019": ("mel", "bcc", "scc", "ak"), "2020": ("1", "malignant")}
NEGATIVE = {
    "ham10000": ("nv", "bkl", "df", "vasc"), "2019": ("nv", "bkl", "df", "vasc"), "2020": ("0", "benign"),
}  # fmt: skip
UNLABELLED = {"malignant": None, "diagnosis": ""}
SITES = ("dataset", "center", "centre", "site", "attribution")
IMAGES = ("image", "image_id", "image_name", "isic_id")
# What the archives say of themselves (Tschandl et al. 2018; the challenges' pages of 2019 and 2020).
OFFICIAL = {
    "ham10000": {
        "images": 10015, "patients": 7470, "malignant": 1954, "site vidir_molemax": 3954, "site vidir_modern": 3363,
        "site rosendahl": 2259, "site vienna_dias": 439,
    },
    "2019": {"images": 25331},
    "2020": {"images": 33126, "patients": 2056, "malignant": 584},
}  # fmt: skip


class IsicSource(ArchiveSource):
    """A folder with a release's tables and, at any depth, its images."""

    source: Literal["isic"] = "isic"
    release: Literal["ham10000", "2019", "2020"]
    metadata: str | None = Field(None, description="the release's table, where it has another name")
    sites: str | None = Field(
        None, description="a table of the folder with a column for the image and one for its site"
    )
    centre: str | None = Field(None, description="only patients of this site; `partition: {by: site}` deals out all")
    positive: tuple[str, ...] | None = Field(None, description="diagnoses that count as malignant")
    negative: tuple[str, ...] | None = Field(None, description="diagnoses that count as benign")
    scanner: str = ""

    @field_validator("release", mode="before")
    @classmethod
    def _year(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @property
    def counted_as(self) -> Literal["patient", "lesion", "image"]:
        return "patient" if self.release == "2020" else "lesion"

    @property
    def official(self) -> dict[str, int]:
        """Counts of the whole release as its authors give them."""
        return OFFICIAL[self.release]

    def _cohort(self, account: Account, seed: int, task: PatchTask | None) -> Cohort:
        """Those of `self.centre` where it is given."""
        cohort = super()._cohort(account, seed, task)
        if self.centre is None:
            return cohort
        dealt = partition(cohort, PartitionRule(by="site", centres={self.centre: (self.centre,)}), 0, {})
        exams = [exam for exam in cohort.exams if dealt.home[exam.patient] == self.centre]
        notes = list(cohort.report["notes"])
        if spanning := dealt.report.get("spanning"):
            notes.append(
                f"{shown_count(spanning)} patients have images of several sites; each is kept where most of those are"
            )
        patients = {exam.patient for exam in exams}
        groups = {patient: group for patient, group in cohort.groups.items() if patient in patients}
        private = cohort.private | {"spanning_patients": list(dealt.spanning)}
        return replace(cohort, exams=exams, report=cohort.report | {"notes": notes}, private=private, groups=groups)

    def _exams(self, account: Account) -> list[Exam]:
        found = [file for file in files_below(self.path) if is_image(file)]
        files = account.one_each(found, lambda file: file.stem)
        sites = self._sites(account)
        rows: dict[str, dict[str, Any]] = {}
        for row in self._rows(account):
            if row["name"] in rows:
                account.fault(
                    "duplicate_image",
                    f"{row['where']}: image {row['name']} is in an earlier row already; keep one of them",
                )
                if any(rows[row["name"]][key] != row[key] for key in ("malignant", "diagnosis")):
                    rows[row["name"]].update(UNLABELLED)
            elif row["name"] in account.several:
                continue  # a fault already
            elif row["name"] not in files:
                account.fault("row_without_file", f"{row['where']}: no file {row['name']}.jpg; add it or drop the row")
            else:
                rows[row["name"]] = row
        looks = account.looks({name: files[name] for name in sorted(rows)})
        account.note("images_without_lesion_id", sum(rows[name]["alone"] for name in looks), "images name no lesion; "
                     "each counts as a patient")  # fmt: skip
        told = account.several | set(rows)
        account.unlisted({file for file in found if file.stem in told})
        self._listed_copies(account)
        return [
            account.exam(
                look, files[name], name=name, patient=rows[name]["patient"], view="dermatoscopic", age=rows[name]["age"],
                malignant=rows[name]["malignant"], diagnosis=rows[name]["diagnosis"],
                site=sites.get(name) or rows[name]["site"], scanner=self.scanner,
                dark_background=False,
            )
            for name, look in looks.items()
        ]  # fmt: skip

    def _table(self) -> Path:
        if self.metadata is not None:
            return self.path / self.metadata
        known = [self.path / name for name in TABLES[self.release]]
        return next((file for file in known if file.is_file()), known[0])

    def _rows(self, account: Account) -> Iterator[dict[str, Any]]:
        """The rows that can be read: name, patient, malignant (None where not known), diagnosis, age, site, where."""
        words = LabelWords(self.positive or POSITIVE[self.release], self.negative or NEGATIVE[self.release])
        table = self._table()
        truth = self._truth(account) if self.release == "2019" else {}
        remedy = "add it, or set `metadata`" if self.metadata is None else "correct `metadata`"
        named: set[str] = set()
        for number, cells in account.records(table, COLUMNS[self.release], remedy=remedy):
            where = f"{table.name} row {number}"
            name = next((cells[column] for column in IMAGES if cells.get(column)), "")
            person = cells.get("patient_id" if self.release == "2020" else "lesion_id", "")
            if not name or (not person and self.release != "2019"):
                missing = COLUMNS[self.release][0 if not name else 1]
                account.fault("bad_value", f"{where}: {missing} is empty; fill it in or drop the row")
                continue
            named.add(name)
            if truth and name not in truth and not any(diagnosis in cells for diagnosis in DIAGNOSES_2019):
                account.fault("bad_value", f"{where}: no row of {TRUTH_2019} names {name}; add it or drop the row")
                continue
            try:
                word = self._word(truth.get(name, cells))
                malignant = None if word in ("", "unk") else words.read(word)
                years = age(cells.get("age") or cells.get("age_approx") or "")
            except UnknownWord:
                known = ", ".join((*words.positive, *words.negative))
                account.fault("unknown_label", f"{where}: {word!r} is unknown; known: {known}; correct it or list it")
                continue
            except BadCell as error:
                account.fault("bad_value", f"{where}: {error}")
                continue
            yield {
                "where": where, "name": name, "patient": person or name, "alone": not person, "malignant": malignant,
                "diagnosis": "" if self.release == "2020" or word == "unk" else word, "age": years,
                "site": next((cells[column] for column in SITES if cells.get(column)), ""),
            }  # fmt: skip
        for name in sorted(set(truth) - named) if not account.fatal else ():
            account.things += 1
            account.fault(
                "label_without_row", f"{TRUTH_2019}: {name} has no row in {table.name}; add it, or drop the row"
            )

    def _word(self, cells: dict[str, str]) -> str:
        """The diagnosis of a row in one word; "" where it has none, several words where it has several. Raises BadCell."""
        if self.release == "ham10000":
            return cells.get("dx", "").lower()
        if self.release == "2020":
            return cells.get("target") or cells.get("benign_malignant", "")
        return " and ".join(name for name in DIAGNOSES_2019 if flag(cells.get(name, ""), name.upper()))

    def _truth(self, account: Account) -> dict[str, dict[str, str]]:
        """ISIC 2019 keeps diagnoses in a table of their own; some copies have them in the table of metadata."""
        file = self.path / TRUTH_2019
        if not file.is_file():
            return {}
        found: dict[str, dict[str, str]] = {}
        rows = account.records(file, ("image",), counted=False)  # the images were counted in the other table
        for number, cells in rows:
            name = cells["image"]
            if name not in found:
                found[name] = cells
                continue
            account.fault(
                "duplicate_image",
                f"{file.name} row {number}: image {name} is in an earlier row already; keep one of them",
            )
            if found[name] != cells:
                found[name] = {}  # which of them is meant is not known
        return found

    def _sites(self, account: Account) -> dict[str, str]:
        if self.sites is None:
            return {}
        rows = account.records(self.path / self.sites, (), counted=False, remedy="correct `sites`")
        columns = rows[0][1] if rows else {}
        image, site = (next((name for name in names if name in columns), None) for names in (IMAGES, SITES))
        if rows and (image is None or site is None):
            account.refuse(
                "bad_columns", f"{self.sites}: needs one of {', '.join(IMAGES)} and one of {', '.join(SITES)}"
            )
            return {}
        found: dict[str, str] = {}
        for number, cells in rows:
            name, place = cells[str(image)], cells[str(site)]
            if found.setdefault(name, place) != place:
                account.fault("duplicate_image", f"{self.sites} row {number}: image {name} has site {found[name]!r} in an earlier row and "
                              f"{place!r} here; keep one of them")  # fmt: skip
        return found

    def _listed_copies(self, account: Account) -> None:
        """Pictures that the 2020 release lists as duplicates count as copies, though their bytes differ."""
        file = self.path / COPIES_2020
        if self.release != "2020" or not file.is_file():
            return
        for _, cells in account.records(file, ("image_name_1", "image_name_2"), counted=False):
            first, second = cells["image_name_1"], cells["image_name_2"]
            if first in account.digests and second in account.digests:
                account.merge(first, second)
