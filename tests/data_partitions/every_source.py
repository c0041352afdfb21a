"""One small archive of every source that reads files, for what has to hold in all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from archives import write_bcdr, write_cbis_ddsm, write_cdd_cesm, write_ddsm, write_inbreast, write_omi_db
from test_folder import archive as write_folder
from test_isic import ham as write_isic
from test_mini_mias import archive as write_mini_mias

from data_partitions import Cohort
from data_partitions.reading.folders import files_below
from data_partitions.reading.image_files import is_image
from data_partitions.sources import WHOLE_SOURCES


@dataclass(frozen=True)
class Archive:
    """How a source's archive is written and read. tables: its tables, by a pattern."""

    source: str
    write: Callable[[Path], Any]
    settings: tuple[tuple[str, Any], ...] = ()
    tables: str = "*.csv"

    def load(self, folder: Path, **settings: Any) -> Cohort:
        return WHOLE_SOURCES[self.source](path=folder, **(dict(self.settings) | settings)).load("A", 0)

    def images(self, folder: Path) -> list[Path]:
        """The files of its exams, in order."""
        return sorted(folder / exam.file for exam in self.load(folder).exams)


ARCHIVES = {
    "folder": Archive("folder", lambda folder: write_folder(folder, 12)),
    "inbreast": Archive("inbreast", lambda folder: write_inbreast(folder, 4)),
    "bcdr": Archive("bcdr", lambda folder: write_bcdr(folder, patients=3)),
    "cbis_ddsm": Archive("cbis_ddsm", lambda folder: write_cbis_ddsm(folder, "png", 3)),
    "ddsm": Archive("ddsm", lambda folder: write_ddsm(folder, 2, 2), tables="*.ics"),
    "omi_db": Archive("omi_db", lambda folder: write_omi_db(folder, 4), tables="*.json"),
    "cdd_cesm": Archive("cdd_cesm", lambda folder: write_cdd_cesm(folder, 3)),
    "isic": Archive("isic", lambda folder: write_isic(folder, 16), (("release", "ham10000"),)),
    "mini_mias": Archive("mini_mias", write_mini_mias, tables="Info.txt"),
}
CSV = [name for name, archive in ARCHIVES.items() if archive.tables == "*.csv"]


def written(name: str, folder: Path) -> Archive:
    folder.mkdir(parents=True, exist_ok=True)
    ARCHIVES[name].write(folder)
    return ARCHIVES[name]


def described(cohort: Cohort) -> list[tuple]:
    """All that tells the exams of a cohort from those of another, without their pixels."""
    return [
        (e.name, e.patient, e.view, e.laterality, e.density, e.age, e.malignant, e.diagnosis, e.usable_as_healthy, e.shape,
         [(lesion.box, lesion.kind, lesion.malignant) for lesion in e.lesions])
        for e in sorted(cohort.exams, key=lambda e: e.name)
    ]  # fmt: skip


def image_files(folder: Path) -> list[Path]:
    return [file for file in files_below(folder) if is_image(file)]


def noise(seed: int, shape: tuple[int, ...] = (60, 50)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
