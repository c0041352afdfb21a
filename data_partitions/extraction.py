"""From exams to patches: which region of which image becomes a box, cut into crops of the task's size.

An image with lesions is opened once, a healthy image once for each healthy box. One window is read for all crops of a box.
While one image is cut, other cores open the next ones; the order stays the same.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeVar

import numpy as np
import pandas as pd

from basics.seeds import rank, stream
from data_partitions.exams import Box, Cohort, Exam, Image, Lesion, stored_window
from data_partitions.frames import central_square, square_around, square_around_body, union
from data_partitions.patch_dataset import COLUMNS, PixelWriter
from data_partitions.patches import (
    TISSUE_STEP,
    PatchTask,
    Place,
    TissueMap,
    healthy_square,
    jittered,
)  # fmt: skip
from data_partitions.patient_splits import known, patient_splits
from data_partitions.resizing import resized
from data_partitions.split import SPLITS, SplitRule

Item = TypeVar("Item")
Result = TypeVar("Result")
Opened = Iterator[tuple[Exam, tuple[Image, TissueMap]]]
WORKERS = min(4, len(os.sched_getaffinity(0)))  # threads that open images, including this one
AHEAD = WORKERS + 2  # images opened in advance; each may take tens of megabytes
VISITS = 3  # passes over the healthy images before boxes without a place are given up


@dataclass(frozen=True)
class _Plan:
    """What one split is made of.

    wanted: exams with lesions of the task, `lesions` in all. healthy: number of healthy boxes. candidates: exams for them,
    in order. sites: places that the source proposes; without any, places are drawn.
    """

    split: str
    wanted: list[Exam]
    lesions: int
    healthy: int
    candidates: list[Exam]
    sites: list[tuple[Exam, list[Lesion]]]

    @property
    def opened(self) -> list[Exam]:
        """The exams that are sure to be opened, in this order."""
        return [*self.wanted, *([exam for exam, _ in self.sites] or self.candidates[: self.healthy])]


class Extraction:
    """Cuts the patches of one cohort; `run` returns them."""

    def __init__(
        self, cohort: Cohort, task: PatchTask, seed: int, on_progress: Callable[[int, int], None] | None
    ) -> None:
        self.exams = sorted(cohort.exams, key=lambda exam: exam.name)
        self.numbers = {exam.name: number for number, exam in enumerate(self.exams)}
        self.cohort, self.task, self.seed = cohort, task, seed
        self.on_progress = on_progress
        self.frame = task.frame
        self.rows: list[dict] = []
        self.boxes = 0
        self.missing = 0  # healthy boxes without a place
        self.expected = 0  # boxes, for the progress

    def run(self, rule: SplitRule, pixels: PixelWriter) -> tuple[pd.DataFrame, dict[str, int]]:
        """Writes the patches to `pixels`; table with COLUMNS, and the number given to each patient."""
        self.pixels = pixels
        splits = patient_splits(self.cohort, self.task, rule, self.seed)
        with ThreadPoolExecutor(
            max(1, WORKERS - 1)
        ) as self.pool:  # decoders and arithmetic release the interpreter's lock
            if self.task.whole_image:
                self._whole_images(splits)
            else:
                plans = [self._plan(split, [e for e in self.exams if splits[e.patient] == split]) for split in SPLITS]
                self.expected = sum(plan.lesions + plan.healthy for plan in plans)
                # One sequence for all splits: the first images of the next are opened before a split ends.
                with closing(self._ahead(self._open, [exam for plan in plans for exam in plan.opened])) as opened:
                    for plan in plans:
                        self._boxes_of(plan, opened)
        patients = sorted({exam.patient for exam in self.exams}, key=lambda patient: rank(self.seed, "code", patient))
        codes = {patient: number for number, patient in enumerate(patients)}
        table = pd.DataFrame(self.rows, columns=list(COLUMNS))
        table["patient"] = table["patient"].map(codes)
        return table, codes

    def _whole_images(self, splits: dict[str, str]) -> None:
        self.expected = len(self.exams)
        for exam, (image, body) in self._ahead(self._open_whole, self.exams):
            split, label = splits[exam.patient], known(self.task.label_of_image(exam))
            square = (
                central_square(exam.shape, self.frame)
                if body is None
                else square_around_body(body, exam.shape, self.frame)
            )
            crops = [square]
            if body is not None and split == "train":
                rng = stream(self.seed, "breast", exam.name)
                crops = [square_around_body(body, exam.shape, self.frame, rng) for _ in range(self.task.crops)]
            self._store(exam, image, split, label, crops, square, None, float("nan"))

    def _plan(self, split: str, exams: list[Exam]) -> _Plan:
        wanted = [exam for exam in exams if any(self.task.wants(lesion) for lesion in exam.lesions)]
        lesions = sum(self.task.wants(lesion) for exam in wanted for lesion in exam.lesions)
        count = round(self.task.healthy_per_lesion * lesions) if self.task.healthy is not None else 0
        healthy = [exam for exam in exams if not exam.lesions and exam.usable_as_healthy] if count else []
        # Both views of a breast stay together: what they share is worked out once.
        healthy.sort(key=lambda exam: (rank(self.seed, "healthy", exam.patient, exam.laterality), exam.name))
        proposed = [(exam, site) for exam in healthy for site in exam.healthy_sites or () if self._of_kind(site)]
        sites = [(exam, [site for _, site in pairs]) for exam, pairs in groupby(proposed[:count], key=lambda p: p[0])]
        return _Plan(split, wanted, lesions, count, healthy, sites)

    def _boxes_of(self, plan: _Plan, opened: Opened) -> None:
        """Boxes of one split: around its lesions, then as many healthy ones as the task asks for, made alike."""
        models: list[tuple[int, Place]] = []  # side in pixels and place of each lesion's square
        for exam, (image, tissue) in islice(opened, len(plan.wanted)):
            for lesion in exam.lesions:
                if self.task.wants(lesion):
                    models.append(self._around(exam, image, tissue, lesion, plan.split))
        before = self.boxes
        for _, sites in plan.sites:
            exam, (image, tissue) = next(opened)
            for site in sites:
                self._around(exam, image, tissue, site, plan.split, healthy=True)
        if not plan.sites:
            self._draw_healthy(plan, models, opened)
        self.missing += plan.healthy - (self.boxes - before)

    def _draw_healthy(self, plan: _Plan, models: list[tuple[int, Place]], opened: Opened) -> None:
        """Squares in the healthy images, each of the size and place of the next lesion's square."""
        split, waiting = plan.split, [models[i % len(models)] for i in range(plan.healthy)]
        taken: dict[str, list[Box]] = {}
        visits = VISITS * max(1, -(-plan.healthy // max(1, len(plan.candidates))))
        for visit in range(visits):
            left = plan.candidates
            while waiting and left:
                # Each image takes one square, so each image that is opened is used.
                now, left = left[: len(waiting)], left[len(waiting) :]
                first = visit == 0 and now[0] is plan.candidates[0]
                for exam, (image, tissue) in islice(opened, len(now)) if first else self._ahead(self._open, now):
                    side, like = waiting.pop(0)
                    rng = stream(self.seed, "healthy place", exam.name, visit)
                    others = taken.setdefault(exam.name, [])
                    square = healthy_square(side, like, tissue, exam.shape, self.task, others, rng)
                    if square is None:
                        waiting.append((side, like))
                        continue
                    others.append(square)
                    # Its middle is kept in every crop, as a lesion is: jitter then moves both classes alike.
                    margin = self.task.margin(exam.spacing_mm)
                    inner = Box(
                        square.top + margin, square.left + margin, square.bottom - margin, square.right - margin
                    )
                    keep = inner if inner.height > 0 and inner.width > 0 else square
                    crops = self._crops(exam, square, keep, split, "healthy", visit)
                    self._store(exam, image, split, self._healthy, crops, square, None, tissue.background(square))

    def _around(
        self, exam: Exam, image: Image, tissue: TissueMap, lesion: Lesion, split: str, *, healthy: bool = False
    ) -> tuple[int, Place]:
        """Store the box around a lesion, or around a healthy site; returns its side and place."""
        margin = self.task.margin(exam.spacing_mm)
        square = square_around(lesion.box, margin, exam.shape, self.frame, self.task.minimum_px)
        place = tissue.place(square)
        label = self._healthy if healthy else known(self.task.label_of_lesion(lesion))
        crops = self._crops(exam, square, lesion.box, split, "lesion", *lesion.box)
        self._store(exam, image, split, label, crops, square, None if healthy else lesion, place.background)
        return min(square.height, square.width), place

    @property
    def _healthy(self) -> int:
        return known(self.task.healthy)

    def _crops(self, exam: Exam, square: Box, keep: Box, split: str, *names: str | int) -> list[Box]:
        """Jittered crops of a training box; validation and test see the square itself."""
        if split != "train":
            return [square]
        rng = stream(self.seed, "jitter", exam.name, *names)
        return [jittered(square, keep, self.task, exam.shape, rng) for _ in range(self.task.crops)]

    def _store(
        self, exam: Exam, image: Image, split: str, label: int, crops: list[Box], square: Box, lesion: Lesion | None,
        background: float,
    ) -> None:  # fmt: skip
        around = union(crops)
        window = stored_window(image, around, self.task.storage)
        malignant = lesion.malignant if lesion else exam.malignant if self.task.whole_image else None
        for crop, box in enumerate(crops):
            part = window[
                box.top - around.top : box.bottom - around.top, box.left - around.left : box.right - around.left
            ]
            self.pixels.append(resized(part, self.task.shape))
            self.rows.append({
                "label": label, "box": self.boxes, "crop": crop, "patient": exam.patient,
                "image": self.numbers[exam.name], "split": split, "lesion_type": lesion.kind if lesion else "",
                "view": exam.view, "laterality": exam.laterality, "density": exam.density, "age": exam.age,
                "birads": lesion.birads if lesion else "", "malignant": None if malignant is None else int(malignant),
                "spacing_mm": exam.spacing_mm, "scanner": exam.scanner, "width": square.width,
                "background": None if np.isnan(background) else round(background, 4),
            })  # fmt: skip
        self.boxes += 1
        if self.on_progress:
            self.on_progress(min(self.boxes, self.expected), self.expected)

    def _of_kind(self, site: Lesion) -> bool:
        return self.task.lesions in ("all", site.kind)

    def _ahead(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[tuple[Item, Result], None, None]:
        """(item, work(item)) in order; at most AHEAD wait. This thread works too, instead of waiting."""
        left = iter(items)
        waiting: deque[tuple[Item, Future[Result]]] = deque()

        def submit() -> None:
            waiting.extend((item, self.pool.submit(work, item)) for item in islice(left, AHEAD - len(waiting)))

        try:
            submit()
            while waiting:
                for place in range(len(waiting)):
                    if waiting[0][1].done():
                        break
                    item, future = waiting[place]
                    if future.cancel():
                        waiting[place] = item, _done(work, item)
                first, future = waiting.popleft()
                submit()
                yield first, future.result()
        finally:  # after an error nothing more is opened
            for _, future in waiting:
                future.cancel()

    def _open_whole(self, exam: Exam) -> tuple[Image, Box | None]:
        """The image, and where the body is if the task keeps it."""
        if not self.task.keep_breast:
            return exam.open(), None
        image, tissue = self._open(exam)
        top, left, bottom, right = tissue.box
        # Between two samples the skin may lie up to a step further out.
        wider = Box(top - TISSUE_STEP, left - TISSUE_STEP, bottom + TISSUE_STEP, right + TISSUE_STEP)
        return image, wider.clipped(exam.shape)

    def _open(self, exam: Exam) -> tuple[Image, TissueMap]:
        image = exam.open()
        return image, TissueMap(image.tissue(TISSUE_STEP), TISSUE_STEP)


def _done(work: Callable[[Item], Result], item: Item) -> Future[Result]:
    """work(item), done in this thread."""
    future: Future[Result] = Future()
    try:
        future.set_result(work(item))
    except Exception as error:
        future.set_exception(error)
    return future
