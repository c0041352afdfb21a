"""The account of one pass over an archive: what was looked at, what was wrong, and what is worth a note.

What is no fault and yet not as it lies in the files is counted by the names in `facts`: left out, changed or doubted.

Longer than most files, because it is one class: all that an archive can say of its files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from basics.file_hash import sha256_of
from basics.words import one_line
from data_partitions.archives.copies import groups_of_copies
from data_partitions.archives.exposures import raw_images
from data_partitions.errors import BadFile, DataError, Problem, allowed
from data_partitions.exams import Box, Cohort, Exam, Image
from data_partitions.patches import PatchTask
from data_partitions.reading.facts import FACTS
from data_partitions.reading.folders import files_below, folders_in
from data_partitions.reading.image_files import is_image, open_image
from data_partitions.reading.limits import Limits
from data_partitions.reading.looks import FileLook, inspect
from data_partitions.reading.tables import read_records
from data_partitions.small_counts import shown_count

Key = TypeVar("Key", bound=Hashable)


@dataclass
class Account:
    """One pass over an archive: what was looked at, what was wrong, and what is worth a note.

    things: number of rows and files that could have been used, faulty ones included. fatal: faults without which nothing
    can be read; they are refused whatever the fraction. unread: images with a finding that could not be read; no healthy
    box is drawn from them, and that their other findings are benign does not make them so. unplaced: images with a finding
    that is known but for its place; no healthy box is drawn from them either. labelled: images that the archive itself calls
    malignant or benign, whatever their findings. for_test: patients that the archive itself keeps for testing. digests: of
    the pixels of each image; that of a blank one is its own, because two blank images are not pictures of one person. facts:
    the names of the things that a fact of `facts` is true of. looked: what a look at each exam's file showed. several: names
    of `one_each` that several files have. exams: all of the archive, of which a centre may have a part. lesions: where each
    lesion was read, by its image and what tells it from others.
    """

    path: Path
    encoding: str | None = None
    cache: Path | None = None
    limits: Limits = field(default_factory=Limits)
    keep_blank: bool = False
    things: int = 0
    problems: list[Problem] = field(default_factory=list)
    fatal: list[Problem] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    unplaced: set[str] = field(default_factory=set)
    labelled: set[str] = field(default_factory=set)
    for_test: set[str] = field(default_factory=set)
    report: dict[str, Any] = field(default_factory=lambda: {"notes": []})
    private: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    facts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    looked: dict[str, FileLook] = field(default_factory=dict)
    several: set[Hashable] = field(default_factory=set)
    exams: list[Exam] = field(default_factory=list)
    lesions: dict[tuple[str, Hashable], str] = field(default_factory=dict)

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
            self.report["notes"].append(f"{shown_count(count)} {text}")

    def fact(self, name: str, *things: str, times: int = 1) -> None:
        """Take down that a fact of `facts` is true of things: files, rows or images; of each so many times."""
        self.facts[name] += things * times

    def leave_out(self, name: str, where: str) -> None:
        """A row that is not used and no fault, by a fact of `facts`."""
        self.fact(name, where)
        self.things -= 1

    def records(
        self, path: Path, required: Sequence[str], *, findings: bool = False, counted: bool = True,
        remedy: str = "add it, or correct `path`",
    ) -> list[tuple[int, dict[str, str]]]:  # fmt: skip
        """Rows of one table. A table that cannot be read is a fatal fault and gives no rows.

        findings: the table is one of lesions. A row of it that cannot be read is fatal, too: which image it is about is not
        known, and that image would pass as healthy. counted: whether the rows are things of their own. remedy: where the file
        does not exist.
        """
        if not path.is_file():
            self.refuse("missing_file", f"{path} does not exist; {remedy}")
            return []
        try:
            rows, table = read_records(path, required, self.encoding, self.limits)
        except DataError as error:
            self.fatal += error.problems
            return []
        if findings:
            self.fatal += table.problems
        else:
            self.problems += table.problems
        for name, number in table.facts.items():
            self.fact(name, path.name, times=number)
        if counted:
            self.things += len(rows) + len(table.problems)
        return rows

    def one_each(self, files: Iterable[Path], key: Callable[[Path], Key]) -> dict[Key, Path]:
        """Files by key, where one file is meant for each.

        Of several with the same bytes the first is taken and the others are counted. Others are a fault, such as an original
        beside its smaller copy: which one is meant is not known, so that none is taken.
        """
        found: dict[Key, list[Path]] = defaultdict(list)
        for file in files:
            found[key(file)].append(file)
        chosen: dict[Key, Path] = {}
        for name, same in found.items():
            if len(same) == 1 or len({sha256_of(file) for file in same}) == 1:
                chosen[name] = same[0]
                self.fact("identical_files", *map(self.below, same[1:]))
                continue
            self.several.add(name)
            self.things += 1
            shown = " and ".join(map(self.below, same[:3])) + (f" and {len(same) - 3} more" if len(same) > 3 else "")
            self.fault("duplicate_image", f"{shown} have one name and are not the same; keep one of them")
        return chosen

    def only(self, found: Sequence[Path]) -> Path | None:
        """The one file that is meant by several of one name, without which nothing can be read.

        Of several with the same bytes the first is taken and the others are counted; others are refused. None where there is none.
        """
        if len({sha256_of(file) for file in found}) > 1:
            shown = " and ".join(map(self.below, found))
            self.refuse("duplicate_file", f"{shown} are there for one and are not the same; keep one of them")
        self.fact("identical_files", *map(self.below, found[1:]))
        return found[0] if found else None

    def repeated(self, name: str, where: str, lesion: Hashable) -> bool:
        """Whether this lesion of an image was read before, which is a fault. lesion: what tells it from others of its image."""
        first = self.lesions.setdefault((name, lesion), where)
        if first != where:
            self.fault("duplicate_lesion", f"{where}: this lesion of {name} is in {first} already; keep one of them")
        return first != where

    def unlisted(self, known: Container[Path]) -> None:
        """Count the image files of the archive, wherever they lie, that are not among the known ones."""
        if not self.fatal:
            spare = (file for file in files_below(self.path) if file not in known and is_image(file))
            self.fact("files_without_row", *map(self.below, spare))

    def below(self, file: Path) -> str:
        """The file's path below the archive."""
        return file.relative_to(self.path).as_posix() if file.is_relative_to(self.path) else str(file)

    def folder(self, *names: str) -> Path:
        """The folder of the first of these names, in the archive or one level below, as archives unpack into their own folder.

        Two folders of one name are refused, because which of them is meant is not known.
        """
        for name in names:
            places = (self.path / name, *(inner / name for inner in folders_in(self.path)))
            found = [folder for folder in places if folder.is_dir()]
            if len(found) > 1:
                shown = " and ".join(map(self.below, found))
                self.refuse(
                    "duplicate_file",
                    f"{self.path} has {shown}; keep one of them, or set `path` to the folder above one",
                )
            if found:
                return found[0]
        self.refuse(
            "missing_file", f"{self.path} has no folder {' or '.join(names)}; set `path` to the unpacked archive"
        )
        return self.path / names[0]

    def looks(self, files: Mapping[str, Path], rows: Mapping[str, str] | None = None) -> dict[str, FileLook]:
        """What one look at each image (name: file) showed.

        Those that do not decode are faults and left out; so are, and counted, those of one grey value and magnification views.
        rows: image -> the row that names it, to be mentioned with its fault.
        """
        if self.fatal:
            return {}
        found = dict(zip(files, inspect(list(files.values()), self.cache, self.limits), strict=True))
        usable = {}
        for name, look in found.items():
            if look.code:
                row = f"{rows[name]}: " if rows else ""
                self.fault(look.code, f"{row}{self.below(files[name])} {look.text}")
                continue
            if look.magnified or (look.blank and not self.keep_blank):
                self.fact("magnified_images" if look.magnified else "blank_images", name)
                continue
            usable[name] = look
            self.digests[name] = f"blank {name}" if look.blank else look.digest
            for fact in look.facts:
                self.fact(fact, name)
        return usable

    def exam(
        self, look: FileLook, file: Path, *, spacing_mm: float | None = None, scanner: str = "",
        dark_background: bool = True, own_label: bool = False, **known: Any,
    ) -> Exam:  # fmt: skip
        """An exam of one image file, decoded when it is opened; its header supplies what is not given.

        own_label: `malignant` is what the archive says of the image itself, and does not follow from its findings.
        """
        self.looked[known["name"]] = look
        if own_label:
            self.labelled.add(known["name"])
        return Exam(
            shape=look.shape,
            open=partial(_opened, file, self.limits, dark_background=dark_background),
            file=self.below(file),
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
        if box != part:
            self.fact("outlines_cut", where)
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
            if exam.name in self.unread:
                self.unread.add(first.name)
            kept[key] = replace(
                first,
                lesions=(*first.lesions, *(lesion for lesion in exam.lesions if lesion.box not in boxes)),
                malignant=True if True in labels else False if labels == [False, False] else None,
                usable_as_healthy=first.usable_as_healthy and exam.usable_as_healthy,
            )
        self.note("copies", len(exams) - len(kept), "images that another part of the archive holds too, taken once")
        return list(kept.values())

    def cohort(self, exams: list[Exam], bad_fraction: float, task: PatchTask | None) -> Cohort:
        """The exams, and an account of what was left out. Raises DataError.

        task: see `DataSource.load`; None where the reader has already checked what its task needs.
        """
        if self.fatal:  # the other faults follow from these
            raise DataError.of(self.fatal, f"{self.path}")
        exams = [self._without_guesses(exam) for exam in self._without_raw(exams)]
        if task is not None:
            exams = self._for_task(exams, task)
        skipped = allowed(self.problems, max(1, self.things, len(self.problems)), bad_fraction, f"{self.path}")
        if skipped:
            self.report["skipped"] = skipped
            self.report["notes"] += [
                f"{shown_count(count)} left out: {code}" for code, count in sorted(skipped.items())
            ]
            self.private["problems"] = [problem.text for problem in self.problems]
        self.exams = exams
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

    def told(self, cohort: Cohort, *, part: bool) -> Cohort:
        """The cohort with the account of what became of the files.

        Changes and doubts are those of its own images. What was left out, and faults, are those of the whole archive: whose
        an image would have been that could not be used is not known.

        part: whether the centre has a part of the archive.
        """
        unused = set(self.looked) - {exam.name for exam in cohort.exams}
        facts = {
            name: [thing for thing in things if FACTS[name].kind == "left out" or thing not in unused]
            for name, things in self.facts.items()
        }
        counts = {name: len(things) for name, things in facts.items() if things}
        notes = [f"{shown_count(count)} {FACTS[name].text}" for name, count in counts.items()]
        rows = [*self._rows(facts), *cohort.private.get("account", [])]
        left_out = bool(self.problems) or any(FACTS[name].kind == "left out" for name in counts)
        if part and left_out:
            notes.append("what was left out is counted over the whole archive, of which this centre has a part")
        report = cohort.report | counts | {"notes": [*cohort.report["notes"], *notes]}
        return replace(cohort, report=report, private=cohort.private | {"account": rows})

    def _without_guesses(self, exam: Exam) -> Exam:
        """Nothing is healthy or benign because a finding of it could not be read."""
        unread = exam.name in self.unread
        open_label = unread and exam.malignant is False and exam.name not in self.labelled
        return replace(
            exam,
            usable_as_healthy=exam.usable_as_healthy and not unread and exam.name not in self.unplaced,
            malignant=None if open_label else exam.malignant,
        )

    def _without_raw(self, exams: list[Exam]) -> list[Exam]:
        found = raw_images(exams, self.looked)
        self.fact("raw_images", *found.double)
        self.fact("raw_alone", *found.alone)
        return [exam for exam in exams if exam.name not in found.double]

    def _rows(self, facts: Mapping[str, Sequence[str]]) -> list[tuple[str, str, int, str]]:
        """What was left out, changed and doubted: (kind, what, how often, an example), by kind."""
        faults: dict[str, list[str]] = defaultdict(list)
        for problem in self.problems:
            faults[problem.code].append(problem.text)
        rows: list[tuple[str, str, int, str]] = [
            ("left out", f"fault: {code.replace('_', ' ')}", len(texts), texts[0])
            for code, texts in sorted(faults.items())
        ]
        return rows + [
            (fact.kind, fact.text, len(facts[name]), one_line(next(filter(None, facts[name]), "")))
            for name, fact in FACTS.items() if facts.get(name)
        ]  # fmt: skip

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


def _opened(file: Path, limits: Limits, *, dark_background: bool) -> Image:
    """The image of a file that could be read when it was looked at. Raises BadFile with the file's name."""
    try:
        return open_image(file, limits, dark_background=dark_background)
    except BadFile as error:
        raise BadFile(error.code, f"{file} {error}") from error
