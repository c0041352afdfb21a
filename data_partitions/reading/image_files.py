"""Image files to arrays, and a look at every file of a folder: whether it decodes, and whether it is a copy.

8-bit images are used as they are. A DICOM file says how it is displayed (`dicom`). Other deep integers and floats (.npy,
TIFF) say nothing about their range, so their own smallest and largest value become black and white.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from basics.atomic_files import write_text
from data_partitions.exams import Box, Image
from data_partitions.reading.body import body_mask
from data_partitions.reading.dicom import EXTENSIONS, BadDicom
from data_partitions.reading.dicom_image import DicomImage

Look = TypeVar("Look", bound=tuple)
ARRAYS = (".npy",)


class BadImage(ValueError):
    """An image file that cannot be used: `code` is bad_image, nan_pixels, bad_photometric or missing_decoder."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def read_image(path: Path) -> np.ndarray:
    """uint8 (height, width, channels), channels 1 or 3. Raises BadImage."""
    if path.suffix.lower() in EXTENSIONS:
        return _dicom(path).whole()
    pixels = _decoded(path)
    return pixels if pixels.dtype == np.uint8 else _stretched(pixels, np.dtype(np.uint8))


def _decoded(path: Path) -> np.ndarray:
    """(height, width, channels) of whatever depth. Raises BadImage."""
    try:
        if path.suffix.lower() in ARRAYS:
            pixels = np.load(path, allow_pickle=False)
        else:
            with PillowImage.open(path) as picture:
                if picture.mode in ("P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"):
                    pixels = np.asarray(picture.convert("RGB"))
                elif picture.mode in ("1", "LA"):
                    pixels = np.asarray(picture.convert("L"))
                else:
                    pixels = np.asarray(picture)
    except (OSError, UnidentifiedImageError, ValueError, EOFError, SyntaxError) as error:
        raise BadImage("bad_image", f"does not decode ({error}); copy the file again or drop its row") from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise BadImage("bad_image", f"has shape {pixels.shape}; expected (height, width) or (height, width, 3)")
    return pixels


def open_image(path: Path, *, dark_background: bool) -> Image:
    """The image of a file. Raises BadImage.

    dark_background: whether what lies outside the body, on a dark ground, is background; else all of it is tissue.
    """
    if path.suffix.lower() in EXTENSIONS:
        return _dicom(path, dark_background=dark_background)
    return DecodedImage(path, dark_background=dark_background)


def _dicom(path: Path, *, dark_background: bool = True) -> DicomImage:
    try:
        return DicomImage(path, dark_background=dark_background)
    except BadDicom as error:
        raise BadImage(error.code, str(error)) from error


def _stretched(pixels: np.ndarray, depth: np.dtype) -> np.ndarray:
    """Smallest and largest value become 0 and the largest of uint8 or uint16."""
    values = pixels.astype(np.float64)
    broken = int(np.size(values) - np.isfinite(values).sum())
    if broken:
        raise BadImage("nan_pixels", f"has {broken} pixels that are not finite; repair the image or drop its row")
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (np.iinfo(depth).max / (high - low) if high > low else 0)).astype(depth)


class FileLook(NamedTuple):
    """What a look at an image file showed.

    digest: of the decoded pixels, or of the stored values of DICOM. code, text: what is wrong, or "". spacing_mm, scanner:
    from the header (DICOM only).
    """

    height: int
    width: int
    digest: str
    code: str = ""
    text: str = ""
    spacing_mm: float | None = None
    scanner: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width


class WholeDigest(NamedTuple):
    """Digest of all of an image."""

    digest: str
    code: str = ""


def inspect(files: list[Path], cache: Path | None) -> list[FileLook]:
    """A look at each file. Equal digests mean equal images among these files.

    The first digest of a DICOM file covers some rows only. Where two files agree in it, both are read whole.
    """
    found = looks(files, cache, "image_files", _look, FileLook)
    times = Counter(look.digest for look in found)
    alike = [
        place
        for place, look in enumerate(found)
        if not look.code and times[look.digest] > 1 and files[place].suffix.lower() in EXTENSIONS
    ]
    whole = looks([files[place] for place in alike], cache, "whole_images", _whole, WholeDigest) if alike else []
    for place, full in zip(alike, whole, strict=True):
        found[place] = found[place]._replace(digest=full.digest)
    return found


def _whole(file: Path) -> WholeDigest:
    return WholeDigest(_dicom(file).digest())


def looks(
    files: Sequence[Path], cache: Path | None, name: str, look: Callable[[Path], Look], made: Callable[..., Look]
) -> list[Look]:
    """`look(file)` of each file; each is a named tuple of class `made` that JSON can hold.

    Decoding a whole archive takes a while, so the answer is kept under `cache` / `name` until the name, size or time of a
    file changes.
    """
    kept = None if cache is None else cache / name / f"{files_digest(files)}.json"
    if kept is not None and kept.exists():
        return [made(*values) for values in json.loads(kept.read_text(encoding="utf-8"))]
    with ThreadPoolExecutor(max_workers=2) as pool:  # decoders release the interpreter's lock
        found = list(pool.map(look, files))
    # A decoder may be installed later, which changes the answer and not the files.
    if kept is not None and not any(getattr(one, "code", "") == "missing_decoder" for one in found):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(found))
    return found


def _look(file: Path) -> FileLook:
    try:
        if file.suffix.lower() in EXTENSIONS:
            image = _dicom(file)
            header = image.header
            height, width = image.shape
            return FileLook(height, width, image.sample_digest(), "", "", header.spacing_mm, header.scanner)
        pixels = read_image(file)
    except BadImage as error:
        return FileLook(0, 0, "", error.code, str(error))
    digest = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).hexdigest()
    return FileLook(pixels.shape[0], pixels.shape[1], digest)


def files_digest(files: Sequence[Path]) -> str:
    """SHA-256 over path, size and time of last change of these files in this order, 24 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


class DecodedImage:
    """A decoded file; see `open_image`."""

    def __init__(self, path: Path, *, dark_background: bool) -> None:
        self.decoded = _decoded(path)
        self.pixels = self._of_depth(np.dtype(np.uint8))
        self.dark_background = dark_background

    def _of_depth(self, depth: np.dtype) -> np.ndarray:
        return self.decoded if self.decoded.dtype == depth == np.uint8 else _stretched(self.decoded, depth)

    def window(self, box: Box) -> np.ndarray:
        return self.pixels[box.top : box.bottom, box.left : box.right]

    def deep_window(self, box: Box) -> np.ndarray:
        """The same as uint16."""
        if self.decoded.dtype == np.uint8:  # says what its levels are: 255 is white
            return self.window(box).astype(np.uint16) * np.uint16(257)
        return self._deep[box.top : box.bottom, box.left : box.right]

    @cached_property
    def _deep(self) -> np.ndarray:
        return self._of_depth(np.dtype(np.uint16))

    def tissue(self, step: int) -> np.ndarray:
        height, width = self.pixels.shape[:2]
        if not self.dark_background:
            return np.ones((-(-height // step), -(-width // step)), dtype=bool)
        picture = PillowImage.fromarray(self.pixels[..., 0] if self.pixels.shape[2] == 1 else self.pixels).convert("L")
        return body_mask(np.asarray(picture.reduce(step)))
