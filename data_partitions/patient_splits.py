"""Which split each patient of a cohort is in, for one task."""

from __future__ import annotations

from data_partitions.exams import Cohort, Exam
from data_partitions.patches import PatchTask
from data_partitions.split import SplitRule, split_patients


def patient_splits(cohort: Cohort, task: PatchTask, rule: SplitRule, seed: int) -> dict[str, str]:
    """Split of each patient. A group's class is the last by label of its exams'; its density the first by name.

    A patient with an official split is in that one. Without an official validation split, validation patients are drawn
    from all that are not for testing.
    """
    strata: dict[str, tuple[int, str]] = {}
    official: dict[str, str] = {}
    for exam in sorted(cohort.exams, key=lambda exam: exam.name):
        group = cohort.group(exam.patient)
        label, density = strata.get(group, (0, exam.density))
        strata[group] = (max(label, _label(exam, task)), density)
        if exam.split:
            official.setdefault(group, exam.split)
    reserved = {cohort.group(patient) for patient in cohort.for_test}
    reserved |= {group for group, split in official.items() if split == "test"}
    of_group = split_patients(strata, rule, seed, reserved)
    if "val" in official.values() and not rule.test_only:
        of_group |= official
    return {exam.patient: of_group[cohort.group(exam.patient)] for exam in cohort.exams}


def known(label: int | None) -> int:
    """A label, which the source guarantees where the task needs one: unknown is not negative."""
    assert label is not None, "a source hands over what has no label to a task that needs one"
    return label


def _label(exam: Exam, task: PatchTask) -> int:
    """What an exam counts as where patients are shared out: of several lesions, the last class."""
    if task.whole_image:
        return known(task.label_of_image(exam))
    labels = [task.label_of_lesion(lesion) for lesion in exam.lesions if task.wants(lesion)]
    return max((known(label) for label in labels), default=0)
