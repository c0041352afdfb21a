"""A list of images that a study leaves out: clips, implants, pacemakers, or whatever a person saw on them.

The list is a csv with a column `image` (or `image_id`, `file`) and perhaps `reason`, one row per image. An image is
named as its source names it, by its file, or by its file without the ending. Excluded images are counted by reason.
Names that match no image are counted too: a misspelt name would leave its image in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data_partitions.errors import DataError
from data_partitions.exams import Cohort
from data_partitions.reading.tables import read_records
from data_partitions.small_counts import suppressed_count

NAMES = ("image", "image_id", "image_name", "file", "filename")


def read_exclusions(path: Path, encoding: str = "utf-8") -> dict[str, str]:
    """Name -> reason ("" where none is given). Raises DataError."""
    rows = read_records(path, (), encoding)
    column = next((name for name in NAMES if rows and name in rows[0][1]), None)
    if rows and column is None:
        raise DataError(
            "bad_columns",
            f"{path}: no column for image; it has {', '.join(rows[0][1])}; name it `image`",
            field="exclude",
        )
    return {cells[str(column)]: cells.get("reason", "") for _, cells in rows if cells[str(column)]}


def listed(path: Path, exclude: Path | None) -> list[Path]:
    """The files of an archive (a folder or one file) and its exclusion list, in a fixed order.

    Raises DataError where the list is missing.
    """
    if exclude is not None and not exclude.is_file():
        raise DataError("missing_file", f"{exclude} does not exist; correct `exclude`", field="exclude")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return files if exclude is None else [*files, exclude]


def without(cohort: Cohort, path: Path | None, encoding: str = "utf-8") -> Cohort:
    """The cohort without the images of an exclusion list (None: as it is), and the counts in its report."""
    if path is None:
        return cohort
    reason_of = read_exclusions(path, encoding)
    kept, reasons, found = [], Counter[str](), set()
    for exam in cohort.exams:
        names = (exam.name, PurePosixPath(exam.name).name, PurePosixPath(exam.name).stem)
        hit = next((name for name in names if name in reason_of), None)
        if hit is None:
            kept.append(exam)
        else:
            found.add(hit)
            reasons[reason_of[hit] or "no reason given"] += 1
    notes = list(cohort.report.get("notes", []))
    notes += [f"{suppressed_count(n)} images excluded: {reason}" for reason, n in sorted(reasons.items())]
    unknown = len(reason_of) - len(found)
    if unknown:
        notes.append(f"{suppressed_count(unknown)} names of the exclusion list match no image here")
    patients = {exam.patient for exam in kept}
    report = cohort.report | {"notes": notes, "excluded": dict(reasons), "excluded_unknown": unknown}
    private = cohort.private | {"excluded_unknown": sorted(set(reason_of) - found)}
    groups = {patient: group for patient, group in cohort.groups.items() if patient in patients}
    return replace(
        cohort, exams=kept, report=report, private=private, groups=groups, for_test=cohort.for_test & patients
    )
