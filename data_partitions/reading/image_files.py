"""Image files to arrays.

What a file is, its content says and not its name. 8-bit images are used as they are. A DICOM file says how it is displayed
(`dicom`). Other deep integers and floats (.npy, TIFF) say nothing about their range, so their own smallest and largest value
become black and white. An image is turned as its EXIF orientation says, as every viewer does; what is transparent is black.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image as PillowImage

from data_partitions.errors import BadFile
from data_partitions.exams import Box, Image
from data_partitions.reading.body import body_mask
from data_partitions.reading.dicom import read_header
from data_partitions.reading.dicom_image import DicomImage
from data_partitions.reading.limits import DEFAULT, Limits
from data_partitions.reading.opening import check_bytes, check_frames, check_pixels, guarded

Kind = Literal["dicom", "array", "picture"]
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".pgm", ".ppm", ".gif", ".webp", ".jp2", ".npy")
DICOM = (".dcm", ".dicom", ".ima")
# Pillow's own list runs other programs for some formats.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "PPM", "GIF", "WEBP", "JPEG2000")
# The first bytes of pictures and arrays, and of DICOM without the preamble: groups 2 and 8, little endian.
SIGNATURES = (
    b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"GIF8",
    b"RIFF", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51",
)  # fmt: skip
ARRAY = b"\x93NUMPY"
GROUPS = (b"\x02\x00", b"\x08\x00")
ORIENTATION = 0x0112
_Turn = PillowImage.Transpose
TURNS = {
    2: _Turn.FLIP_LEFT_RIGHT, 3: _Turn.ROTATE_180, 4: _Turn.FLIP_TOP_BOTTOM, 5: _Turn.TRANSPOSE, 6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE, 8: _Turn.ROTATE_90,
}  # fmt: skip
PillowImage.MAX_IMAGE_PIXELS = None  # the bound is `limits`, checked before any pixel is decoded


def kind_of(path: Path) -> Kind:
    """What a file is, by its first bytes; where they are of no known format, by the ending of its name. Raises BadFile."""
    with guarded("bad_image", "cannot be read"), path.open("rb") as file:
        head = file.read(132)
    if head[128:] == b"DICM":
        return "dicom"
    if head.startswith(ARRAY):
        return "array"
    if head.startswith(SIGNATURES):
        return "picture"
    if path.suffix.lower() in DICOM or (not path.suffix and head[:2] in GROUPS and head[3:4] == b"\0"):
        return "dicom"
    return "array" if path.suffix.lower() == ".npy" else "picture"


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name's ending, or, where that says nothing, DICOM by its content."""
    return path.suffix.lower() in (*PICTURES, *DICOM) or is_dicom(path)


def is_dicom(path: Path) -> bool:
    try:
        return kind_of(path) == "dicom"
    except BadFile:
        return False


def shape_of(path: Path, limits: Limits) -> tuple[int, int]:
    """(height, width) as the image is shown, from the header of its file alone. Raises BadFile."""
    kind = kind_of(path)
    if kind == "dicom":
        return read_header(path, limits).shape
    if kind == "array":
        return _array(path, limits).shape[:2]
    with opened(path, limits) as picture:
        turned = _orientation(picture)[0] in (5, 6, 7, 8)
        return (picture.width, picture.height) if turned else (picture.height, picture.width)


def read_image(path: Path, limits: Limits = DEFAULT) -> np.ndarray:
    """uint8 (height, width, channels), channels 1 or 3. Raises BadFile."""
    if kind_of(path) == "dicom":
        return DicomImage(path, limits).whole()
    return as_shown(decoded(path, limits).pixels, np.dtype(np.uint8))


class Decoded(NamedTuple):
    """pixels: (height, width, channels) of whatever depth. facts: what was changed, by the names in `facts`."""

    pixels: np.ndarray
    facts: tuple[str, ...]


def decoded(path: Path, limits: Limits) -> Decoded:
    """An image that is not DICOM. Raises BadFile."""
    if kind_of(path) == "array":
        pixels, facts = np.array(_array(path, limits)), []
    else:
        with opened(path, limits) as picture, guarded():
            facts = ["further_pages"] if getattr(picture, "n_frames", 1) > 1 else []
            turned, how = upright(picture)
            pixels, transparent = opaque(turned)
            facts += how + transparent
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape or pixels.dtype.kind not in "buif":
        raise BadFile(
            "bad_image",
            f"is {pixels.dtype} of shape {pixels.shape}; expected numbers of shape (height, width) or (height, width, 3)",
        )
    return Decoded(pixels.astype(np.uint8) * np.uint8(255) if pixels.dtype == bool else pixels, tuple(facts))


