"""What all readers of files on disk have in common: their settings, and one account of everything that was wrong.

A reader goes through its whole archive and notes each fault (file or row, value, remedy) before it refuses anything.
The cohort's report counts what was left out. If that is more than `max_bad_fraction`, one error lists every fault.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from data_partitions.archives.copies import groups_of_copies
from data_partitions.archives.exclusions import listed, without
from data_partitions.errors import DataError, Problem, allowed
from data_partitions.exams import Box, Cohort, Exam
from data_partitions.patches import PatchTask
from data_partitions.reading.image_files import FileLook, files_digest, inspect, open_image
from data_partitions.reading.tables import read_records
from data_partitions.small_counts import suppressed_count
from data_partitions.source import DataSource


class FileSource(DataSource):
    """Images in files; the field names are the keys of the scenario."""

    path: Path
    encoding: str = Field("utf-8", description="of the text tables")
    max_bad_fraction: float = Field(
        0.0, ge=0, le=1, description="share of rows and files that may be left out as unusable"
    )
    exclude: Path | None = Field(None, description="csv of images to leave out, with a column `image`, maybe `reason`")

    def files_digest(self) -> str:
        """Changes when a file is added, removed or written again."""
        self._require_path()
        return files_digest(listed(self.path, self.exclude))

    def load(self, centre: str, seed: int, cache: Path | None = None, task: PatchTask | None = None) -> Cohort:
        self._require_path()
        account = Account(self.path, self.encoding, cache)
        return without(self._cohort(account, seed, task), self.exclude, self.encoding)

    def _require_path(self) -> None:
        if not self.path.is_dir():
            raise DataError("missing_file", f"folder {self.path} does not exist; correct `path`", field="path")

    @abstractmethod
    def _cohort(self, account: Account, seed: int, task: PatchTask | None) -> Cohort:
        """The exams of this centre, before exclusions."""


class ArchiveSource(FileSource):
    """An archive in its own layout, of which all belongs to the centre."""

    def _cohort(self, account: Account, seed: int, task: PatchTask | None) -> Cohort:
        return account.cohort(self._exams(account), self.max_bad_fraction, task)

    @abstractmethod
    def _exams(self, account: Account) -> list[Exam]:
        """Every exam that can be used; `account` takes note of everything else."""


@dataclass
class Account:
    """One pass over an archive: what was looked at, what was wrong, and what is worth a note.

    things: number of rows and files that could have been used, faulty ones included. fatal: faults without which nothing
    can be read; they are refused whatever the fraction. unread: images with a finding that could not be read; no healthy
    box is drawn from them. for_test: patients that the archive itself keeps for testing. digests: of the pixels of each
    image. cut: number of findings cut at the border of their image.
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
        """Take two images for copies because the archive says so, whatever their pixels."""
        old, new = self.digests[second], self.digests[first]
        self.digests.update({name: new for name, digest in self.digests.items() if digest == old})

    def note(self, name: str, count: int, text: str) -> None:
        """Report a count that is not a fault, unless it is 0."""
        if count:
            self.report[name] = count
            self.report["notes"].append(f"{suppressed_count(count)} {text}")

    def records(self, path: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
        """Rows of one table. A table that cannot be read is a fatal fault and gives no rows."""
        try:
            rows = read_records(path, required, self.encoding)
        except DataError as error:
            self.fatal += error.problems
            return []
        self.things += len(rows)
        return rows

    def folder(self, *names: str) -> Path:
        """The first folder of these names in the archive or one level below, as archives unpack into their own folder."""
        for name in names:
            for folder in (self.path / name, *sorted(self.path.glob(f"*/{name}"))):
                if folder.is_dir():
                    return folder
        self.fatal.append(
            Problem(
                "missing_file", f"{self.path} has no folder {' or '.join(names)}; set `path` to the unpacked archive"
            )
        )
        return self.path / names[0]

    def looks(self, files: Mapping[str, Path], rows: Mapping[str, str] | None = None) -> dict[str, FileLook]:
        """What one look at each image (name: file) showed; those that do not decode are faults and left out.

        rows: image -> the row that names it, to be mentioned with its fault.
        """
        if self.fatal:
            return {}
        found = dict(zip(files, inspect(list(files.values()), self.cache), strict=True))
        usable = {}
        for name, look in found.items():
            if look.code:
                row = f"{rows[name]}: " if rows else ""
                self.fault(look.code, f"{row}{files[name].relative_to(self.path)} {look.text}")
            else:
                usable[name] = look
                self.digests[name] = look.digest
        return usable

    def exam(
        self, look: FileLook, file: Path, *, spacing_mm: float | None = None, scanner: str = "",
        dark_background: bool = True, **known: Any,
    ) -> Exam:  # fmt: skip
        """An exam of one image file, decoded when it is opened; its header supplies what is not given."""
        return Exam(
            shape=look.shape,
            open=partial(open_image, file, dark_background=dark_background),
            spacing_mm=spacing_mm or look.spacing_mm,
            scanner=scanner or look.scanner,
            **known,
        )

    def inside(self, name: str, where: str, box: Box, shape: tuple[int, int]) -> Box | None:
        """The part of a finding's box on its image of `shape`; None, and a fault, where all of it lies outside."""
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
        """Each image of a patient once, with the lesions of all its copies: parts of an archive repeat each other."""
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
        """The exams, and an account of what was left out. Raises DataError.

        task: see `DataSource.load`; None where the reader has already checked what its task needs.
        """
        self.note("outlines_cut", self.cut, "findings reach beyond their image, cut at its border")
        if self.fatal:  # the other faults follow from these
            raise DataError.of(self.fatal, f"{self.path}")
        exams = [
            replace(exam, usable_as_healthy=exam.usable_as_healthy and exam.name not in self.unread) for exam in exams
        ]
        if task is not None:
            exams = self._for_task(exams, task)
        skipped = allowed(self.problems, max(1, self.things, len(self.problems)), bad_fraction, f"{self.path}")
        if skipped:
            self.report["skipped"] = skipped
            self.report["notes"] += [
                f"{suppressed_count(count)} left out: {code}" for code, count in sorted(skipped.items())
            ]
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
        """Exams that the task can use; an image, or a lesion of the task's kind, without a label is a fault."""
        if task.whole_image and task.label == "malignancy":
            for exam in exams:
                if exam.malignant is None:
                    self.fault("no_label", f"{exam.name} has no label; whether it is malignant is not known")
            return [exam for exam in exams if exam.malignant is not None]
        if task.whole_image and task.label == "lesion":
            unclear = [exam for exam in exams if not exam.lesions and not exam.usable_as_healthy]
            self.note("unclear_images", len(unclear), "images without a located lesion that are not healthy, left out")
            return [exam for exam in exams if exam.lesions or exam.usable_as_healthy]
        if task.label == "malignancy":
            for exam in exams:
                for lesion in exam.lesions:
                    if lesion.malignant is None and task.lesions in ("all", lesion.kind):
                        self.fault("no_label", f"{exam.name}: the {lesion.kind} at {tuple(lesion.box)} has no label")
        return exams
