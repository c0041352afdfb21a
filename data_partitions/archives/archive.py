"""What all readers of public archives have in common: their settings, and one account of everything that was wrong.

A reader goes through its whole archive and notes each fault (file or row, value, remedy) before anything is refused.
What is left out is counted in the cohort's report; more than `max_bad_fraction` of it is an error that lists all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from data_partitions.archives.copies import groups_of_copies
from data_partitions.archives.exclusions import listed, without
from data_partitions.errors import DataError, Problem, allowed
from data_partitions.exams import Box, Cohort, Exam
from data_partitions.patches import PatchTask
from data_partitions.reading.image_files import FileLook, files_digest, inspect, open_image
from data_partitions.reading.tables import read_records
from data_partitions.small_cells import cell


class ArchiveSource(BaseModel, ABC):
    """An archive in its own layout; the field names are the keys of the scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    encoding: str = Field("utf-8", description="of the archive's text tables")
    max_bad_fraction: float = Field(
        0.0, ge=0, le=1, description="share of rows and files that may be left out as unusable"
    )
    exclude: Path | None = Field(None, description="csv of images to leave out, with a column `image`, maybe `reason`")

    def files_digest(self) -> str:
        """Changes when a file of the archive is added, removed or written again."""
        if not self.path.is_dir():
            raise DataError("missing_file", f"folder {self.path} does not exist; mend `path`", field="path")
        return files_digest(listed(self.path, self.exclude))

    def load(self, centre: str, seed: int, cache: Path | None = None, task: PatchTask | None = None) -> Cohort:
        """This centre's exams. Raises DataError.

        cache: where the look at all image files is kept. task: what they are for; one of malignancy makes a fault of
        each image (`whole_image`) or lesion whose label is not known. None: exams may come without a label.
        """
        if not self.path.is_dir():
            raise DataError("missing_file", f"folder {self.path} does not exist; mend `path`", field="path")
        account = Account(self.path, self.encoding, cache)
        exams = self._exams(account)
        return without(account.cohort(exams, self.max_bad_fraction, task), self.exclude, self.encoding)

    @abstractmethod
    def _exams(self, account: Account) -> list[Exam]:
        """Every exam that can be used; everything else goes to `account`."""


