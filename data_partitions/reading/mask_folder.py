"""A folder of masks beside a folder of images: a mask has its image's name, and each of its areas is a lesion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path

from data_partitions.errors import BadFile, DataError, Problem
from data_partitions.exams import Box, Lesion
from data_partitions.reading.folder_tables import KINDS, OURS, LesionTable
from data_partitions.reading.folders import files_below
from data_partitions.reading.label_words import NEGATIVE, LabelWords, UnknownWord
from data_partitions.reading.limits import Limits
from data_partitions.reading.looks import FileLook
from data_partitions.reading.masks import Found, MaskLook, MaskRule, mask_looks

NEARLY = 0.8  # of difflib's ratio, from which on a word is taken for a misspelt one


def read_masks(
    folder: Path, images: Mapping[str, FileLook], known: set[str], labels: Mapping[str, bool | None], cache: Path | None,
    rule: MaskRule, limits: Limits, lesion_of: Callable[[Found, bool | None], Lesion],
) -> LesionTable:  # fmt: skip
    """Lesions of the images that have a mask; `lesion_of(area, label of its image)` says what an area is.

    images: usable ones, by their path in the folder; a mask has the file name of its image, with any ending. known: every
    image of the metadata. An empty mask means no lesion; for a malignant image it is a fault, and so is a malignant lesion on a
    benign one. Raises DataError where the folder holds no mask: every image would pass as healthy.
    """
    result = LesionTable()
    by_stem: dict[str, list[str]] = {}
    for name in sorted(known):
        by_stem.setdefault(Path(name).stem, []).append(name)
    files = files_below(folder)
    if not files:
        raise DataError("missing_file", f"{folder} holds no mask; correct `masks`", field="masks")
    masks: dict[str, Path] = {}
    for file in files:
        names, where = by_stem.get(file.stem, []), _below(folder, file)
        if len(names) != 1:
            what = "no image" if not names else f"{len(names)} images"
            result.problems.append(Problem("lesion_without_row", f"{where}: {what} of this name in the metadata"))
            result.unread.update(names)
        elif names[0] in masks:
            result.problems.append(
                Problem(
                    "duplicate_lesion",
                    f"{where}: {_below(folder, masks[names[0]])} has the same name; keep one of them",
                )
            )
            result.unread.add(names[0])
        elif names[0] in images:
            masks[names[0]] = file
    found = mask_looks(list(masks.values()), cache, rule, limits)
    for (name, file), look in zip(masks.items(), found, strict=True):
        where, shape, label = _below(folder, file), images[name].shape, labels.get(name)
        if look.code:
            problem = Problem(look.code, f"{where} {look.text}")
        elif look.shape != shape:
            problem = Problem("mask_size", f"{where}: is {look.shape}, its image {shape}; make them equal")
        elif not look.areas and label:
            problem = Problem("empty_mask", f"{where}: is empty, but its image is malignant; correct one of them")
        else:
            try:
                lesions = result.lesions[name] = _lesions(look, label, lesion_of)
            except BadFile as error:
                problem = Problem(error.code, f"{where} {error}")
            else:
                result.facts.extend((fact, where) for fact in look.facts)
                result.unlabelled.extend((lesion.kind, where) for lesion in lesions if lesion.malignant is None)
                continue
        result.problems.append(problem)
        result.unread.add(name)
    return result


def _lesions(look: MaskLook, label: bool | None, lesion_of: Callable[[Found, bool | None], Lesion]) -> list[Lesion]:
    """Of one mask. Raises BadFile where they contradict the label of their image."""
    lesions = [lesion_of(area, label) for area in look.found]
    for lesion in lesions:
        if lesion.malignant and label is False:
            raise BadFile(
                "bad_annotation",
                f"has a lesion of the class {lesion.diagnosis!r}, but its image is benign; correct one of them",
            )
    return lesions


def _below(folder: Path, file: Path) -> str:
    return f"{folder.name}/{file.relative_to(folder).as_posix()}"


def lesion_of_word(box: Box, word: str, label: bool | None, kinds: Mapping[str, str], words: LabelWords) -> Lesion:
    """A lesion of which a mask says only the class, in one word: a kind, a label, or a diagnosis.

    label: of its image, for a word that is no label itself. Raises BadFile for a word that is nearly a kind or a label: a misspelt
    "malignat" would pass as a diagnosis.
    """
    known = {**KINDS, **kinds}
    labels = LabelWords(words.positive, words.negative or NEGATIVE)
    try:
        own = labels.read(word)
    except UnknownWord:
        own = None
        meant = (*known, *labels.positive, *labels.negative)
        near = get_close_matches(word.lower(), [other.lower() for other in meant], n=1, cutoff=NEARLY)
        if word not in known and near:
            raise BadFile(
                "bad_annotation",
                f"has the class {word!r}, which is nearly {near[0]!r}; correct `mask_classes`, or choose another word for a diagnosis",
            ) from None
    kind = known.get(word, "other")
    return Lesion(box, kind if kind in OURS else "other", label if own is None else own, diagnosis=word)
