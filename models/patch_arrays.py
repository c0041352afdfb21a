"""Images as the training loops take them: plain arrays, converted to floats one batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from basics.image_shape import Storage

# Of each way to store an image, the value of white; black is 0.
WHITE = {"uint8": 255, "uint16": 65535}


@dataclass(frozen=True)
class PatchArrays:
    """A selection of stored images.

    Attributes:
        pixels: uint8 or uint16 (n, channels, height, width); may be memory-mapped, only drawn rows are read.
        rows: int64 (k,), the rows of `pixels` that belong to the selection; a row may appear several times.
        labels: int64 (k,), one class per selected row, or None.
    """

    pixels: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if str(self.pixels.dtype) not in WHITE or self.pixels.ndim != 4:
            raise ValueError(
                f"pixels are {self.pixels.dtype} {self.pixels.shape}; they must be uint8 or uint16 (n, channels, height, width)"
            )
        if self.labels is not None and len(self.labels) != len(self.rows):
            raise ValueError(f"{len(self.labels)} labels for {len(self.rows)} rows; each row has one label")

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: np.ndarray) -> torch.Tensor:
        """Images at `positions` of the selection (k, channels, height, width), as they are stored."""
        return torch.from_numpy(np.ascontiguousarray(self.pixels[self.rows[positions]]))


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Stored images to float32 in [-1, 1]: x / (white / 2) - 1, the one conversion for real and synthetic images alike."""
    white = WHITE[str(images.dtype).removeprefix("torch.")]
    return images.float().div_(white / 2).sub_(1.0)


def to_stored(images: torch.Tensor, storage: Storage) -> np.ndarray:
    """float (n, channels, height, width) in [-1, 1] to the nearest stored value; values outside are clipped, never wrapped."""
    white = WHITE[storage]
    whole = images.add(1.0).mul(white / 2).round_().clamp_(0, white)
    return whole.to(getattr(torch, storage)).cpu().contiguous().numpy()
