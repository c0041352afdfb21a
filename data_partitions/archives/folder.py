"""A folder of images with a table: `metadata.csv`, one row per image, and maybe a table of lesions or a folder of masks.

Centres come from the table (column `centre`, natural centres) or from `part: k/n`, a patient-disjoint share of an
archive (simulated centres). Images whose decoded pixels are equal belong to one person whatever the table says: their
patients become one group. A group that spans centres belongs to the one with most of its images.

Every fault of the whole folder is collected before any is reported.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from basics.seeds import rank
from data_partitions.archives.copies import groups_of_copies
from data_partitions.archives.exclusions import listed, without
from data_partitions.errors import DataError, Problem, allowed
from data_partitions.exams import Cohort, Exam
from data_partitions.patches import PatchTask
from data_partitions.reading.folder_tables import LesionTable, Metadata, read_lesions, read_metadata
from data_partitions.reading.image_files import FileLook, files_digest, inspect, open_image
from data_partitions.reading.label_words import NEGATIVE, POSITIVE, LabelWords, plain
from data_partitions.reading.mask_folder import read_masks
from data_partitions.small_cells import cell


def _part(value: object) -> object:
    """ "2/3" as in YAML, to (2, 3)."""
    if isinstance(value, str):
        number, _, total = value.partition("/")
        if not (number.strip().isdigit() and total.strip().isdigit()):
            raise ValueError(f"part {value!r} is not of the form k/n, such as 1/3")
        return int(number), int(total)
    return value


class FolderSource(BaseModel):
    """Images in a folder; the field names are the keys of the scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["folder"] = "folder"
    path: Path
    metadata: str = "metadata.csv"
    lesions: str | None = Field(None, description="table of lesions in the folder")
    masks: str | None = Field(
        None, description="folder of masks in the folder, named for their images; instead of `lesions`"
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
    encoding: str = "utf-8"
    max_bad_fraction: float = Field(0.0, ge=0, le=1, description="share of rows that may be left out as unusable")
    exclude: Path | None = Field(None, description="csv of images to leave out, with a column `image`, maybe `reason`")

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
    def _part_exists(self) -> FolderSource:
        if self.part and not 1 <= self.part[0] <= self.part[1]:
            raise ValueError(f"part {self.part[0]}/{self.part[1]} does not exist; count from 1/{self.part[1]}")
        return self

    def files_digest(self) -> str:
        """Changes when a file of the folder is added, removed or written again."""
        if not self.path.is_dir():
            raise DataError("missing_file", f"folder {self.path} does not exist; mend `path`", field="path")
        return files_digest(listed(self.path, self.exclude))

    def load(self, centre: str, seed: int, cache: Path | None = None, task: PatchTask | None = None) -> Cohort:
        """This centre's exams. Raises DataError.

        cache: where the look at all image files is kept. task: what they are for; one of malignancy makes a problem of
        each image (`whole_image`) or lesion whose label is not known. None: exams may come without a label.
        """
        words = LabelWords(self.positive, self.negative)
        metadata = self._metadata(words)
        problems = list(metadata.problems)
        rows, files = self._usable_rows(metadata, cache, problems)
        table = LesionTable()
        if self.masks is not None:
            known = {row["image"] for row in metadata.rows}
            of_images = {row["image"]: row["malignant"] for row in rows}
            looks = {name: files[name] for name in of_images}
            table = read_masks(self.path / self.masks, looks, known, of_images, cache)
            problems += table.problems
        if self.lesions is not None:
            shapes = {row["image"]: files[row["image"]].shape for row in rows}
            known = {row["image"] for row in metadata.rows}
            table = read_lesions(
                self.path / self.lesions, self.columns, self.kinds, words, self.encoding, shapes, known
            )
            problems += table.problems
        labels = {row["image"]: self._malignant(row, table, metadata.labelled) for row in rows}
        if task is not None and task.label == "malignancy":
            rows = self._labelled(rows, labels, table, task, problems)
        # An image may have several lesions, each with a fault of its own: never more than all rows.
        total = max(1, len(metadata.rows) + len(metadata.problems), len(problems))
        skipped = allowed(problems, total, self.max_bad_fraction, f"{self.path}")
        rows, report, groups = self._centre_rows(rows, files, table, seed)
        notes = report["notes"]
        if skipped:
            report["skipped"] = skipped
            notes += [f"{cell(count)} rows left out: {code}" for code, count in sorted(skipped.items())]
        placeless = [row["image"] for row in rows if row["image"] in table.without_place]
        if placeless:
            report["lesions_without_coordinates"] = len(placeless)
            notes.append(
                f"{cell(len(placeless))} images hold a lesion without coordinates, which is left out; "
                "no healthy box is drawn from them"
            )
        private = {"problems": [problem.text for problem in problems], "lesions_without_coordinates": placeless}
        exams = [self._exam(row, files[row["image"]], table, labels[row["image"]]) for row in rows]
        cohort = Cohort(exams, report, private | report.pop("private"), groups)
        return without(cohort, self.exclude, self.encoding)

    def _metadata(self, words: LabelWords) -> Metadata:
        """The table of images; where it cannot be read, the other table's faults are told with its own."""
        try:
            return read_metadata(self.path / self.metadata, self.columns, words, self.encoding)
        except DataError as error:
            if self.lesions is None:
                raise
            try:
                read_lesions(self.path / self.lesions, self.columns, self.kinds, words, self.encoding, {}, set())
            except DataError as other:
                raise DataError.of([*error.problems, *other.problems], f"{self.path}") from None
            raise

    def _usable_rows(
        self, metadata: Metadata, cache: Path | None, problems: list[Problem]
    ) -> tuple[list[dict], dict[str, FileLook]]:
        """Rows whose image is there and decodes; and what was seen in each file, by image."""
        present = []
        for row in metadata.rows:
            if (self.path / row["image"]).is_file():
                present.append(row)
            else:
                problems.append(Problem(
                    "row_without_file",
                    f"{self.metadata} row {row['row']}: file {row['image']} is not there; add it or drop the row",
                ))  # fmt: skip
        found = inspect([self.path / row["image"] for row in present], cache)
        looks = {row["image"]: look for row, look in zip(present, found, strict=True)}
        usable = []
        for row in present:
            look = looks[row["image"]]
            if look.code:
                problems.append(
                    Problem(str(look.code), f"{self.metadata} row {row['row']}: {row['image']} {look.text}")
                )
            else:
                usable.append(row)
        return usable, looks

    def _centre_rows(
        self, rows: list[dict], files: dict[str, FileLook], table: LesionTable, seed: int
    ) -> tuple[list[dict], dict, dict[str, str]]:
        """The rows of this centre, what was moved to get them, and patient -> group."""
        group, copies = groups_of_copies((row["patient_id"], row["image"], files[row["image"]].digest) for row in rows)
        members: dict[str, list[dict]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row["image"]):
            members[group[row["patient_id"]]].append(row)
        report: dict = {"notes": [], "private": {}}
        if copies:
            report["duplicate_images"] = len(copies)
            report["notes"].append(
                f"{cell(len(copies))} sets of identical images, each kept on one side of every split"
            )
            report["private"]["duplicate_images"] = copies
        if self.centre is not None:
            members = self._natural_centre(members, report)
        if self.part is not None:
            members = {name: members[name] for name in self._dealt(members, table)}
        if self.images is not None:
            members = self._limited(members, self.images, seed)
        chosen = [row for name in sorted(members) for row in members[name]]
        return chosen, report, {patient: name for patient, name in group.items() if name in members and patient != name}

    def _natural_centre(self, members: dict[str, list[dict]], report: dict) -> dict[str, list[dict]]:
        """Groups of this centre; those found in several belong where most of their images are, ties alphabetically."""
        taken, spanning, moved_here, moved_away = {}, [], 0, 0
        centres = Counter(row["centre"] for rows in members.values() for row in rows)
        if self.centre not in centres:
            known = ", ".join(sorted(str(name) for name in centres)) or "none"
            raise DataError(
                "unknown_centre",
                f"{self.path}: no image of centre {self.centre!r}; the table has {known}",
                field="centre",
            )
        for name, rows in members.items():
            counts = Counter(row["centre"] for row in rows)
            home = min(counts, key=lambda c: (-counts[c], c))
            if len(counts) > 1 and self.centre in counts:
                spanning.append(name)
                if home == self.centre:
                    moved_here += len(rows) - counts[home]
                else:
                    moved_away += counts[self.centre]
            if home == self.centre:
                taken[name] = rows
        if spanning:
            report["spanning_patients"] = {
                "patients": len(spanning),
                "images_moved_here": moved_here,
                "images_moved_away": moved_away,
            }
            report["notes"].append(
                f"{cell(len(spanning))} patients found in several centres, kept in the one with most of their images"
            )
            report["private"]["spanning_patients"] = sorted(spanning)
        return taken

    def _dealt(self, members: dict[str, list[dict]], table: LesionTable) -> list[str]:
        """Names of the groups in part k of n: dealt like cards, those with a lesion first, then the others."""
        assert self.part is not None
        number, total = self.part
        with_lesion = {name: any(row["image"] in table.lesions for row in rows) for name, rows in members.items()}
        order = sorted(
            members,
            key=lambda name: (-with_lesion[name], -_label(members[name]), rank(self.part_seed, "part", name)),
        )
        return order[number - 1 :: total]

    def _limited(self, members: dict[str, list[dict]], images: int, seed: int) -> dict[str, list[dict]]:
        """At most `images` images: whole groups, each class its share of the images."""
        total = sum(len(rows) for rows in members.values())
        taken: dict[str, list[dict]] = {}
        for label in sorted({_label(rows) for rows in members.values()}):
            names = sorted((n for n in members if _label(members[n]) == label), key=lambda n: rank(seed, "images", n))
            room = int(images * sum(len(members[n]) for n in names) / total) if images < total else total
            for name in names:
                if len(members[name]) > room:
                    break
                room -= len(members[name])
                taken[name] = members[name]
        return taken

    def _malignant(self, row: dict, table: LesionTable, labelled: bool) -> bool | None:
        """Of an image: what its row says, or else what its lesions say; None where neither is known.

        labelled: the metadata have a column for the label; only where they have none, no lesion means benign.
        """
        if row["malignant"] is not None or self.lesions is None:
            return row["malignant"]
        labels = table.labels.get(row["image"], [])
        if any(labels):
            return True
        unknown = None in labels or row["image"] in table.unread or (labelled and not labels)
        return None if unknown else False

    def _labelled(
        self, rows: list[dict], labels: dict[str, bool | None], table: LesionTable, task: PatchTask,
        problems: list[Problem],
    ) -> list[dict]:  # fmt: skip
        """The rows that can be used; what has no label, an image or a lesion of the task's kind, joins `problems`."""
        remedy = "fill it in, drop the row, or name the column that holds it"
        if task.whole_image:
            unknown = {row["image"] for row in rows if labels[row["image"]] is None}
            problems += [
                Problem(
                    "no_label",
                    f"{self.metadata} row {row['row']}: {row['image']} is without a label; {remedy}, as in "
                    "`columns: {label: malignant}`",
                )
                for row in rows
                if row["image"] in unknown
            ]
            return [row for row in rows if row["image"] not in unknown]
        problems += [
            Problem(
                "no_label",
                f"{where}: the {kind} is without a label; {remedy}, as in `columns: {{lesion_label: pathology}}`",
            )
            for kind, where in table.unlabelled
            if task.lesions in ("all", kind)
        ]
        return rows

    def _exam(self, row: dict, look: FileLook, table: LesionTable, malignant: bool | None) -> Exam:
        lesions = tuple(table.lesions.get(row["image"], ()))
        return Exam(
            patient=row["patient_id"],
            name=row["image"],
            shape=look.shape,
            open=partial(open_image, self.path / row["image"], dark_background=self.background == "dark"),
            view=row["view"],
            laterality=row["laterality"],
            density=row["density"],
            age=row["age"],
            scanner=row["scanner"] or self.scanner or look.scanner,
            spacing_mm=row["spacing_mm"] or self.spacing_mm or look.spacing_mm,
            malignant=malignant,
            lesions=lesions,
            usable_as_healthy=row["image"] not in table.unread.union(table.without_place),
            site=row["centre"],
        )


def _label(rows: list[dict]) -> int:
    return int(any(row["malignant"] for row in rows))
