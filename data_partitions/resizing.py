"""Resizing of stored images, of 8 or 16 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image as PillowImage

from basics.image_shape import ImageShape


def resized(pixels: np.ndarray, shape: ImageShape) -> np.ndarray:
    """uint8 or uint16 (height, width, c) to the same in `shape`: the mean over each output pixel's area.

    Smaller than `shape`, where an area mean would only repeat pixels, it is bilinear. Colour becomes luminance (ITU-R
    601), and one channel becomes three equal ones, when `shape` asks for it.
    """
    method = PillowImage.Resampling.BOX if pixels.shape[0] >= shape.height else PillowImage.Resampling.BILINEAR
    size = (shape.width, shape.height)
    if pixels.dtype == np.uint16:
        return _resized_deep(pixels, size, method, shape.channels)
    picture = PillowImage.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture = picture.convert("L" if shape.channels == 1 else "RGB")
    out = np.asarray(picture.resize(size, method))
    return out[None] if shape.channels == 1 else np.moveaxis(out, 2, 0)


def _resized_deep(
    pixels: np.ndarray, size: tuple[int, int], method: PillowImage.Resampling, channels: int
) -> np.ndarray:
    """Channel by channel in floats, which hold 16 bits exactly: the library resizes no deeper integers."""
    parts = pixels.astype(np.float32)
    if channels == 1 and parts.shape[2] == 3:
        parts = parts @ np.array([0.299, 0.587, 0.114], np.float32)[:, None]
    maps = [
        PillowImage.fromarray(np.ascontiguousarray(parts[..., c])).resize(size, method) for c in range(parts.shape[2])
    ]
    out = np.rint(np.stack([np.asarray(one) for one in maps])).clip(0, 65535).astype(np.uint16)
    return out if len(out) == channels else np.repeat(out, channels, axis=0)
