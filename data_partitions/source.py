"""What every data source is: settings, written in a scenario, that can load a centre's exams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from data_partitions.exams import Cohort
from data_partitions.patches import PatchTask


class DataSource(BaseModel, ABC):
    """One source; the field names are the keys of a scenario's `data`, and `source` is the name that selects it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str

    @property
    def counted_as(self) -> Literal["patient", "lesion", "image"]:
        """What counts as one patient here, where an archive names none."""
        return "patient"

    @property
    def official(self) -> dict[str, int]:
        """Counts of the whole archive as its authors give them, by the names of `official_counts.counts_of`."""
        return {}

    @property
    def in_papers(self) -> dict[str, int]:
        """The same counts in studies of the archive, which follow rules of their own."""
        return {}

    @abstractmethod
    def files_digest(self) -> str:
        """Changes when a file changes on which the exams depend. Raises DataError where files are missing."""

    @abstractmethod
    def load(self, centre: str, seed: int, cache: Path | None = None, task: PatchTask | None = None) -> Cohort:
        """The centre's exams. Raises DataError.

        cache: where the result of looking at all image files is kept. task: what the exams are for. For a task of
        malignancy, each image (`whole_image`) or lesion without a known label is a fault. None: labels may be missing.
        """

    def remedy(self, task: PatchTask) -> str:
        """What to change where the source holds no lesion for the task."""
        return "set `lesions: all` in the task, or choose another task or archive"
