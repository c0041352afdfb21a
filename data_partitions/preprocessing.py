"""What is done to whole images before patches are cut: steps by name, in the order in which the scenario lists them.

    flip_to_left      right breasts are mirrored, so that the chest wall is always on the left
    segment_breast    everything but the breast (labels, markers, film edge) becomes 0 (dm-GAN)
    clahe             local contrast (dm-GAN)
    fit               scaled by the largest factor that fits into height x width, the rest 0 on the side away from the chest
                      wall and half above, half below: aspect ratio and hanging protocol stay (Korkinof et al. 2018)

    task: {preprocess: [flip_to_left, segment_breast, {clahe: {clip_limit: 2.0}}, {fit: {height: 1280, width: 1024}}]}

Lesions, healthy sites, contours and the pixel size follow the geometry. Steps work on images of 8 or of 16 bits, as the task
stores its patches; clahe on 8 bits only. The order matters, and is part of a unit's id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image as PillowImage
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from basics.image_shape import ImageShape, Storage
from data_partitions.clahe import clahe
from data_partitions.exams import Box, Cohort, Exam, Lesion, stored_window
from data_partitions.geometry import Geometry
from data_partitions.resizing import resized

MASK_STEP = 8  # pixels between the samples of the mask that says where the breast is
WALL_STEP = 16


@dataclass(frozen=True)
class Frame:
    """What a step needs to know about its image: the shape, and the side of the chest wall."""

    shape: tuple[int, int]
    wall_is_left: bool


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FlipToLeft(_Step):
    """Mirror images whose chest wall is on the right."""

    step: Literal["flip_to_left"] = "flip_to_left"
    by: Literal["laterality", "image"] = Field(
        "laterality", description="of the exam, or where most of the breast lies; the image decides where none is known"
    )

    def geometry(self, frame: Frame) -> tuple[Geometry, Frame]:
        if frame.wall_is_left:
            return Geometry(frame.shape), frame
        return Geometry(frame.shape, columns=(-1.0, float(frame.shape[1]))), replace(frame, wall_is_left=True)

    def pixels(self, pixels: np.ndarray, mask: np.ndarray, frame: Frame) -> np.ndarray:
        return pixels if frame.wall_is_left else np.ascontiguousarray(pixels[:, ::-1])


class SegmentBreast(_Step):
    """Everything outside the body becomes 0."""

    step: Literal["segment_breast"] = "segment_breast"

    def geometry(self, frame: Frame) -> tuple[Geometry, Frame]:
        return Geometry(frame.shape), frame

    def pixels(self, pixels: np.ndarray, mask: np.ndarray, frame: Frame) -> np.ndarray:
        """mask: of the body on this image, every MASK_STEP-th pixel; its edge is drawn smoothly between the samples."""
        height, width = pixels.shape[:2]
        covered = (mask.shape[1] * MASK_STEP, mask.shape[0] * MASK_STEP)
        grey = PillowImage.fromarray(mask.astype(np.uint8) * 255).resize(covered, PillowImage.Resampling.BILINEAR)
        return pixels * (np.asarray(grey)[:height, :width, None] > 127)


class Clahe(_Step):
    """Local contrast; of a colour image that of its luminance."""

    step: Literal["clahe"] = "clahe"
    clip_limit: float = Field(2.0, ge=1, description="how often a grey level may occur, in its mean")
    tiles: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (8, 8)

    def geometry(self, frame: Frame) -> tuple[Geometry, Frame]:
        return Geometry(frame.shape), frame

    def pixels(self, pixels: np.ndarray, mask: np.ndarray, frame: Frame) -> np.ndarray:
        if pixels.shape[2] == 1:
            return clahe(pixels[..., 0], self.clip_limit, self.tiles)[..., None]
        parts = np.asarray(PillowImage.fromarray(pixels).convert("YCbCr")).copy()
        parts[..., 0] = clahe(parts[..., 0], self.clip_limit, self.tiles)
        size = (pixels.shape[1], pixels.shape[0])
        return np.asarray(PillowImage.frombytes("YCbCr", size, parts.tobytes()).convert("RGB"))


class Fit(_Step):
    """One size for all images, aspect ratio kept."""

    step: Literal["fit"] = "fit"
    height: int = Field(1280, ge=16)
    width: int = Field(1024, ge=16)

    def geometry(self, frame: Frame) -> tuple[Geometry, Frame]:
        height, width, top, left = self._place(frame)
        rows, columns = (height / frame.shape[0], float(top)), (width / frame.shape[1], float(left))
        shape = (self.height, self.width)
        return Geometry(shape, rows, columns), replace(frame, shape=shape)

    def pixels(self, pixels: np.ndarray, mask: np.ndarray, frame: Frame) -> np.ndarray:
        height, width, top, left = self._place(frame)
        scaled = np.moveaxis(resized(pixels, ImageShape(pixels.shape[2], height, width)), 0, 2)
        out = np.zeros((self.height, self.width, pixels.shape[2]), dtype=pixels.dtype)
        out[top : top + height, left : left + width] = scaled
        return out

    def _place(self, frame: Frame) -> tuple[int, int, int, int]:
        """Height, width, top and left of the scaled image on the new one."""
        scale = min(self.height / frame.shape[0], self.width / frame.shape[1])
        height = min(self.height, max(1, round(frame.shape[0] * scale)))
        width = min(self.width, max(1, round(frame.shape[1] * scale)))
        return height, width, (self.height - height) // 2, 0 if frame.wall_is_left else self.width - width


STEPS: dict[str, type[BaseModel]] = {
    "flip_to_left": FlipToLeft,
    "segment_breast": SegmentBreast,
    "clahe": Clahe,
    "fit": Fit,
}


def _by_name(value: Any) -> Any:
    """`clahe`, `{clahe: {...}}` and `{step: clahe, ...}` mean the same."""
    if isinstance(value, BaseModel):
        return value
    settings: Any = {}
    if isinstance(value, dict) and "step" in value:
        name, settings = value["step"], {key: own for key, own in value.items() if key != "step"}
    elif isinstance(value, dict) and len(value) == 1:
        name, settings = next(iter(value.items()))
    else:
        name = value
    if not isinstance(name, str) or name not in STEPS:
        raise ValueError(f"step {name!r} is unknown; known steps: {', '.join(STEPS)}")
    if settings is not None and not isinstance(settings, dict):
        raise ValueError(f"{name} is {settings!r}; give its settings by name: {', '.join(STEPS[name].model_fields)}")
    unknown = sorted(set(settings or {}) - set(STEPS[name].model_fields))
    if unknown:
        known = ", ".join(key for key in STEPS[name].model_fields if key != "step")
        raise ValueError(f"{name}: unknown key {unknown[0]!r}; known keys: {known or 'none'}")
    return {"step": name} | (settings or {})


Step = Annotated[
    Annotated[FlipToLeft | SegmentBreast | Clahe | Fit, Field(discriminator="step")], BeforeValidator(_by_name)
]


def preprocessed(cohort: Cohort, steps: Sequence[Any], storage: Storage = "uint8") -> Cohort:
    """The cohort with every image processed when it is opened; geometry now. Without steps it is the same object."""
    return (
        replace(cohort, exams=[_processed(exam, tuple(steps), storage) for exam in cohort.exams]) if steps else cohort
    )


def _processed(exam: Exam, steps: tuple[Any, ...], storage: Storage) -> Exam:
    frame = Frame(exam.shape, _wall_is_left(exam, steps))
    whole, geometry = frame, Geometry(exam.shape)
    for step in steps:
        own, frame = step.geometry(frame)
        geometry = geometry.then(own)
    scale = abs(geometry.rows[0] * geometry.columns[0]) ** 0.5
    return replace(
        exam,
        shape=frame.shape,
        open=partial(PreprocessedImage, exam, steps, whole, geometry, storage),
        spacing_mm=exam.spacing_mm / scale if exam.spacing_mm else exam.spacing_mm,
        lesions=tuple(_moved(lesion, geometry) for lesion in exam.lesions),
        healthy_sites=None
        if exam.healthy_sites is None
        else tuple(_moved(site, geometry) for site in exam.healthy_sites),
    )


def _moved(lesion: Lesion, geometry: Geometry) -> Lesion:
    contour = None if lesion.contour is None else geometry.points(lesion.contour)
    return replace(lesion, box=geometry.box(lesion.box), contour=contour)


def _wall_is_left(exam: Exam, steps: Sequence[Any]) -> bool:
    """Left breasts hang with the chest wall on the left. The image is asked only where the steps need it."""
    flips = [step for step in steps if isinstance(step, FlipToLeft)]
    if not flips and not any(isinstance(step, Fit) for step in steps):
        return True
    if exam.laterality in ("L", "R") and not any(flip.by == "image" for flip in flips):
        return exam.laterality == "L"
    mask = exam.open().tissue(WALL_STEP)
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return True
    middle = (columns[0] + columns[-1] + 1) // 2
    return bool(mask[:, :middle].sum() >= mask[:, middle:].sum())


class PreprocessedImage:
    """One exam's image after all steps; all of it, since contrast and scale are not local."""

    def __init__(
        self, exam: Exam, steps: tuple[Any, ...], frame: Frame, geometry: Geometry, storage: Storage = "uint8"
    ) -> None:
        image = exam.open()
        self.pixels = np.ascontiguousarray(stored_window(image, Box(0, 0, *exam.shape), storage))
        self.mask, self.geometry = image.tissue(MASK_STEP), geometry
        so_far = Geometry(exam.shape)
        for step in steps:
            own, after = step.geometry(frame)
            self.pixels = step.pixels(self.pixels, so_far.sampled(self.mask, MASK_STEP, MASK_STEP), frame)
            so_far, frame = so_far.then(own), after

    def window(self, box: Box) -> np.ndarray:
        """(height, width, channels), as the task stores it."""
        return self.pixels[box.top : box.bottom, box.left : box.right]

    deep_window = window

    def tissue(self, step: int) -> np.ndarray:
        """bool: the body at every `step`-th pixel; padding is False."""
        return self.geometry.sampled(self.mask, MASK_STEP, step)
