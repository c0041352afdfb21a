"""Stages of a classifier's training, and the class-balanced batches that they draw from several sources of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.errors import ModelError
from models.patch_arrays import PatchArrays


@dataclass(frozen=True)
class Stage:
    """A part of training with its own sources and its own optimizer.

    Attributes:
        shares: weight of each source. Within a class, images are drawn by the weights of the sources that have any of it.
    """

    name: str
    steps: int
    learning_rate: float
    shares: Mapping[str, float]


class BalancedDraws:
    """Class-balanced batches from several sources; draws are with replacement.

    A class of which no source with a share has an image takes no part.

    Raises:
        ModelError: "unknown_source", "mixed_storage", or "class_missing" where fewer than two classes have images.
    """

    def __init__(self, sources: Mapping[str, PatchArrays], stage: Stage):
        unknown = sorted(set(stage.shares) - set(sources))
        if unknown:
            raise ModelError(
                "unknown_source",
                f"stage {stage.name!r} draws from {unknown[0]!r}; the sources are {', '.join(sources)}",
            )
        self._sources = [sources[name] for name in stage.shares]
        kinds = {str(source.pixels.dtype) for source in self._sources}
        if len(kinds) > 1:
            raise ModelError(
                "mixed_storage", f"stage {stage.name!r} draws images stored as {' and '.join(sorted(kinds))}"
            )
        # By class: for each source its positions of that class, and the cumulative shares of the sources.
        self._positions: dict[int, list[np.ndarray]] = {}
        self._cumulative: dict[int, np.ndarray] = {}
        there = [np.unique(source.labels) for source in self._sources if source.labels is not None and len(source)]
        for label in np.unique(np.concatenate(there)).tolist() if there else []:
            positions = [np.flatnonzero(source.labels == label) for source in self._sources]
            shares = np.array(
                [share if len(p) else 0.0 for share, p in zip(stage.shares.values(), positions, strict=True)]
            )
            if shares.sum() > 0:
                self._positions[label] = positions
                self._cumulative[label] = np.cumsum(shares / shares.sum())
        self._labels = np.array(list(self._positions), dtype=np.int64)
        if len(self._labels) < 2:
            label = next(label for label in range(len(self._positions) + 1) if label not in self._positions)
            raise ModelError(
                "class_missing", f"stage {stage.name!r} has no image of class {label} to draw", label=label
            )

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Stored images (size, channels, height, width) and int64 labels (size,), on the CPU."""
        classes = len(self._labels)
        # An odd size gives the extra image to a class drawn at random.
        labels = self._labels[(np.arange(size) + rng.integers(classes)) % classes]
        which, place = rng.random(size), rng.random(size)
        origin, position = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
        for label in self._positions:
            for i in np.flatnonzero(labels == label):
                cumulative = self._cumulative[label]
                s = min(int(np.searchsorted(cumulative, which[i], side="right")), len(cumulative) - 1)
                own = self._positions[label][s]
                origin[i], position[i] = s, own[int(place[i] * len(own))]
        images = np.empty((size, *self._sources[0].pixels.shape[1:]), dtype=self._sources[0].pixels.dtype)
        for s, source in enumerate(self._sources):
            mine = origin == s
            if mine.any():
                images[mine] = source.pixels[source.rows[position[mine]]]
        return torch.from_numpy(images), torch.from_numpy(labels)
