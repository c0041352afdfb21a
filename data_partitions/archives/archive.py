"""What all readers of files on disk have in common: their settings, and one account of everything that was wrong.

A reader goes through its whole archive and notes each fault (file or row, value, remedy) before it refuses anything.
The cohort's report counts what was left out. If that is more than `max_bad_fraction`, one error lists every fault. What is no
fault and yet not as it lies in the files is counted by the names in `facts`: left out, changed or doubted.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_partitions.archives.account import Account
from data_partitions.archives.exclusions import listed, without
from data_partitions.errors import DataError
from data_partitions.exams import Cohort, Exam
from data_partitions.patches import PatchTask
from data_partitions.reading.folders import litter_below
from data_partitions.reading.limits import Limits
from data_partitions.reading.looks import files_digest
from data_partitions.source import DataSource


class FileSource(DataSource):
    """Images in files; the field names are the keys of the scenario."""

    path: Path
    encoding: str | None = Field(None, description="of the text tables; found out when left out")
    max_bad_fraction: float = Field(
        0.0, ge=0, le=1, description="share of rows and files that may be left out as unusable"
    )
    exclude: Path | None = Field(None, description="csv of images to leave out, with a column `image`, maybe `reason`")
    limits: Limits = Field(Limits(), description="how much of one file is read: megapixels, megabytes, frames")
    blank_images: Literal["skip", "keep"] = Field("skip", description="what is done with images of one grey value")

    def files_digest(self) -> str:
        """Changes when a file is added, removed or written again."""
        self._require_path()
        return files_digest(listed(self.path, self.exclude))

    def load(self, centre: str, seed: int, cache: Path | None = None, task: PatchTask | None = None) -> Cohort:
        self._require_path()
        account = Account(self.path, self.encoding, cache, self.limits, keep_blank=self.blank_images == "keep")
        if self.path.is_dir():
            account.fact("system_files", *litter_below(self.path))
        cohort = self._cohort(account, seed, task)
        kept = without(cohort, self.exclude, self.encoding, self.limits, account.exams)
        return account.told(kept, part=len(cohort.exams) < len(account.exams))

    def _require_path(self) -> None:
        if not self.path.is_dir():
            raise DataError("missing_file", f"folder {self.path} does not exist; correct `path`", field="path")

    @abstractmethod
    def _cohort(self, account: Account, seed: int, task: PatchTask | None) -> Cohort:
        """The exams of this centre, before exclusions."""


class ArchiveSource(FileSource):
    """An archive in its own layout, of which all belongs to the centre."""

    def _cohort(self, account: Account, seed: int, task: PatchTask | None) -> Cohort:
        return account.cohort(self._exams(account), self.max_bad_fraction, task)

    @abstractmethod
    def _exams(self, account: Account) -> list[Exam]:
        """Every exam that can be used; `account` takes note of everything else."""
