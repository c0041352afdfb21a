"""Sample images as one PNG grid."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from basics.atomic_files import write_bytes

_GAP_PX = 2
_WHITE = 255
# Larger images are shown smaller, and fewer in a row.
_LARGEST_PX, _WIDEST_PX = 256, 4096


def grid(images: np.ndarray, columns: int = 16) -> np.ndarray:
    """Arrange images row by row with white gaps between them; sides above 256 px are halved until they fit.

    images: uint8 or uint16 (n, c, h, w) with n >= 1 and c of 1 (grey) or 3 (RGB).
    Returns uint8 (height, width) for grey and (height, width, 3) for colour; places beyond n are white.
    """
    images = np.asarray(images)
    if images.dtype == np.uint16:
        images = (images // 257).astype(np.uint8)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(
            f"sample images are {images.dtype} {images.shape}; they must be uint8 or uint16 (n, channels, height, width) "
            "with n of at least 1 and 1 or 3 channels"
        )
    while max(images.shape[2:]) > _LARGEST_PX:
        even = images[:, :, : images.shape[2] // 2 * 2, : images.shape[3] // 2 * 2].astype(np.uint16)
        images = (
            (even[:, :, ::2, ::2] + even[:, :, 1::2, ::2] + even[:, :, ::2, 1::2] + even[:, :, 1::2, 1::2]) // 4
        ).astype(np.uint8)
    n, channels, height, width = images.shape
    columns = min(columns, n, max(1, _WIDEST_PX // width))
    rows = -(-n // columns)
    canvas = np.full(
        (rows * (height + _GAP_PX) - _GAP_PX, columns * (width + _GAP_PX) - _GAP_PX, channels), _WHITE, np.uint8
    )
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + _GAP_PX), (i % columns) * (width + _GAP_PX)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas[:, :, 0] if channels == 1 else canvas


def grid_png(images: np.ndarray, columns: int = 16) -> bytes:
    """`grid(images, columns)` as a PNG file. The same images give the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(grid(images, columns)).save(buffer, format="PNG")
    return buffer.getvalue()


def save_grid(path: Path, images: np.ndarray, columns: int = 16) -> None:
    """Write `grid_png(images, columns)` in one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, grid_png(images, columns))
