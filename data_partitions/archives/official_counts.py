"""What an archive says it holds, and what papers found in it, beside what was found in it here.

The properties `official` and `in_papers` of a source use the names of `counts_of`: images, patients, malignant (images),
lesions, masses, "site NAME", "split NAME", and "TABLE: rows" and "TABLE: lesions" of an archive whose tables are counted
one by one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from data_partitions.exams import Cohort

# Settings that limit a source to a part of its archive; all None: the whole.
PARTS = ("centre", "part", "images")


def counts_of(cohort: Cohort) -> dict[str, int]:
    """What a cohort holds."""
    exams = cohort.exams
    counts = Counter({"images": len(exams), "patients": len({exam.patient for exam in exams})})
    counts["malignant"] = sum(bool(exam.malignant) for exam in exams)
    for exam in exams:
        if exam.site:
            counts[f"site {exam.site}"] += 1
        if exam.split:
            counts[f"split {exam.split}"] += 1
        counts["lesions"] += len(exam.lesions)
        counts["masses"] += sum(lesion.kind == "mass" for lesion in exam.lesions)
    for table, steps in cohort.report.get("counts", {}).items():
        for step in ("rows", "lesions"):
            counts[f"{table}: {step}"] = steps[f"{step}_benign"] + steps[f"{step}_malignant"]
    return {name: count for name, count in counts.items() if count or name not in ("lesions", "masses")}


def whole_archive(source: Any) -> Any:
    """The source without the settings that limit it to one centre's part."""
    archive = getattr(source, "archive", source)
    fields = type(archive).model_fields
    return archive.model_copy(update={name: None for name in PARTS if name in fields and fields[name].default is None})
