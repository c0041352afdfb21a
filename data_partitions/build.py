"""Patches of one centre, made once: source and task in, a `PatchDataset` on disk out.

The cache finds them again by a key over everything that they depend on: the source's settings and files, the task, the
split, the centre, the seed, and the code of this package and of a source's plug-in. Two processes that want the same patches
make them once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from data_partitions.code import code_digest
from data_partitions.errors import BadFile, DataError
from data_partitions.exams import Cohort
from data_partitions.extraction import Extraction
from data_partitions.patch_dataset import PRIVATE, PatchDataset, PixelWriter, open_patches, write_patches
from data_partitions.patches import PatchTask
from data_partitions.preprocessing import preprocessed
from data_partitions.shown_classes import of_task
from data_partitions.small_counts import shown_count
from data_partitions.source import DataSource
from data_partitions.sources import WHOLE_SOURCES
from data_partitions.split import SplitRule

Progress = Callable[[int, int], None]


def build_patches(
    source: DataSource, task: PatchTask, split: SplitRule, *, centre: str, seed: int, cache: Path,
    on_progress: Progress | None = None,
) -> PatchDataset:  # fmt: skip
    """The centre's patches, from the cache or made now.

    on_progress(done, total) counts boxes. Raises DataError for data that cannot be used.
    """
    key = _key(source, task, split, centre, seed)
    folder = Path(cache) / "patches" / key
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent / f"{key}.lock"):
            if not folder.exists():
                _make(folder, source, task, split, centre, seed, Path(cache), on_progress)
    return _opened(folder)


# Jobs of one centre often follow each other. The folder's name is the key of all that is in it.
_opened = lru_cache(maxsize=4)(open_patches)


def _key(source: DataSource, task: PatchTask, split: SplitRule, centre: str, seed: int) -> str:
    parts = {
        "source": source.model_dump(mode="json"),
        "files": source.files_digest(),
        "task": task.model_dump(mode="json", include=set(PatchTask.model_fields)),
        "split": split.model_dump(mode="json"),
        "centre": centre,
        "seed": seed,
        "code": code_digest(),
    }
    archive = getattr(source, "archive", source)  # of a part of an archive, the archive
    if (plugin := WHOLE_SOURCES.plugin_of(archive.source)) is not None:
        parts["plugin"] = plugin.digest()
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the system drops it when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(
    folder: Path, source: DataSource, task: PatchTask, split: SplitRule, centre: str, seed: int, cache: Path,
    on_progress: Progress | None,
) -> None:  # fmt: skip
    cohort = of_task(source.load(centre, seed, cache, task), task, f"centre {centre}")
    if not cohort.exams:
        left = f" ({'; '.join(cohort.report['notes'])})" if cohort.report.get("notes") else ""
        raise DataError(
            "no_images", f"centre {centre}: the source has no usable image{left}; check its path and filters"
        )
    extraction = Extraction(preprocessed(cohort, task.preprocess, task.storage), task, seed, on_progress)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        # On small matrices more threads of BLAS are no faster, and keep every core busy.
        with threadpool_limits(1, user_api="blas"), PixelWriter(temporary, task.shape, task.storage) as pixels:
            try:
                table, codes = extraction.run(split, pixels)
            except BadFile as error:  # a file that changed since it was looked at
                raise DataError(error.code, f"centre {centre}: {error}") from error
        if not len(table):
            known = "" if task.label == "lesion" else f", of the classes {', '.join(task.classes)}"
            raise DataError(
                "no_lesions",
                f"centre {centre}: {len(cohort.exams)} images and no lesion of the task's kind (lesions: {task.lesions}{known}); "
                f"{source.remedy(task)}",
                lesions=task.lesions,
            )
        write_patches(temporary, table, _report(cohort, extraction), task.classes)
        # The only file with identities: it stays beside the data, readable by its owner only.
        private = temporary / PRIVATE
        private.touch(mode=0o600)
        private.write_text(json.dumps({"patients": codes, **cohort.private}, indent=1), encoding="utf-8")
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _report(cohort: Cohort, extraction: Extraction) -> dict[str, Any]:
    report: dict[str, Any] = cohort.report | {
        "exams": len(cohort.exams),
        "patients": len({e.patient for e in cohort.exams}),
    }
    if extraction.missing:
        report["healthy_boxes_missing"] = extraction.missing
        report["notes"] = [
            *report.get("notes", []),
            f"{shown_count(extraction.missing)} healthy boxes have no place in any image and were left out",
        ]
    return report
