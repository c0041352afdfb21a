"""A folder of images with a table, `metadata.csv`, of one row per image, and maybe a table of lesions or a folder of masks.

Centres come from the table (column `centre`: natural centres) or from `part: k/n`, a patient-disjoint share of the
folder (simulated centres); see `folder_share`. Images whose decoded pixels are equal show one person, whatever the table
says, so their patients become one group.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from data_partitions.archives.account import Account
from data_partitions.archives.archive import FileSource
from data_partitions.archives.folder_share import FolderShare
from data_partitions.errors import DataError
from data_partitions.exams import Cohort, Exam, Lesion
from data_partitions.patches import PatchTask
from data_partitions.reading.folder_tables import (
    KINDS,
    LesionTable,
    Metadata,
    read_lesions,
    read_metadata,
)  # fmt: skip
from data_partitions.reading.folders import files_below
from data_partitions.reading.image_files import is_image
from data_partitions.reading.label_words import NEGATIVE, POSITIVE, LabelWords, plain
from data_partitions.reading.looks import FileLook
from data_partitions.reading.mask_folder import lesion_of_word, read_masks
from data_partitions.reading.masks import IGNORED, Found, MaskRule


def _part(value: object) -> object:
    """ "2/3" as in YAML, to (2, 3)."""
    if isinstance(value, str):
        number, _, total = value.partition("/")
        if not (number.strip().isdigit() and total.strip().isdigit()):
            raise ValueError(f"part {value!r} is not of the form k/n, such as 1/3")
        return int(number), int(total)
    return value


class FolderSource(FileSource):
    """Images in a folder; the field names are the keys of the scenario."""

    source: Literal["folder"] = "folder"
    metadata: str = "metadata.csv"
    lesions: str | None = Field(None, description="table of lesions in the folder")
    masks: str | None = Field(
        None, description="folder of masks in the folder, named for their images; instead of `lesions`"
    )
    mask_classes: dict[int, str] = Field(
        default_factory=dict, description="class numbers of the masks: a kind of lesion, a label, a diagnosis, or none"
    )
    mask_threshold: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="masks are soft: what is above this share of their largest possible value is the lesion",
    )
    centre: str | None = Field(None, description="take the rows with this value in the column `centre`")
    part: Annotated[tuple[int, int] | None, BeforeValidator(_part)] = Field(None, description="k/n: share k of n")
    part_seed: int = Field(0, description="how the parts are dealt; equal for all centres that share an archive")
    images: int | None = Field(None, ge=1, description="at most this many images, by patient, stratified by label")
    columns: dict[str, str] = Field(default_factory=dict, description="our name: the table's column")
    kinds: dict[str, str] = Field(default_factory=dict, description="the table's kind of lesion: ours")
    positive: tuple[str, ...] = Field(POSITIVE, min_length=1, description="labels that count as malignant")
    negative: tuple[str, ...] = Field(
        NEGATIVE, description="labels that count as benign; none, or `positive` alone: every other label that is known"
    )
    scanner: str = ""
    spacing_mm: float | None = Field(None, gt=0, description="of all images, where no column says")
    background: Literal["dark", "none"] = Field("dark", description="none: the whole image is tissue")

    @model_validator(mode="before")
    @classmethod
    def _words(cls, data: object) -> object:
        """`positive: malignant` and `positive: 1` mean a list of one; given alone, all other words are negative."""
        if not isinstance(data, dict):
            return data
        given = {}
        for name in ("positive", "negative"):
            value = data.get(name)
            if isinstance(value, (str, int, float)):
                value = [value]
            if isinstance(value, (list, tuple)):
                given[name] = tuple(str(word) if isinstance(word, (str, int, float)) else word for word in value)
        if "positive" in given:
            # An empty tuple, not a flag: it says the same after the source was written out and read again.
            given.setdefault("negative", data.get("negative", ()))
        return data | given

    @model_validator(mode="after")
    def _no_word_is_both(self) -> FolderSource:
        both = sorted({plain(word) for word in self.positive} & {plain(word) for word in self.negative})
        if both:
            raise ValueError(f"{', '.join(both)} is in `positive` and in `negative`; a label means one of them")
        return self

    @model_validator(mode="after")
    def _lesions_once(self) -> FolderSource:
        if self.lesions is not None and self.masks is not None:
            raise ValueError(f"lesions {self.lesions!r} and masks {self.masks!r} are both given; name one of them")
        return self

    @model_validator(mode="after")
    def _numbers_or_shares(self) -> FolderSource:
        if self.mask_classes and self.mask_threshold is not None:
            raise ValueError(
                "mask_classes and mask_threshold are both given; numbers of classes have no threshold: remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _part_exists(self) -> FolderSource:
        if self.part and not 1 <= self.part[0] <= self.part[1]:
            raise ValueError(f"part {self.part[0]}/{self.part[1]} does not exist; count from 1/{self.part[1]}")
        return self

    def remedy(self, task: PatchTask) -> str:
        if self.masks is not None:
            return "check the masks, set `lesions: all` in the task, or choose another centre or part"
        if self.lesions is None:
            return "name the table of lesions in the data's `lesions`, or set `whole_image: true` in the task"
        remedy = f"check the coordinates in {self.lesions}, or choose another centre, part or task"
        if task.lesions == "all":
            return remedy
        return f"map the table's words to {task.lesions} in `kinds`, set `lesions: all`, {remedy}"

    def _cohort(self, account: Account, seed: int, task: PatchTask | None) -> Cohort:
        metadata = self._metadata()
        account.things = len(metadata.rows) + len(metadata.problems)
        account.problems += metadata.problems
        for fact, count in metadata.facts.items():
            account.fact(fact, self.metadata, times=count)
        rows, looks = self._usable_rows(metadata, account)
        table = self._lesions(metadata, rows, looks, account)
        account.problems += table.problems
        for fact, where in table.facts:
            account.fact(fact, where)
        account.unread |= table.unread | metadata.disputed
        account.unplaced.update(table.without_place)
        labels = {row["image"]: self._malignant(row, table, metadata) for row in rows}
        if task is not None and task.label == "malignancy":
            rows = self._labelled(rows, labels, table, task, account)
        exams = [self._exam(row, looks[row["image"]], table, labels[row["image"]], account) for row in rows]
        cohort = account.cohort(exams, self.max_bad_fraction, None)
        share = FolderShare(self.centre, self.part, self.part_seed, self.images)
        malignant = {row["image"] for row in rows if row["malignant"]}
        cohort = share.of(cohort, account, seed, malignant, set(table.lesions))
        placeless = [exam.name for exam in cohort.exams if exam.name in table.without_place]
        account.note(
            "lesions_without_coordinates", len(placeless),
            "images hold a lesion without coordinates, which is left out; no healthy box is drawn from them",
        )  # fmt: skip
        if placeless:
            account.private["lesions_without_coordinates"] = placeless
        return cohort

    @property
    def _label_words(self) -> LabelWords:
        return LabelWords(self.positive, self.negative)

    def _metadata(self) -> Metadata:
        """The table of images. Where it cannot be read, the faults of the table of lesions are reported with its own."""
        try:
            return read_metadata(self.path / self.metadata, self.columns, self._label_words, self.encoding, self.limits)
        except DataError as error:
            if self.lesions is None:
                raise
            try:
                self._lesion_table({}, set())
            except DataError as other:
                raise DataError.of([*error.problems, *other.problems], f"{self.path}") from None
            raise

    def _usable_rows(self, metadata: Metadata, account: Account) -> tuple[list[dict], dict[str, FileLook]]:
        """Rows whose image exists and decodes, and what one look at each of these files showed."""
        files: dict[str, Path] = {}
        names: dict[str, str] = {}
        at: dict[str, dict] = {}  # a file's whole path -> the row that names it
        for row in metadata.rows:
            image, where = row["image"], f"{self.metadata} row {row['row']}"
            names[image] = where
            whole = os.path.abspath(self.path / image)
            if not (self.path / image).is_file():
                account.fault("row_without_file", f"{where}: file {image} does not exist; add it or drop the row")
            elif (first := at.setdefault(whole, row)) is not row:
                account.fault(
                    "duplicate_image", f"{where}: {image} is the image of row {first['row']}; keep one of them"
                )
                metadata.settle(first, row)
            else:
                files[image] = self.path / image
        account.fact("files_without_row", *self._unlisted(set(at)))
        looks = account.looks(files, names)
        return [row for row in metadata.rows if row["image"] in looks], looks

    def _unlisted(self, listed: set[str]) -> list[str]:
        """Image files, masks aside, that no row names. listed: whole paths."""
        masks = None if self.masks is None else self.path / self.masks
        files = [
            file for file in files_below(self.path)
            if os.path.abspath(file) not in listed and masks not in file.parents
        ]  # fmt: skip
        return [file.relative_to(self.path).as_posix() for file in files if is_image(file)]

    def _lesions(
        self, metadata: Metadata, rows: list[dict], looks: dict[str, FileLook], account: Account
    ) -> LesionTable:
        known = {row["image"] for row in metadata.rows}
        if self.masks is not None:
            labels = {row["image"]: row["malignant"] for row in rows}
            rule = MaskRule(
                {
                    number: IGNORED if self._kind(word) == IGNORED else word
                    for number, word in self.mask_classes.items()
                },
                self.mask_threshold,
            )
            return read_masks(
                self.path / self.masks, looks, known, labels, account.cache, rule, self.limits, self._marked
            )
        if self.lesions is not None:
            return self._lesion_table({image: look.shape for image, look in looks.items()}, known)
        return LesionTable()

    def _kind(self, word: str) -> str:
        return {**KINDS, **self.kinds}.get(word, word)

    def _marked(self, area: Found, label: bool | None) -> Lesion:
        """The lesion of a mask's area, on an image with this label."""
        if not area.name:
            return Lesion(area.box, "other", label)
        return lesion_of_word(area.box, area.name, label, self.kinds, self._label_words)

    def _lesion_table(self, shapes: dict[str, tuple[int, int]], known: set[str]) -> LesionTable:
        file = self.path / str(self.lesions)
        return read_lesions(
            file, self.columns, self.kinds, self._label_words, self.encoding, self.limits, shapes, known
        )

    def _malignant(self, row: dict, table: LesionTable, metadata: Metadata) -> bool | None:
        """Of an image: what its row says, or else what its lesions say; None where neither is known.

        Only where the metadata have no column for the label does an image without lesions count as benign.
        """
        if row["image"] in metadata.disputed:
            return None
        if row["malignant"] is not None or self.lesions is None:
            return row["malignant"]
        labels = table.labels.get(row["image"], [])
        if any(labels):
            return True
        unknown = None in labels or row["image"] in table.unread or (metadata.labelled and not labels)
        return None if unknown else False

    def _labelled(
        self, rows: list[dict], labels: dict[str, bool | None], table: LesionTable, task: PatchTask, account: Account
    ) -> list[dict]:
        """The rows that a task of malignancy can use; an image or a lesion of the task's kind without a label is a fault.

        Like `Account.cohort`, but each fault names its row.
        """
        remedy = "fill it in, drop the row, or name the column that holds it"
        if task.whole_image:
            for row in rows:
                if labels[row["image"]] is None:
                    where = f"{self.metadata} row {row['row']}: {row['image']}"
                    account.fault("no_label", f"{where} has no label; {remedy}, as in `columns: {{label: malignant}}`")
            return [row for row in rows if labels[row["image"]] is not None]
        for kind, where in table.unlabelled:
            if task.lesions in ("all", kind):
                account.fault(
                    "no_label",
                    f"{where}: the {kind} has no label; {remedy}, as in `columns: {{lesion_label: pathology}}`",
                )
        return rows

    def _exam(self, row: dict, look: FileLook, table: LesionTable, malignant: bool | None, account: Account) -> Exam:
        if row["malignant"] is False and any(table.labels.get(row["image"], ())):
            account.fact("malignant_in_benign", row["image"])
        return account.exam(
            look, self.path / row["image"], patient=row["patient_id"], name=row["image"], view=row["view"],
            laterality=row["laterality"], density=row["density"], age=row["age"], scanner=row["scanner"] or self.scanner,
            spacing_mm=row["spacing_mm"] or self.spacing_mm, malignant=malignant, diagnosis=row["diagnosis"],
            lesions=tuple(table.lesions.get(row["image"], ())), site=row["centre"],
            dark_background=self.background == "dark", own_label=row["malignant"] is not None,
        )  # fmt: skip
