"""A data source: striped images with one square lesion each, malignant in every second patient. Nothing is read from a disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from basics.seeds import stream
from data_partitions import Box, Cohort, DataSource, Exam, Lesion, PatchTask

SIDE = 96


class StripesSource(DataSource):
    """Settings; field names are the keys of a centre's `data`."""

    source: Literal["stripes"] = "stripes"
    patients: int = Field(ge=1)
    brightness: int = Field(80, ge=0, le=255, description="of the stripes")

    def files_digest(self) -> str:
        return ""  # there are no files; a change of this code already counts

    def load(self, centre: str, seed: int, cache: Path | None = None, task: PatchTask | None = None) -> Cohort:
        exams = []
        for number in range(self.patients):
            rng = stream(seed, "stripes", centre, number)
            top, left = (int(side) for side in rng.integers(0, SIDE - 32, 2))
            box, malignant = Box(top, left, top + 24, left + 24), bool(number % 2)
            exams.append(
                Exam(
                    patient=f"p{number}", name=f"p{number}", shape=(SIDE, SIDE),
                    open=partial(Stripes, self.brightness, box, 200 if malignant else 160), malignant=malignant,
                    lesions=(Lesion(box, "mass", malignant),),
                )
            )  # fmt: skip
        return Cohort(exams)


class Stripes:
    """One image, made where it is looked at."""

    def __init__(self, brightness: int, box: Box, grey: int):
        rows = (np.arange(SIDE) % 2 * brightness).astype(np.uint8)
        self._pixels = np.repeat(rows[:, None], SIDE, axis=1)
        self._pixels[box.top : box.bottom, box.left : box.right] = grey

    def window(self, box: Box) -> np.ndarray:
        """uint8 (height, width, 1)."""
        return self._pixels[box.top : box.bottom, box.left : box.right, None]

    def tissue(self, step: int) -> np.ndarray:
        """Where healthy patches may lie, on a grid of every `step` pixels: everywhere."""
        return np.ones((-(-SIDE // step), -(-SIDE // step)), dtype=bool)
