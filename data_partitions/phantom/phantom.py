"""Mammography phantom: invented patients, drawn and rendered from a seed.

It uses no real image and no learnt weight. It has what a study of centres needs: patients with two breasts in two views,
density, age, lesions with contours, BI-RADS and malignancy, and three scanners that differ as vendors do. It is not a
model of the disease: what is learnt from it says nothing about women.

Only the requested windows are rendered; see `fields` for why a window equals its part of the image.
"""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from basics.image_shape import Storage
from basics.seeds import stream
from data_partitions.exams import Box, Cohort, Exam, Lesion, bounding_box
from data_partitions.patches import PatchTask
from data_partitions.phantom.anatomy import Finding, Patient, Population, draw_patient
from data_partitions.phantom.scanner import HALO, SCANNERS, Acquisition
from data_partitions.phantom.view import VIEWS, Outline, ViewOfBreast, silhouette
from data_partitions.source import DataSource

SPACING_MM = 0.2
SHAPE = (1200, 900)  # rows, columns: 240 x 180 mm
SIZE_MM = (SHAPE[0] * SPACING_MM, SHAPE[1] * SPACING_MM)
NIPPLE_ROW_MM = {"CC": SIZE_MM[0] / 2, "MLO": SIZE_MM[0] / 2 + 8}


class PhantomSource(DataSource):
    """A simulated screening centre; the field names are the keys of the scenario."""

    source: Literal["phantom"] = "phantom"
    patients: int = Field(ge=1, le=100_000)
    scanner: Literal["digital", "digital-2", "film"] = "digital"
    lesion_fraction: float = Field(0.7, ge=0, le=1, description="share of patients with a lesion (in one breast)")
    malignant: float = Field(0.45, ge=0, le=1, description="share of malignant lesions")
    densities: tuple[float, float, float, float] = Field((0.15, 0.36, 0.34, 0.15), description="shares of a, b, c, d")
    lesion_size: float = Field(1.0, gt=0, le=2, description="factor on the lesions' radius")
    contrast: float = Field(1.0, gt=0, le=3, description="factor on the lesions' contrast")

    def files_digest(self) -> str:
        """Empty: a phantom depends on no file."""
        return ""

    def load(self, centre: str, seed: int, cache: Path | None = None, task: PatchTask | None = None) -> Cohort:
        """All exams of the centre, for every task: each lesion has a label.

        Patient k is the same for any number of patients, and on any scanner.
        """
        population = Population(self.densities, self.malignant, self.lesion_size, self.contrast)
        exams = []
        for number in range(self.patients):
            patient = draw_patient(seed, centre, number, population, self.lesion_fraction)
            exams += [self._exam(patient, laterality, view) for laterality in "LR" for view in VIEWS]
        return Cohort(exams)

    def remedy(self, task: PatchTask) -> str:
        return "raise `lesion_fraction` or `patients`"

    def _exam(self, patient: Patient, laterality: str, view: str) -> Exam:
        findings = [(f, _as_lesion(f, laterality, view)) for f in patient.sites[laterality]]
        lesions = tuple(lesion for finding, lesion in findings if not finding.sham)
        return Exam(
            patient=f"P{patient.number:05d}",
            name=f"P{patient.number:05d}_{laterality}_{view}",
            shape=SHAPE,
            open=partial(PhantomImage, patient, laterality, view, self.scanner),
            view=view,
            laterality=laterality,
            density=patient.density,
            age=patient.age,
            scanner=self.scanner,
            spacing_mm=SPACING_MM,
            malignant=any(lesion.malignant for lesion in lesions),
            lesions=lesions,
            healthy_sites=tuple(lesion for finding, lesion in findings if finding.sham),
        )


class PhantomImage:
    """One exposure, rendered window by window."""

    shape = SHAPE

    def __init__(self, patient: Patient, laterality: str, view: str, scanner: str) -> None:
        self.patient, self.laterality, self.view, self.scanner = patient, laterality, view, scanner

    def window(self, box: Box) -> np.ndarray:
        """uint8 (height, width, 1)."""
        return self._window(box, "uint8")

    def deep_window(self, box: Box) -> np.ndarray:
        """The same as uint16."""
        return self._window(box, "uint16")

    def _window(self, box: Box, storage: Storage) -> np.ndarray:
        flipped = self.laterality == "R"
        left = SHAPE[1] - box.right if flipped else box.left
        top, height, width = box.top - HALO, box.height + 2 * HALO, box.width + 2 * HALO
        rows, columns = (
            self._rows_mm(np.arange(top, top + height)),
            _columns_mm(np.arange(left - HALO, left - HALO + width)),
        )
        view, acquisition = self._parts
        pixels = acquisition.developed(view.attenuation(rows, columns), rows, columns, top, left - HALO, storage)
        return pixels[:, ::-1, None] if flipped else pixels[..., None]

    def tissue(self, step: int) -> np.ndarray:
        """bool: breast or pectoral muscle at every `step`-th pixel."""
        outline = silhouette(self.patient, self.view)
        rows, columns = self._rows_mm(np.arange(0, SHAPE[0], step)), _columns_mm(np.arange(0, SHAPE[1], step))
        body = outline.depth(rows, columns) > 0
        muscle = outline.muscle(rows, columns)
        body = body if muscle is None else body | (muscle > 0.5)
        return body[:, ::-1] if self.laterality == "R" else body

    @cached_property
    def _parts(self) -> tuple[ViewOfBreast, Acquisition]:
        rng = stream(self.patient.seed, "acquisition", self.laterality, self.view)
        acquisition = Acquisition(SCANNERS[self.scanner], SIZE_MM, -NIPPLE_ROW_MM[self.view], rng)
        return ViewOfBreast(self.patient, self.laterality, self.view), acquisition

    def _rows_mm(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels + 0.5) * SPACING_MM - NIPPLE_ROW_MM[self.view]


def _columns_mm(pixels: np.ndarray) -> np.ndarray:
    return (pixels + 0.5) * SPACING_MM


def _as_lesion(finding: Finding, laterality: str, view: str) -> Lesion:
    """The finding as it lies on the image: contour and box in pixels."""
    points = (Outline(finding, view).points() + (NIPPLE_ROW_MM[view], 0)) / SPACING_MM
    if laterality == "R":
        points[:, 1] = SHAPE[1] - points[:, 1]
    box = bounding_box(points).clipped(SHAPE)
    if finding.sham:
        return Lesion(box, finding.kind, contour=points)
    return Lesion(box, finding.kind, finding.malignant, finding.birads, points)
