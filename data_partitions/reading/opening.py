"""Where files are opened: within bounds, and whatever goes wrong becomes a `BadFile` with the reason and a remedy.

Decoders raise what the bytes make them raise (struct.error, KeyError, zlib.error, RecursionError, MemoryError, ...), so no
list of exceptions is complete.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from basics.words import one_line
from data_partitions.errors import BadFile
from data_partitions.reading.limits import Limits

COPY_AGAIN = "copy the file again or drop its row"
LENGTH = 200  # characters of a decoder's own words


@contextmanager
def guarded(code: str = "bad_image", what: str = "does not decode", remedy: str = COPY_AGAIN) -> Iterator[None]:
    """What is raised inside becomes a `BadFile`, with a decoder's own words on one line."""
    try:
        yield
    except BadFile:
        raise
    except Exception as error:
        raise BadFile(code, f"{what} ({brief(error)}); {remedy}") from error


def brief(error: BaseException) -> str:
    """What an error says, on one line of printable characters."""
    return one_line(error, LENGTH) or type(error).__name__


def regular_size(path: Path) -> int:
    """Bytes of a file. Raises BadFile where it is missing or none: to read from a named pipe would wait for ever."""
    with guarded("bad_image", "cannot be read"):
        state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise BadFile("bad_image", f"is a folder, a pipe or a device and no file; {COPY_AGAIN}")
    return state.st_size


def check_bytes(path: Path, limits: Limits) -> None:
    """Raises BadFile where the file is missing, no file, or larger than the bound."""
    size = regular_size(path)
    if size > limits.megabytes * 1e6:
        raise BadFile(
            "file_too_large",
            f"has {size / 1e6:,.1f} MB, and at most {limits.megabytes:,g} are read; drop it, or raise `limits: {{megabytes: ...}}`",
        )


def check_pixels(height: int, width: int, limits: Limits) -> None:
    """Raises BadFile where an image has more pixels than the bound."""
    if height * width > limits.megapixels * 1e6:
        raise BadFile(
            "image_too_large",
            f"has {height:,} x {width:,} pixels, and at most {limits.megapixels:,g} megapixels are read; drop its row, or raise "
            "`limits: {megapixels: ...}`",
        )


def check_frames(frames: int, limits: Limits) -> None:
    """Raises BadFile where a file has more frames or pages than the bound."""
    if frames > limits.frames:
        raise BadFile(
            "several_frames",
            f"has {frames} frames or pages, and one image is expected; export them one by one, or use the first: "
            f"`limits: {{frames: {frames}}}`",
        )


def check_finite(values: np.ndarray, remedy: str = "repair the image or drop its row") -> None:
    """Raises BadFile where some values are NaN or infinite."""
    broken = int(values.size - np.isfinite(values).sum())
    if broken:
        raise BadFile("nan_pixels", f"has {broken} pixels that are not finite; {remedy}")


def read_bytes(path: Path, limits: Limits) -> bytes:
    """All of a file. Raises BadFile."""
    check_bytes(path, limits)
    with guarded("bad_image", "cannot be read"):
        return path.read_bytes()


def check_unpacked(path: Path, limits: Limits, remedy: str) -> None:
    """Raises BadFile where a zip file (.npz, .xlsx) is none, or unpacks to more than the bound."""
    check_bytes(path, limits)
    with (
        guarded("bad_table", f"is cut off, or not an {path.suffix.lower()} file", remedy),
        zipfile.ZipFile(path) as file,
    ):
        size = sum(member.file_size for member in file.infolist())
    if size > limits.megabytes * 1e6:
        raise BadFile(
            "file_too_large",
            f"unpacks to {size / 1e6:,.1f} MB, and at most {limits.megabytes:,g} are read; raise `limits: {{megabytes: ...}}`",
        )
