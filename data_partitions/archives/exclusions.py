"""A list of images that a study leaves out: clips, implants, pacemakers, or whatever a person saw on them.

The list is a csv with a column `image` (or `image_id`, `file`) and perhaps `reason`, one row per image. In every source an
image goes by its name there, by its path below the source's folder, and by the file's name with or without its ending.
Excluded images are counted by reason. Names that match no image are counted too: a misspelt name would leave its image in. A
row that cannot be read is refused for the same reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data_partitions.errors import DataError
from data_partitions.exams import Cohort, Exam
from data_partitions.reading.folders import files_below, plain_path
from data_partitions.reading.image_files import DICOM, PICTURES
from data_partitions.reading.limits import Limits
from data_partitions.reading.tables import canonical, read_records
from data_partitions.small_counts import is_small, shown_count

_OTHER_REASONS = "reasons of fewer than 5 images each"
NAMES = ("image", "image_id", "image_name", "file", "filename")


def read_exclusions(path: Path, encoding: str | None, limits: Limits) -> dict[str, str]:
    """Name -> reason ("" where none is given). Raises DataError."""
    rows, table = read_records(path, (), encoding, limits)
    if table.problems:
        raise DataError.of(table.problems, f"{path}")
    columns = [canonical(column) for column in table.columns]
    column = next((name for name in NAMES if name in columns), None)
    if column is None:
        raise DataError(
            "bad_columns",
            f"{path}: no column for image; it has {', '.join(table.columns)}; name it `image`",
            field="exclude",
        )
    return {plain_path(cells[column]): cells.get("reason", "") for _, cells in rows if cells[column]}


def listed(path: Path, exclude: Path | None) -> list[Path]:
    """The files of an archive (a folder or one file) and its exclusion list, in a fixed order.

    Raises DataError where the list is missing.
    """
    if exclude is not None and not exclude.is_file():
        raise DataError("missing_file", f"{exclude} does not exist; correct `exclude`", field="exclude")
    files = [path] if path.is_file() else files_below(path)
    return files if exclude is None else [*files, exclude]


def names_of(exam: Exam) -> list[str]:
    """Every name by which a list may call an image."""
    paths = [PurePosixPath(name) for name in (exam.name, exam.file) if name]
    return list(dict.fromkeys(name for path in paths for name in (str(path), path.name, _without_ending(path))))


def _without_ending(path: PurePosixPath) -> str:
    """A UID has points, and no ending."""
    return path.stem if path.suffix.lower() in (*PICTURES, *DICOM) else path.name


def without(
    cohort: Cohort, path: Path | None, encoding: str | None, limits: Limits, whole: Iterable[Exam] | None = None
) -> Cohort:
    """The cohort without the images of an exclusion list (None: as it is), and the counts in its report.

    whole: the exams of the archive of which the cohort is a part; a list may serve all its parts.
    """
    if path is None:
        return cohort
    reason_of = read_exclusions(path, encoding, limits)
    kept, examples, reasons, found = [], dict[str, str](), Counter[str](), set()
    for exam in cohort.exams:
        hits = [name for name in names_of(exam) if name in reason_of]
        if not hits:
            kept.append(exam)
        else:
            found.update(hits)
            reason = reason_of[hits[0]] or "no reason given"
            reasons[reason] += 1
            examples.setdefault(reason, exam.name)
    told = Counter[str]()
    for (
        reason,
        n,
    ) in reasons.items():  # the words of a list in which every image has a reason of its own could be anything
        told[_OTHER_REASONS if is_small(n) else reason] += n
    notes = list(cohort.report.get("notes", []))
    notes += [f"{shown_count(n)} images excluded: {reason}" for reason, n in sorted(told.items())]
    found.update(name for exam in whole or () for name in names_of(exam) if name in reason_of)
    unknown = len(reason_of) - len(found)
    if unknown:
        notes.append(f"{shown_count(unknown)} names of the exclusion list match no image here")
    patients = {exam.patient for exam in kept}
    report = cohort.report | {"notes": notes, "excluded": dict(told), "excluded_unknown": unknown}
    strangers = sorted(set(reason_of) - found)
    rows = [("left out", f"excluded: {reason}", count, examples[reason]) for reason, count in sorted(reasons.items())]
    rows += [("doubted", "names of the exclusion list match no image", unknown, strangers[0])] if unknown else []
    private = cohort.private | {"excluded_unknown": strangers, "account": [*cohort.private.get("account", []), *rows]}
    groups = {patient: group for patient, group in cohort.groups.items() if patient in patients}
    return replace(
        cohort, exams=kept, report=report, private=private, groups=groups, for_test=cohort.for_test & patients
    )
