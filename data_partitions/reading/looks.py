"""A look at every file of a folder: what it is, whether it decodes, whether it is a copy. Looks are remembered."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from basics.atomic_files import write_text
from data_partitions.code import code_digest
from data_partitions.errors import BadFile
from data_partitions.reading.dicom_image import DicomImage
from data_partitions.reading.image_files import as_shown, decoded, is_blank, kind_of
from data_partitions.reading.limits import DEFAULT, Limits
from data_partitions.reading.opening import guarded

Look = TypeVar("Look", bound=tuple)


class FileLook(NamedTuple):
    """What a look at an image file showed.

    digest: of the decoded pixels, or of the stored values of DICOM. code, text: what is wrong, or "". spacing_mm, scanner,
    laterality, view, intent, study, magnified: from the header (DICOM only). blank: of one grey value. facts: what was changed or is
    doubtful, by the names in `facts`.
    """

    height: int
    width: int
    digest: str
    code: str = ""
    text: str = ""
    spacing_mm: float | None = None
    scanner: str = ""
    laterality: str = ""
    view: str = ""
    intent: str = ""
    study: str = ""
    magnified: bool = False
    blank: bool = False
    facts: Sequence[str] = ()

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width


class WholeDigest(NamedTuple):
    """Digest of all of an image."""

    digest: str
    code: str = ""


def inspect(files: list[Path], cache: Path | None, limits: Limits = DEFAULT) -> list[FileLook]:
    """A look at each file. Equal digests mean equal images among these files.

    The first digest of a DICOM file covers some rows only. Where two files agree in it, both are read whole.
    """
    found = looks(files, cache, "image_files", _look, FileLook, limits)
    times = Counter(look.digest for look in found)
    alike = [
        place
        for place, look in enumerate(found)
        if not look.code and not look.blank and times[look.digest] > 1 and kind_of(files[place]) == "dicom"
    ]
    whole = (
        looks([files[place] for place in alike], cache, "whole_images", _whole, WholeDigest, limits) if alike else []
    )
    for place, full in zip(alike, whole, strict=True):
        found[place] = found[place]._replace(digest=full.digest)
    return found


def _whole(file: Path, limits: Limits) -> WholeDigest:
    return WholeDigest(DicomImage(file, limits).digest())


def looks(
    files: Sequence[Path], cache: Path | None, name: str, look: Callable[..., Look], made: Callable[..., Look],
    limits: Limits = DEFAULT, settings: str = "",
) -> list[Look]:  # fmt: skip
    """`look(file, limits=limits)` of each file; each is a named tuple of class `made` that JSON can hold.

    Decoding a whole archive takes a while, so the answer is kept under `cache` / `name` until the name, size or time of a
    file changes, or a limit, the other `settings` of the look, or this package's code.
    """
    kept = None
    if cache is not None:
        key = f"{files_digest(files)} {limits.model_dump_json()} {settings} {code_digest()}"
        kept = cache / name / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if kept is not None and kept.exists():
        return [made(*values) for values in json.loads(kept.read_text(encoding="utf-8"))]
    with ThreadPoolExecutor(max_workers=2) as pool:  # decoders release the interpreter's lock
        found = list(pool.map(partial(look, limits=limits), files))
    # A decoder may be installed later, which changes the answer and not the files.
    if kept is not None and not any(getattr(one, "code", "") == "missing_decoder" for one in found):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(found))
    return found


def _look(file: Path, limits: Limits) -> FileLook:
    try:
        if kind_of(file) == "dicom":
            with guarded():
                return _dicom_look(DicomImage(file, limits))
        found = decoded(file, limits)
        with guarded():
            pixels = as_shown(found.pixels, np.dtype(np.uint8))
    except BadFile as error:
        return FileLook(0, 0, "", error.code, str(error))
    digest = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).hexdigest()
    return FileLook(pixels.shape[0], pixels.shape[1], digest, blank=is_blank(pixels), facts=found.facts)


def _dicom_look(image: DicomImage) -> FileLook:
    header, (height, width) = image.header, image.shape
    return FileLook(
        height, width, image.sample_digest(), "", "", header.spacing_mm, header.scanner, header.laterality.upper(), header.view.upper(),
        header.intent, header.study, header.magnified, image.is_blank(), image.facts(),
    )  # fmt: skip


def files_digest(files: Sequence[Path]) -> str:
    """SHA-256 over path, size and time of last change of these files in this order, 24 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(os.fsencode(file) + f"\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]
