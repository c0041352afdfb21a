"""One centre's part of an archive that is dealt out to several: any source, a partition rule, and the centre's name.

Every centre works out the same deal from the tables and keeps its own part; it opens the images of that part only (all
of them once, where the rule sorts patients by the size of the breast). So a real node that is given its part this way,
or that holds a folder with nothing but its part, trains on the same images.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from data_partitions.dealing.partition import PartitionRule, partition
from data_partitions.exams import Cohort, Exam
from data_partitions.patches import TISSUE_STEP, PatchTask
from data_partitions.small_cells import cell

ARCHIVE = "archive"  # the name under which a source that draws its patients draws them for all centres


def any_source(value: Any) -> Any:
    """The settings of any other source, by its field `source`."""
    from data_partitions import SOURCES  # the table names this file's source, too

    if isinstance(value, BaseModel):
        return value
    known = {name: kind for name, kind in SOURCES.items() if kind is not DealtSource}
    name = value.get("source") if isinstance(value, dict) else value
    if not isinstance(name, str) or name not in known or not isinstance(value, dict):
        raise ValueError(f"source is {name!r}; known sources: {', '.join(known)}")
    try:
        return TypeAdapter(known[name]).validate_python(value)
    except ValidationError as problem:
        keys = ", ".join(getattr(known[name], "model_fields", ()))
        raise ValueError("; ".join(_worded(error, keys) for error in problem.errors(include_url=False))) from None


def _worded(error: Any, keys: str) -> str:
    """One fault of a source's settings: the key, and what would be right."""
    where = ".".join(str(key) for key in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; known keys: {keys}"
    text = error["msg"].removeprefix("Value error, ")
    return f"{where}: {text[0].lower() + text[1:]}" if where else text


# What a source offers is checked by `any_source`; the table of sources cannot be spelled as a type without a cycle.
AnySource = Annotated[SerializeAsAny[BaseModel], BeforeValidator(any_source)]


class DealtSource(BaseModel):
    """Part of an archive; `partition` in a scenario writes one for each of its centres."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    def _source(self) -> Any:
        return self.archive

    @property
    def path(self) -> Path | None:
        """Where the archive lies; None where nothing on disk decides what it holds."""
        return getattr(self.archive, "path", None)

    def files_digest(self) -> str:
        """Changes when a file of the archive does."""
        return self._source.files_digest()

    def load(self, centre: str, seed: int, cache: Path | None = None, task: PatchTask | None = None) -> Cohort:
        """The exams of `self.centre`. Raises DataError.

        The deal depends on the archive and the rule alone: not on the task, nor on `centre` and `seed`, which differ
        from centre to centre.
        """
        own_seed = self.partition.seed or 0
        everyone: Cohort = self._source.load(ARCHIVE, own_seed, cache)
        breasts = breast_sizes(self, everyone.exams, cache) if self.partition.by == "breast_size" else {}
        dealt = partition(everyone, self.partition, own_seed, breasts)
        cohort = everyone if task is None else self._source.load(ARCHIVE, own_seed, cache, task)
        exams = [exam for exam in cohort.exams if dealt.home.get(exam.patient) == self.centre]
        patients = {exam.patient for exam in exams}
        notes = list(cohort.report.get("notes", []))
        if spanning := dealt.report.get("spanning"):
            notes.append(
                f"{cell(spanning)} patients have images of several values of {self.partition.by}; each is kept in the "
                "centre of most of them"
            )
        if left_out := dealt.report.get("left_out"):
            notes.append(f"{cell(left_out)} images of the archive go to no centre")
        report = cohort.report | {"notes": notes, "partition": dealt.report}
        groups = {patient: group for patient, group in cohort.groups.items() if patient in patients}
        private = cohort.private | {"spanning_patients": list(dealt.spanning)}
        return Cohort(exams, report, private, groups, cohort.for_test & patients)


def breast_sizes(source: DealtSource, exams: list[Exam], cache: Path | None) -> dict[str, float]:
    """Name of an exam -> area of the body on it in mm2 (in pixels where the pixel size is not known), NaN for none.

    Every image has to be opened, so the answer is kept under `cache` for as long as the archive stays as it is.
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
        temporary = kept.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(found), encoding="utf-8")
        temporary.rename(kept)
    return found
