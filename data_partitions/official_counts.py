"""What an archive says it holds, beside what was found in it.

A source may have a property `official`: counts by name, of the whole archive, as its authors give them. Names are those
of `counts_of`: images, patients, malignant (images), "site NAME", "split NAME".
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from data_partitions.exams import Cohort

# Settings by which a source is only a part of its archive.
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
    return dict(counts)


def whole_archive(source: Any) -> Any:
    """The source without what makes it one centre's part of its archive."""
    archive = getattr(source, "archive", source)
    return archive.model_copy(update={name: None for name in PARTS if name in type(archive).model_fields})
