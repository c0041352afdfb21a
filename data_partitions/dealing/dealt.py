"""One centre's part of an archive that is dealt out to several: any source, a partition rule, and the centre's name.

Every centre computes the same deal from the tables and keeps its own part. It opens the images of that part only (or all
of them once, where the rule sorts patients by the size of the breast). So a deployed node trains on the same images
whether it is given its part this way or as a folder of its own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import model_validator

from basics.atomic_files import write_text
from data_partitions.dealing.partition import PartitionRule, partition
from data_partitions.exams import Cohort, Exam
from data_partitions.patches import TISSUE_STEP, PatchTask
from data_partitions.small_counts import shown_count
from data_partitions.source import DataSource
from data_partitions.sources import AnySource

ARCHIVE = "archive"  # the name under which a source that draws its patients draws them for all centres


class DealtSource(DataSource):
    """Part of an archive; `partition` in a scenario writes one for each of its centres."""

    source: Literal["dealt"] = "dealt"
    archive: AnySource
    partition: PartitionRule
    centre: str

    @model_validator(mode="after")
    def _is_dealt_to(self) -> DealtSource:
        if self.centre not in self.partition.centres:
            raise ValueError(
                f"centre {self.centre!r} gets nothing; the partition has {', '.join(self.partition.centres)}"
            )
        return self

    @property
    def path(self) -> Path | None:
        """Where the archive is; None for a source without files."""
        return getattr(self.archive, "path", None)

    @property
    def counted_as(self) -> Literal["patient", "lesion", "image"]:
        return self.archive.counted_as

    def files_digest(self) -> str:
        """Changes when a file of the archive does."""
        return self.archive.files_digest()

    def load(self, centre: str, seed: int, cache: Path | None = None, task: PatchTask | None = None) -> Cohort:
        """The exams of `self.centre`. Raises DataError.

        The deal depends on the archive and the rule alone, not on the task, `centre` or `seed`.
        """
        own_seed = self.partition.seed or 0
        everyone = self.archive.load(ARCHIVE, own_seed, cache)
        breasts = breast_sizes(self, everyone.exams, cache) if self.partition.by == "breast_size" else {}
        dealt = partition(everyone, self.partition, own_seed, breasts)
        cohort = everyone if task is None else self.archive.load(ARCHIVE, own_seed, cache, task)
        exams = [exam for exam in cohort.exams if dealt.home.get(exam.patient) == self.centre]
        patients = {exam.patient for exam in exams}
        notes = list(cohort.report.get("notes", []))
        if spanning := dealt.report.get("spanning"):
            notes.append(
                f"{shown_count(spanning)} patients have images of several values of {self.partition.by}; each is kept in the "
                "centre of most of those"
            )
        if left_out := dealt.report.get("left_out"):
            notes.append(f"{shown_count(left_out)} images of the archive go to no centre")
        report = cohort.report | {"notes": notes, "partition": dealt.report}
        groups = {patient: group for patient, group in cohort.groups.items() if patient in patients}
        private = cohort.private | {"spanning_patients": list(dealt.spanning)}
        return Cohort(exams, report, private, groups, cohort.for_test & patients)

    def remedy(self, task: PatchTask) -> str:
        return self.archive.remedy(task)


def breast_sizes(source: DealtSource, exams: list[Exam], cache: Path | None) -> dict[str, float]:
    """Name of an exam -> area of the body on it in mm2 (in pixels where the pixel size is not known), NaN for none.

    Every image has to be opened, so the answer is kept under `cache` until the archive changes.
    """
    kept = None
    if cache is not None:
        parts = [source.archive.model_dump(mode="json"), source.files_digest(), source.partition.seed]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
        kept = cache / "breast_sizes" / f"{key}.json"
        if kept.exists():
            return json.loads(kept.read_text(encoding="utf-8"))
    found = {}
    for exam in exams:
        pixels = float(np.mean(exam.open().tissue(TISSUE_STEP))) * exam.shape[0] * exam.shape[1]
        found[exam.name] = pixels * (exam.spacing_mm or 1.0) ** 2 if pixels else float("nan")
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(found))
    return found
