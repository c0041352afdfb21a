"""Which class of a task an image or a lesion shows.

    label: lesion       whether there is a lesion: classes healthy and lesion
    label: malignancy   what the source says of malignancy: classes benign and malignant
    label: diagnosis    classes as the task lists them: [healthy, mass, calcification], [mel, nv, bcc], [benign, malignant]

For a diagnosis a source knows several words: its own for what it shows, whether it is malignant, the kind of a lesion, whether
there is a lesion at all. The first of them that names a class decides.

The position of a class in the list is its label. Of two classes the second is the positive one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from data_partitions.exams import Exam, Lesion

Label = Literal["lesion", "malignancy", "diagnosis"]
HEALTHY, LESION, BENIGN, MALIGNANT = "healthy", "lesion", "benign", "malignant"
# Classes of tasks that need not list them.
CLASSES_OF: dict[str, tuple[str, ...]] = {"lesion": (HEALTHY, LESION), "malignancy": (BENIGN, MALIGNANT)}
MOST_CLASSES = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _+-]{0,39}")


def check_classes(classes: Sequence[str]) -> None:
    """Refuse names that could not stand in tables, file names and the names of measures.

    Raises:
        ValueError: with what would be right.
    """
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise ValueError(f"classes are {len(classes)}; name 2 to {MOST_CLASSES}")
    for name in classes:
        if not _NAME.fullmatch(name) or name != name.strip():
            raise ValueError(
                f"class {name!r} cannot be a name in every table; use letters, digits, spaces, +, - and _, at most 40"
            )
    folded = [name.casefold() for name in classes]
    twice = next((name for name in classes if folded.count(name.casefold()) > 1), None)
    if twice is not None:
        raise ValueError(f"classes name {twice!r} twice (capitals make no difference); name each once")


def words_of_lesion(lesion: Lesion, label: Label) -> tuple[str, ...]:
    """What a task of this label may call a lesion, the most special first."""
    if label == "lesion":
        return (LESION,)
    malignancy = _malignancy(lesion.malignant)
    words = (malignancy,) if label == "malignancy" else (lesion.diagnosis, malignancy, lesion.kind, LESION)
    return tuple(word for word in words if word)


def words_of_image(exam: Exam, label: Label) -> tuple[str, ...]:
    """What it may call an image as a whole. Nothing that is known to be malignant is healthy, wherever its lesion is."""
    found = LESION if exam.lesions else HEALTHY
    if label == "lesion":
        return (found,)
    malignancy = _malignancy(exam.malignant)
    if label == "malignancy":
        return (malignancy,) if malignancy else ()
    healthy = HEALTHY if not exam.lesions and exam.malignant is not True else ""
    kinds = {lesion.kind for lesion in exam.lesions}
    kind = kinds.pop() if len(kinds) == 1 else ""
    return tuple(word for word in (exam.diagnosis, healthy, malignancy, kind, LESION if exam.lesions else "") if word)


def label_of(words: Sequence[str], classes: Sequence[str]) -> int | None:
    """Label of the first word that is a class; None where none is. Capitals make no difference."""
    by_name = {name.casefold(): label for label, name in enumerate(classes)}
    return next((by_name[word.casefold()] for word in words if word.casefold() in by_name), None)


def _malignancy(malignant: bool | None) -> str:
    return "" if malignant is None else MALIGNANT if malignant else BENIGN