def _array(path: Path, limits: Limits) -> np.ndarray:
    """The array of an .npy file, not yet read."""
    check_bytes(path, limits)
    with guarded():
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim >= 2:
        check_pixels(array.shape[0], array.shape[1], limits)
    return array


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[PillowImage.Image]:
    """A picture of which only the header is decoded. Raises BadFile."""
    check_bytes(path, limits)
    with guarded():
        picture = PillowImage.open(path, formats=FORMATS)
    with picture:
        check_pixels(picture.height, picture.width, limits)
        with guarded():
            frames = getattr(picture, "n_frames", 1)
        if picture.format != "MPO":  # a photograph with previews of itself
            check_frames(frames, limits)
        yield picture


def upright(picture: PillowImage.Image) -> tuple[PillowImage.Image, list[str]]:
    """The picture as viewers show it, and whether it had to be turned or does not say so that it can be understood."""
    orientation, readable = _orientation(picture)
    facts = [] if readable else ["orientation_unreadable"]
    return (picture.transpose(TURNS[orientation]), ["turned"]) if orientation in TURNS else (picture, facts)


def _orientation(picture: PillowImage.Image) -> tuple[int, bool]:
    """1 (as it is) to 8, and whether its EXIF data, if there are any, could be read."""
    try:
        tags = picture.getexif()
        orientation = tags.get(ORIENTATION, 1)
    except Exception:  # of many kinds; the pixels do not depend on it
        return 1, False
    readable = orientation in range(1, 9) and (bool(tags) or not picture.info.get("exif"))
    return (orientation, True) if readable else (1, False)


def opaque(picture: PillowImage.Image) -> tuple[np.ndarray, list[str]]:
    """Pixels in grey or RGB on black, and whether any were transparent."""
    facts = []
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        grey = picture.mode in ("LA", "La", "L", "1", "I", "I;16")
        layers = picture.convert("RGBA")
        if np.asarray(layers.getchannel("A")).min() < 255:
            facts.append("transparent")
            layers = PillowImage.alpha_composite(PillowImage.new("RGBA", layers.size, (0, 0, 0, 255)), layers)
            picture = layers.convert("L" if grey else "RGB")
    if picture.mode in ("P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
        picture = picture.convert("RGB")
    elif picture.mode in ("1", "LA", "La"):
        picture = picture.convert("L")
    return np.asarray(picture), facts


def open_image(path: Path, limits: Limits = DEFAULT, *, dark_background: bool) -> Image:
    """The image of a file. Raises BadFile.

    dark_background: whether what lies outside the body, on a dark ground, is background; else all of it is tissue.
    """
    if kind_of(path) == "dicom":
        return DicomImage(path, limits, dark_background=dark_background)
    return DecodedImage(path, limits, dark_background=dark_background)


def as_shown(pixels: np.ndarray, depth: np.dtype) -> np.ndarray:
    """Pixels of 8 bits as they are, and others over their own range. Raises BadFile."""
    return pixels if pixels.dtype == depth == np.uint8 else _stretched(pixels, depth)


def _stretched(pixels: np.ndarray, depth: np.dtype) -> np.ndarray:
    """Smallest and largest value become 0 and the largest of uint8 or uint16."""
    values = pixels.astype(np.float64)
    broken = int(np.size(values) - np.isfinite(values).sum())
    if broken:
        raise BadFile("nan_pixels", f"has {broken} pixels that are not finite; repair the image or drop its row")
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (np.iinfo(depth).max / (high - low) if high > low else 0)).astype(depth)


def is_blank(pixels: np.ndarray) -> bool:
    """Whether (height, width[, channels]) shows one grey value or colour alone."""
    return bool((pixels == pixels[0, 0]).all())


class DecodedImage:
    """A decoded file; see `open_image`."""

    def __init__(self, path: Path, limits: Limits, *, dark_background: bool) -> None:
        self.decoded = decoded(path, limits).pixels
        self.pixels = as_shown(self.decoded, np.dtype(np.uint8))
        self.dark_background = dark_background

    def window(self, box: Box) -> np.ndarray:
        return self.pixels[box.top : box.bottom, box.left : box.right]

    def deep_window(self, box: Box) -> np.ndarray:
        """The same as uint16."""
        if self.decoded.dtype == np.uint8:  # says what its levels are: 255 is white
            return self.window(box).astype(np.uint16) * np.uint16(257)
        return self._deep[box.top : box.bottom, box.left : box.right]

    @cached_property
    def _deep(self) -> np.ndarray:
        return as_shown(self.decoded, np.dtype(np.uint16))

    def tissue(self, step: int) -> np.ndarray:
        height, width = self.pixels.shape[:2]
        if not self.dark_background:
            return np.ones((-(-height // step), -(-width // step)), dtype=bool)
        picture = PillowImage.fromarray(self.pixels[..., 0] if self.pixels.shape[2] == 1 else self.pixels).convert("L")
        return body_mask(np.asarray(picture.reduce(step)))
