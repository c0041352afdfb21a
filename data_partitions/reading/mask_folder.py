"""A folder of masks beside a folder of images: a mask has its image's name, and each of its areas is a lesion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from data_partitions.errors import Problem
from data_partitions.exams import Box, Lesion
from data_partitions.reading.folder_tables import KINDS, OURS, LesionTable
from data_partitions.reading.folders import files_in
from data_partitions.reading.label_words import NEGATIVE, LabelWords, UnknownWord
from data_partitions.reading.limits import Limits
from data_partitions.reading.looks import FileLook
from data_partitions.reading.masks import Found, MaskRule, mask_looks


def read_masks(
    folder: Path, images: Mapping[str, FileLook], known: set[str], labels: Mapping[str, bool | None], cache: Path | None,
    rule: MaskRule, limits: Limits, lesion_of: Callable[[Found, bool | None], Lesion],
) -> LesionTable:  # fmt: skip
    """Lesions of the images that have a mask; `lesion_of(area, label of its image)` says what an area is.

    images: usable ones, by their path in the folder; a mask has the file name of its image, with any ending. known: every
    image of the metadata. An empty mask means no lesion; for a malignant image it is a fault.
    """
    result = LesionTable()
    by_stem: dict[str, list[str]] = {}
    for name in sorted(known):
        by_stem.setdefault(Path(name).stem, []).append(name)
    files = files_in(folder)
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
    found = mask_looks(list(masks.values()), cache, rule, limits)
    for (name, file), look in zip(masks.items(), found, strict=True):
        where, shape = f"{folder.name}/{file.name}", images[name].shape
        if look.code:
            problem = Problem(look.code, f"{where} {look.text}")
        elif look.shape != shape:
            problem = Problem("mask_size", f"{where}: is {look.shape}, its image {shape}; make them equal")
        elif not look.areas and labels.get(name):
            problem = Problem("empty_mask", f"{where}: is empty, but its image is malignant; correct one of them")
        else:
            result.facts.extend((fact, where) for fact in look.facts)
            lesions = result.lesions[name] = [lesion_of(area, labels.get(name)) for area in look.found]
            result.unlabelled.extend((lesion.kind, where) for lesion in lesions if lesion.malignant is None)
            continue
        result.problems.append(problem)
        result.unread.add(name)
    return result


def lesion_of_word(box: Box, word: str, label: bool | None, kinds: Mapping[str, str], words: LabelWords) -> Lesion:
    """A lesion of which a mask says only the class, in one word: a kind, a label, or a diagnosis.

    label: of its image, for a word that is no label itself.
    """
    kind = {**KINDS, **kinds}.get(word, "other")
    try:
        own = LabelWords(words.positive, words.negative or NEGATIVE).read(word)
    except UnknownWord:
        own = None
    return Lesion(box, kind if kind in OURS else "other", label if own is None else own, diagnosis=word)