@dataclass
class Account:
    """One pass over an archive: what was looked at, what was wrong, and what is worth a note.

    things: rows and files that might have been used, of which the faults are a part. fatal: faults that leave nothing to
    go on with, refused whatever the fraction. unread: images that hold a finding nobody could read; no healthy box is
    drawn from them. for_test: patients that the archive itself keeps for testing. cut: findings cut at their image's border.
    """

    path: Path
    encoding: str = "utf-8"
    cache: Path | None = None
    things: int = 0
    problems: list[Problem] = field(default_factory=list)
    fatal: list[Problem] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    for_test: set[str] = field(default_factory=set)
    report: dict[str, Any] = field(default_factory=lambda: {"notes": []})
    private: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    cut: int = 0

    def fault(self, code: str, text: str) -> None:
        self.problems.append(Problem(code, text))

    def refuse(self, code: str, text: str) -> None:
        self.fatal.append(Problem(code, text))

    def merge(self, first: str, second: str) -> None:
        """Two images that the archive says are one: copies, whatever their pixels."""
        old, new = self.digests[second], self.digests[first]
        self.digests.update({name: new for name, digest in self.digests.items() if digest == old})

    def note(self, name: str, count: int, text: str) -> None:
        """Report a count that is no fault, where it is not 0."""
        if count:
            self.report[name] = count
            self.report["notes"].append(f"{cell(count)} {text}")

    def records(self, path: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
        """Rows of one table; none, and a fatal fault, where it cannot be read."""
        try:
            rows = read_records(path, required, self.encoding)
        except DataError as error:
            self.fatal += error.problems
            return []
        self.things += len(rows)
        return rows

    def folder(self, *names: str) -> Path:
        """The first folder of these names in the archive, or one level below: archives unpack into a folder of their own."""
        for name in names:
            for folder in (self.path / name, *sorted(self.path.glob(f"*/{name}"))):
                if folder.is_dir():
                    return folder
        self.fatal.append(
            Problem("missing_file", f"{self.path} holds no folder {' or '.join(names)}; `path` is the unpacked archive")
        )
        return self.path / names[0]

    def looks(self, files: dict[str, Path]) -> dict[str, FileLook]:
        """What one look at each image (name: file) showed; those that do not decode are faults and left out."""
        if self.fatal:
            return {}
        found = dict(zip(files, inspect(list(files.values()), self.cache), strict=True))
        usable = {}
        for name, look in found.items():
            if look.code:
                self.fault(look.code, f"{files[name].relative_to(self.path)} {look.text}")
            else:
                usable[name] = look
                self.digests[name] = look.digest
        return usable

    def exam(
        self, look: FileLook, file: Path, *, spacing_mm: float | None = None, scanner: str = "",
        dark_background: bool = True, **known: Any,
    ) -> Exam:  # fmt: skip
        """An exam of one image file, decoded when it is opened; what its header says fills what is not given."""
        return Exam(
            shape=look.shape,
            open=partial(open_image, file, dark_background=dark_background),
            spacing_mm=spacing_mm or look.spacing_mm,
            scanner=scanner or look.scanner,
            **known,
        )

    def inside(self, name: str, where: str, box: Box, shape: tuple[int, int]) -> Box | None:
        """The part of a finding's box on its image of `shape`; None, and a fault, where it lies outside altogether."""
        part = box.clipped(shape)
        if part.height < 1 or part.width < 1:
            self.unread.add(name)
            self.fault(
                "contour_outside", f"{where}: {tuple(box)} lies outside its image of {shape}; correct one of them"
            )
            return None
        self.cut += box != part
        return part

    def without_copies(self, exams: list[Exam]) -> list[Exam]:
        """Each picture of a patient once, with the lesions of all its copies: parts of an archive repeat each other."""
        kept: dict[tuple[str, str], Exam] = {}
        for exam in exams:
            key = exam.patient, self.digests[exam.name]
            if key not in kept:
                kept[key] = exam
                continue
            first = kept[key]
            boxes = {lesion.box for lesion in first.lesions}
            labels = [first.malignant, exam.malignant]
            kept[key] = replace(
                first,
                lesions=(*first.lesions, *(lesion for lesion in exam.lesions if lesion.box not in boxes)),
                malignant=True if True in labels else False if labels == [False, False] else None,
                usable_as_healthy=first.usable_as_healthy and exam.usable_as_healthy and exam.name not in self.unread,
            )
        self.note("copies", len(exams) - len(kept), "images that another part of the archive holds too, taken once")
        return list(kept.values())

    def cohort(self, exams: list[Exam], bad_fraction: float, task: PatchTask | None) -> Cohort:
        """The exams with the account of what was left out. Raises DataError."""
        self.note("outlines_cut", self.cut, "findings leave their image, cut at its border")
        if self.fatal:  # the other faults are what follows from these
            raise DataError.of(self.fatal, f"{self.path}")
        exams = [
            replace(exam, usable_as_healthy=exam.usable_as_healthy and exam.name not in self.unread) for exam in exams
        ]
        if task is not None:
            exams = self._for_task(exams, task)
        skipped = allowed(self.problems, max(1, self.things, len(self.problems)), bad_fraction, f"{self.path}")
        if skipped:
            self.report["skipped"] = skipped
            self.report["notes"] += [f"{cell(count)} left out: {code}" for code, count in sorted(skipped.items())]
            self.private["problems"] = [problem.text for problem in self.problems]
        groups, copies = groups_of_copies((exam.patient, exam.name, self.digests[exam.name]) for exam in exams)
        if copies:
            self.note("duplicate_images", len(copies), "sets of identical images, each kept on one side of every split")
            self.private["duplicate_images"] = copies
        return Cohort(
            exams,
            self.report,
            self.private,
            {patient: group for patient, group in groups.items() if group != patient},
            frozenset(self.for_test),
        )

    def _for_task(self, exams: list[Exam], task: PatchTask) -> list[Exam]:
        """Exams that the task can use; what has no label, an image or a lesion of the task's kind, is a fault."""
        if task.whole_image and task.label == "malignancy":
            for exam in exams:
                if exam.malignant is None:
                    self.fault("no_label", f"{exam.name} is without a label: neither malignant nor benign is known")
            return [exam for exam in exams if exam.malignant is not None]
        if task.whole_image:
            unclear = [exam for exam in exams if not exam.lesions and not exam.usable_as_healthy]
            self.note("unclear_images", len(unclear), "images without a located lesion that are not healthy, left out")
            return [exam for exam in exams if exam.lesions or exam.usable_as_healthy]
        if task.label == "malignancy":
            for exam in exams:
                for lesion in exam.lesions:
                    if lesion.malignant is None and task.lesions in ("all", lesion.kind):
                        self.fault(
                            "no_label", f"{exam.name}: a {lesion.kind} at {tuple(lesion.box)} is without a label"
                        )
        return exams
