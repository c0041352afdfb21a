"""Batches of real images for generative training, each of which can be made without those before it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from basics.seeds import numpy_stream
from models.errors import ModelError
from models.generative import Batch, GenerativeModel, GenerativeTraining
from models.patch_arrays import PatchArrays, to_float
from models.random_streams import torch_stream


def batch_labels(number: int, size: int, classes: int) -> np.ndarray:
    """Labels (size,) of batch `number`: the classes take turns through all batches, whatever the data."""
    return np.arange(number * size, (number + 1) * size) % classes


class BatchStream:
    """Batch number k of a training set, for any k, without a state.

    Each pass through a class has its own permutation, and the classes take turns: every image is seen equally often
    within its class, and every batch is balanced to within one image. An unconditional model has one class.

    Raises:
        ModelError: "batch_too_large", "class_missing", "wrong_images".
    """

    def __init__(self, model: GenerativeModel, images: PatchArrays, training: GenerativeTraining, seed: int):
        expected = (model.channels, model.image_size, model.image_size)
        if images.pixels.shape[1:] != expected:
            raise ModelError(
                "wrong_images", f"images have shape {images.pixels.shape[1:]} but the model was built for {expected}"
            )
        if len(images) < training.batch_size:
            raise ModelError(
                "batch_too_large",
                f"there are {len(images)} training images but batch_size is {training.batch_size}; "
                "lower batch_size or give the centre more patients",
                have=len(images),
                batch_size=training.batch_size,
            )
        self._images, self._training, self._seed = images, training, seed
        self._conditional = model.num_classes is not None
        if model.num_classes is None:
            self._members = [np.arange(len(images))]
        else:
            if images.labels is None:
                raise ModelError("class_missing", "the model is conditional but the images have no labels")
            self._members = [np.flatnonzero(images.labels == label) for label in range(model.num_classes)]
        for label, members in enumerate(self._members):
            if len(members) == 0:
                raise ModelError(
                    "class_missing",
                    f"no training image of class {label}; a conditional model needs images of every class",
                    label=label,
                )
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}

    def batch(self, number: int) -> Batch:
        """Images float32 in [-1, 1], flipped at random, on the CPU."""
        size, classes = self._training.batch_size, len(self._members)
        slots = np.arange(number * size, (number + 1) * size)
        labels = batch_labels(number, size, classes)
        positions = np.empty(size, dtype=np.int64)
        for label in range(classes):
            positions[labels == label] = self._take(label, slots[labels == label] // classes)
        images = self._images.take(positions)
        rng = torch_stream(self._seed, "flips", number)
        images = flip(images, self._training.flips, self._training.quarter_turns, rng)
        return Batch(size, to_float(images), torch.from_numpy(labels) if self._conditional else None)

    def _take(self, label: int, indices: np.ndarray) -> np.ndarray:
        """Positions of the images at `indices` of the endless sequence of a class."""
        members = self._members[label]
        passes, places = np.divmod(indices, len(members))
        taken = np.empty(len(indices), dtype=np.int64)
        for number in np.unique(passes):
            if self._permutations.get(label, (-1,))[0] != number:
                order = numpy_stream(self._seed, "order", label, int(number)).permutation(len(members))
                self._permutations[label] = (int(number), order)
            now = passes == number
            taken[now] = members[self._permutations[label][1][places[now]]]
        return taken


def flip(images: Tensor, flips: str, quarter_turns: bool, rng: torch.Generator) -> Tensor:
    """Each image of (n, c, h, w) mirrored with probability 1/2 per axis, and turned by 0, 90, 180 or 270 degrees."""
    n = len(images)
    for axis in {"none": (), "horizontal": (3,), "both": (3, 2)}[flips]:
        mirrored = torch.rand(n, generator=rng) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(axis), images)
    if quarter_turns:
        turns = torch.randint(4, (n,), generator=rng)
        images = torch.stack([torch.rot90(image, int(k), (1, 2)) for image, k in zip(images, turns, strict=True)])
    return images
