"""A centre's exams as a task of named classes can use them: each shows one of the classes, or it is refused or left out by count."""

from __future__ import annotations

from dataclasses import replace

from data_partitions.errors import DataError, Problem
from data_partitions.exams import KINDS, Cohort, Exam, Lesion
from data_partitions.patches import PatchTask
from data_partitions.small_counts import shown_count


def of_task(cohort: Cohort, task: PatchTask, what: str) -> Cohort:
    """The cohort for a task of label `diagnosis`; sources look after lesions and malignancy, whose words they know.

    Args:
        what: the centre, for messages.

    Raises:
        DataError: "outside_classes", "no_label".
    """
    if task.label != "diagnosis":
        return cohort
    if task.whole_image and task.healthy is not None:
        _refuse_unlocated(cohort, task, what)
    problems: list[Problem] = []
    kept, others, unclear = [], 0, 0
    for exam in cohort.exams:
        found = _of_image(exam, task) if task.whole_image else _of_lesions(exam, task)
        known = [problem for problem in found if problem.code == "outside_classes"]
        problems += found if task.others == "refuse" else [problem for problem in found if problem not in known]
        others += len(known)
        healthy = task.whole_image and task.healthy is not None and task.label_of_image(exam) == task.healthy
        if healthy and not exam.diagnosis and not exam.usable_as_healthy:
            unclear += 1
        elif not (found and task.whole_image):
            kept.append(exam)
    if problems:
        raise DataError.of(problems, what)
    things = "images" if task.whole_image else "lesions"
    counts = {
        f"other_{things}": (others, f"{things} of none of the task's classes, left out"),
        "unclear_images": (unclear, "images without a located lesion that are not healthy, left out"),
    }
    report = dict(cohort.report)
    for name, (count, text) in counts.items():
        if count:
            report[name] = count
            report["notes"] = [*report.get("notes", []), f"{shown_count(count)} {text}"]
    return replace(cohort, exams=kept, report=report)


def _refuse_unlocated(cohort: Cohort, task: PatchTask, what: str) -> None:
    """Of a source that locates no lesion nobody knows which images are healthy, and which show a benign one."""
    named = any(task.label_of_image(exam) == task.healthy for exam in cohort.exams if exam.diagnosis)
    if not named and not any(exam.lesions for exam in cohort.exams) and any(exam.malignant for exam in cohort.exams):
        raise DataError(
            "no_label",
            f"{what}: malignant images and no located lesion, so nothing says which images are {task.classes[task.healthy or 0]}; name the "
            "table of lesions or a column `diagnosis` in data, or set classes: [benign, malignant]",
        )


def _of_image(exam: Exam, task: PatchTask) -> list[Problem]:
    if task.label_of_image(exam) is not None:
        return []
    word = exam.diagnosis or ("" if exam.malignant is None else "malignant" if exam.malignant else "benign")
    return [_problem(exam.name, word, task)]


def _of_lesions(exam: Exam, task: PatchTask) -> list[Problem]:
    return [
        _problem(f"{exam.name}: the {lesion.kind} at {tuple(lesion.box)}", _word(lesion, task), task)
        for lesion in exam.lesions
        if task.lesions in ("all", lesion.kind) and task.label_of_lesion(lesion) is None
    ]


def _word(lesion: Lesion, task: PatchTask) -> str:
    """What a lesion is, in a word of the sort that the classes are named by; empty where that is not known."""
    by_kind = any(name.casefold() in KINDS for name in task.classes)
    return lesion.diagnosis or (lesion.kind if by_kind else "")


def _problem(name: str, word: str, task: PatchTask) -> Problem:
    if not word:
        return Problem("no_label", f"{name} has no label; whether it is {' or '.join(task.classes)} is not known")
    return Problem(
        "outside_classes",
        f"{name} is {word!r}, which is none of the task's classes {', '.join(task.classes)}; add it to task.classes, or set "
        "task.others: leave_out",
    )
