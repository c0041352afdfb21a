"""Images as the training loops take them: plain arrays, converted to floats one batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

NUM_CLASSES = 2


@dataclass(frozen=True)
class PatchArrays:
    """A selection of stored images.

    Attributes:
        pixels: uint8 (n, channels, height, width); may be memory-mapped, only drawn rows are read.
        rows: int64 (k,), the rows of `pixels` that belong to the selection; a row may appear several times.
        labels: int64 (k,), one class per selected row, or None.
    """

    pixels: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            raise ValueError(
                f"pixels are {self.pixels.dtype} {self.pixels.shape}; they must be uint8 (n, channels, height, width)"
            )
        if self.labels is not None and len(self.labels) != len(self.rows):
            raise ValueError(f"{len(self.labels)} labels for {len(self.rows)} rows; each row has one label")

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: np.ndarray) -> torch.Tensor:
        """Images at `positions` of the selection: uint8 (k, channels, height, width)."""
        return torch.from_numpy(np.ascontiguousarray(self.pixels[self.rows[positions]]))


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 to float32 in [-1, 1]: x / 127.5 - 1, the one conversion for real and synthetic images alike."""
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """float (n, channels, height, width) in [-1, 1] to the nearest uint8; values outside are clipped, never wrapped."""
    return images.add(1.0).mul(127.5).round_().clamp_(0, 255).to(torch.uint8).cpu().contiguous().numpy()
