"""Pictures that Pillow reads and does not write."""

import struct
import zlib
from pathlib import Path

import numpy as np

COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels: PNG's number for grey, with transparency, RGB, with transparency


def deep_png(path: Path, pixels: np.ndarray, transparent: tuple[int, ...] = ()) -> Path:
    """16 bits a channel, (height, width[, channels]). transparent: the grey level or colour that is."""
    layers = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, channels = layers.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in layers)
    head = struct.pack(">IIBBBBB", width, height, 16, COLOURS[channels], 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if transparent:
        chunks.insert(1, (b"tRNS", b"".join(level.to_bytes(2, "big") for level in transparent)))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
            for name, data in chunks
        )
    )
    return path
