"""Image files to arrays.

What a file is, its content says and not its name. 8-bit images are used as they are. A DICOM file says how it is displayed
(`dicom`). Other deep integers and floats (.npy, TIFF) say nothing about their range, so their own smallest and largest value
become black and white. An image is turned as its EXIF orientation says, as every viewer does; what is transparent is black.

Longer than most files, because every format but DICOM is read here, by the same steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import Image as PillowImage

from data_partitions.errors import BadFile
from data_partitions.exams import Box, Image
from data_partitions.reading.body import body_mask
from data_partitions.reading.dicom import read_header
from data_partitions.reading.dicom_image import DicomImage
from data_partitions.reading.limits import DEFAULT, Limits
from data_partitions.reading.opening import check_bytes, check_finite, check_frames, check_pixels, guarded, regular_size

Kind = Literal["dicom", "array", "picture"]
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".pgm", ".ppm", ".gif", ".webp", ".jp2", ".npy")
DICOM = (".dcm", ".dicom", ".ima")
# Pillow's own list runs other programs for some formats.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "PPM", "GIF", "WEBP", "JPEG2000")
# The first bytes of pictures and arrays.
SIGNATURES = (
    b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"GIF8",
    b"RIFF", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51",
)  # fmt: skip
ARRAY = b"\x93NUMPY"
# DICOM without the preamble begins with an element of one of these groups, little endian; group 2 always says its type.
META, IDENTIFYING = b"\x02\x00", b"\x08\x00"
ORIENTATION, PHOTOMETRIC = 0x0112, 0x0106
_Turn = PillowImage.Transpose
TURNS = {
    2: _Turn.FLIP_LEFT_RIGHT, 3: _Turn.ROTATE_180, 4: _Turn.FLIP_TOP_BOTTOM, 5: _Turn.TRANSPOSE, 6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE, 8: _Turn.ROTATE_90,
}  # fmt: skip
PillowImage.MAX_IMAGE_PIXELS = None  # the bound is `limits`, checked before any pixel is decoded


def kind_of(path: Path) -> Kind:
    """What a file is, by its first bytes; where they are of no known format, by the ending of its name. Raises BadFile."""
    regular_size(path)
    with guarded("bad_image", "cannot be read"), path.open("rb") as file:
        head = file.read(132)
    if head[128:] == b"DICM":
        return "dicom"
    if head.startswith(ARRAY):
        return "array"
    if head.startswith(SIGNATURES):
        return "picture"
    if path.suffix.lower() in DICOM or _begins_as_dicom(head):
        return "dicom"
    return "array" if path.suffix.lower() == ".npy" else "picture"


def _begins_as_dicom(head: bytes) -> bool:
    """Whether these are a tag with its type in two letters, or with an even length that a first element may have."""
    typed = head[4:6].isalpha() and head[4:6].isupper()
    length = int.from_bytes(head[4:8], "little")
    return head[3:4] == b"\0" and (
        (head[:2] in (META, IDENTIFYING) and typed)
        or (head[:2] == IDENTIFYING and 0 < length < 1024 and length % 2 == 0)
    )


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
        # Pillow says the size of a TIFF as it is shown.
        turned = _orientation(picture)[0] in (5, 6, 7, 8) and picture.format != "TIFF"
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
            inverted, deep = has_white_zero(picture), is_deep_colour(picture)
            turned, how = upright(picture)
            pixels, transparent = opaque(turned)
            facts += how + transparent
            if deep:
                _check_upper_bits(pixels)
                facts.append("deep_colours")
            if inverted and pixels.dtype.itemsize > 1:
                pixels = -pixels if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max - pixels
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape or pixels.dtype.kind not in "buif":
        raise BadFile(
            "bad_image",
            f"is {pixels.dtype} of shape {pixels.shape}; expected numbers of shape (height, width) or (height, width, 3)",
        )
    return Decoded(pixels, tuple(facts))


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
    # From an open file: of a path Pillow maps uncompressed TIFF into memory in the shape that it has when it is turned.
    with guarded("bad_image", "cannot be read"):
        file = path.open("rb")
    with file, _picture(file) as picture:
        check_pixels(picture.height, picture.width, limits)
        with guarded():
            frames = getattr(picture, "n_frames", 1)
        if picture.format != "MPO":  # a photograph with previews of itself
            check_frames(frames, limits)
        yield picture


def _picture(file: BinaryIO) -> PillowImage.Image:
    with guarded():
        return PillowImage.open(file, formats=FORMATS)


def upright(picture: PillowImage.Image) -> tuple[PillowImage.Image, list[str]]:
    """The picture as viewers show it, and whether it had to be turned or does not say so that it can be understood."""
    orientation, readable = _orientation(picture)
    if orientation not in TURNS:
        return picture, [] if readable else ["orientation_unreadable"]
    picture.load()  # which turns a TIFF, and takes its orientation away
    left, _ = _orientation(picture)
    return picture.transpose(TURNS[left]) if left in TURNS else picture, ["turned"]


def _orientation(picture: PillowImage.Image) -> tuple[int, bool]:
    """1 (as it is) to 8, and whether its EXIF data, if there are any, could be read."""
    try:
        tags = picture.getexif()
        orientation = tags.get(ORIENTATION, 1)
    except Exception:  # of many kinds; the pixels do not depend on it
        return 1, False
    readable = orientation in range(1, 9) and (bool(tags) or not picture.info.get("exif"))
    return (orientation, True) if readable else (1, False)


def has_white_zero(picture: PillowImage.Image) -> bool:
    """Whether 0 is white in a grey TIFF. Pillow turns 1 and 8 bits over, and no others."""
    return picture.format == "TIFF" and getattr(picture, "tag_v2", {}).get(PHOTOMETRIC, 0) == 0


def is_deep_colour(picture: PillowImage.Image) -> bool:
    """Whether a picture that is not yet decoded has 16 bits a channel, of which Pillow keeps the upper 8: all but plain grey."""
    return ";16" in str(getattr(picture, "tile", "")) and picture.mode in ("RGB", "RGBA", "CMYK")


def _check_upper_bits(pixels: np.ndarray) -> None:
    """Raises BadFile where the upper 8 of 16 bits leave the highest of them unused."""
    if pixels.max() < 128:
        raise BadFile(
            "bad_image",
            "has 16 bits a channel, of which it uses fewer, and only the upper 8 are read: little would be left; export it with 8 bits a "
            "channel, or in grey of 16",
        )


def opaque(picture: PillowImage.Image) -> tuple[np.ndarray, list[str]]:
    """Pixels in grey or RGB on black, bool of one bit, and whether any were transparent."""
    one_bit, facts = picture.mode == "1", []
    if picture.mode.startswith("I") and "transparency" in picture.info:
        return _without_level(np.array(picture), picture.info["transparency"])
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        grey = picture.mode in ("LA", "La", "L", "1")
        layers = picture.convert("RGBA")
        if alpha(layers).min() < 255:
            facts.append("transparent")
            layers = PillowImage.alpha_composite(PillowImage.new("RGBA", layers.size, (0, 0, 0, 255)), layers)
            picture = layers.convert("L" if grey else "RGB")
    if picture.mode in ("P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
        picture = picture.convert("RGB")
    elif picture.mode in ("LA", "La"):
        picture = picture.convert("L")
    pixels = np.asarray(picture)
    return pixels > 0 if one_bit else pixels, facts


def _without_level(pixels: np.ndarray, level: object) -> tuple[np.ndarray, list[str]]:
    """Deep grey pixels, of which those of one level are transparent and so as dark as the darkest other one."""
    hidden = pixels == level
    if not hidden.any():
        return pixels, []
    pixels[hidden] = pixels[~hidden].min(initial=np.iinfo(pixels.dtype).max)
    return pixels, ["transparent"]


def alpha(picture: PillowImage.Image) -> np.ndarray:
    """uint8 (height, width): 0 is transparent."""
    return np.asarray(picture.convert("RGBA").getchannel("A"))


def open_image(path: Path, limits: Limits = DEFAULT, *, dark_background: bool) -> Image:
    """The image of a file. Raises BadFile.

    dark_background: whether what lies outside the body, on a dark ground, is background; else all of it is tissue.
    """
    if kind_of(path) == "dicom":
        return DicomImage(path, limits, dark_background=dark_background)
    return DecodedImage(path, limits, dark_background=dark_background)


def as_shown(pixels: np.ndarray, depth: np.dtype) -> np.ndarray:
    """Pixels of 1 and 8 bits as they are, and others over their own range. Raises BadFile."""
    if pixels.dtype == bool:
        return pixels * depth.type(np.iinfo(depth).max)
    return pixels if pixels.dtype == depth == np.uint8 else _stretched(pixels, depth)


def _stretched(pixels: np.ndarray, depth: np.dtype) -> np.ndarray:
    """Smallest and largest value become 0 and the largest of uint8 or uint16."""
    values = pixels.astype(np.float64)
    check_finite(values)
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
