"""A folder of masks beside a folder of images: a mask has its image's name, and each connected area in it is a lesion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from data_partitions.errors import Problem
from data_partitions.exams import Box, Lesion
from data_partitions.reading.contours import mask_boxes
from data_partitions.reading.folder_tables import LesionTable
from data_partitions.reading.image_files import BadImage, FileLook, looks, read_image


class MaskLook(NamedTuple):
    """What one look at a mask showed: its size and boxes, or what is wrong."""

    height: int
    width: int
    boxes: list[list[int]]
    code: str = ""
    text: str = ""


def read_masks(
    folder: Path, images: Mapping[str, FileLook], known: set[str], labels: Mapping[str, bool | None], cache: Path | None
) -> LesionTable:  # fmt: skip
    """Lesions of the images that have a mask, of kind "other" and with the label of their image.

    images: usable ones, by their path in the folder; a mask has the file name of its image, with any ending. known: every
    image of the metadata. An empty mask means no lesion; for a malignant image it is a fault.
    """
    result = LesionTable()
    by_stem: dict[str, list[str]] = {}
    for name in sorted(known):
        by_stem.setdefault(Path(name).stem, []).append(name)
    files = sorted(file for file in folder.glob("*") if file.is_file() and not file.name.startswith("."))
    if not files:
        result.problems.append(Problem("missing_file", f"{folder} holds no mask; correct `masks`"))
    masks: dict[str, Path] = {}
    for file in files:
        names = by_stem.get(file.stem, [])
        if len(names) != 1:
            what = "no image" if not names else f"{len(names)} images"
            result.problems.append(
                Problem("lesion_without_row", f"{folder.name}/{file.name}: {what} of this name in the metadata")
            )
            result.unread.update(names)
        elif names[0] in masks:
            result.problems.append(
                Problem("duplicate_lesion", f"{folder.name}/{file.name}: {masks[names[0]].name} has the same name")
            )
        elif names[0] in images:
            masks[names[0]] = file
    found = looks(list(masks.values()), cache, "mask_folder", _look, MaskLook)
    for (name, file), look in zip(masks.items(), found, strict=True):
        where, shape = f"{folder.name}/{file.name}", images[name].shape
        if look.code:
            problem = Problem(look.code, f"{where} {look.text}")
        elif (look.height, look.width) != shape:
            problem = Problem(
                "mask_size", f"{where}: is {(look.height, look.width)}, its image {shape}; make them equal"
            )
        elif not look.boxes and labels.get(name):
            problem = Problem("empty_mask", f"{where}: is empty, but its image is malignant; correct one of them")
        else:
            result.lesions[name] = [Lesion(Box(*box), "other", labels.get(name)) for box in look.boxes]
            if labels.get(name) is None:
                result.unlabelled.extend([("other", where)] * len(look.boxes))
            continue
        result.problems.append(problem)
        result.unread.add(name)
    return result


def _look(file: Path) -> MaskLook:
    try:
        mask = read_image(file).max(axis=2)
    except BadImage as error:
        return MaskLook(0, 0, [], error.code, str(error))
    # Masks hold 0 and 255, or 0 and 1; JPEG leaves grey specks in the first kind.
    mask = mask > (127 if mask.max() > 1 else 0)
    return MaskLook(mask.shape[0], mask.shape[1], [list(box) for box in mask_boxes(mask)])
