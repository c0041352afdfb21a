"""Batches of real images for generative training, each of which can be made without those before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from basics.seeds import numpy_stream
from models.errors import ModelError
from models.generative import GenerativeModel
from models.generative_training import GenerativeTraining
from models.patch_arrays import PatchArrays, to_float
from models.phases import Batch
from models.random_streams import torch_stream
from models.schedule import Schedule, ScheduledStage


def batch_labels(number: int, size: int, labels: Sequence[int]) -> np.ndarray:
    """Labels (size,) of batch `number` where all have one size: the classes take turns, whatever the data."""
    return np.asarray(labels, dtype=np.int64)[np.arange(number * size, (number + 1) * size) % len(labels)]


def labels_at_hand(images: PatchArrays, classes: int) -> tuple[int, ...]:
    """Labels that a conditional model of so many classes can be trained on with these images: those that they show.

    Raises:
        ModelError: "class_missing" where there are fewer than two, "unknown_label".
    """
    if images.labels is None:
        raise ModelError("class_missing", "the model is conditional but the images have no labels")
    found = tuple(int(label) for label in np.unique(images.labels))
    if found and not 0 <= found[0] <= found[-1] < classes:
        label = found[0] if found[0] < 0 else found[-1]
        raise ModelError(
            "unknown_label", f"there is a label {label}; the model has classes 0 to {classes - 1}", label=label
        )
    if len(found) < 2:
        label = next(label for label in range(classes) if label not in found)
        raise ModelError(
            "class_missing",
            f"no training image of class {label}; a conditional model needs images of at least two classes",
            label=label,
        )
    return found


class BatchStream:
    """Batch number k of a training set, for any k, without a state.

    By permutation: each pass through a class has its own permutation, and the classes take turns: every image has a place
    equally often within its class, and every batch is balanced to within one image. So every image is seen equally often,
    unless a lazy phase draws images of its own: the places of batches that it does not draw are skipped. A class without
    images has no turn. To an unconditional model all images are one class.

    By Poisson sampling: each image enters a batch independently with probability batch size / number of images. A batch may
    be empty, and its labels are the images' own.

    Args:
        schedule: of the training with its phases; needed where it has several stages.

    Attributes:
        labels: of the classes that take turns.

    Raises:
        ModelError: "batch_too_large", "class_missing", "unknown_label", "wrong_images".
    """

    def __init__(
        self,
        model: GenerativeModel,
        images: PatchArrays,
        training: GenerativeTraining,
        seed: int,
        schedule: Schedule | None = None,
    ):
        if images.pixels.shape[1:] != model.shape:
            raise ModelError(
                "wrong_images",
                f"images have shape {images.pixels.shape[1:]} but the model was built for {tuple(model.shape)}",
            )
        if len(images) < training.largest_batch:
            raise ModelError(
                "batch_too_large",
                f"there are {len(images)} training images but batch_size is {training.largest_batch}; "
                "lower batch_size or give the centre more patients",
                batch_size=training.largest_batch,
            )
        self._images, self._training, self._seed = images, training, seed
        self._schedule = schedule or Schedule(training, [])
        self._poisson = training.sampling == "poisson"
        self._conditional = model.num_classes is not None
        self.labels = (0,) if model.num_classes is None else labels_at_hand(images, model.num_classes)
        self._members = {
            label: np.arange(len(images)) if model.num_classes is None else np.flatnonzero(images.labels == label)
            for label in self.labels
        }
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}

    def batch(self, number: int, stage: ScheduledStage | None = None) -> Batch:
        """Images float32 in [-1, 1], flipped at random, of the stage's size, on the CPU.

        Args:
            stage: that the batch belongs to; the only one where it is left out.
        """
        stage = stage or self._schedule.stages[0]
        positions, labels = self._poisson_draw(number, stage) if self._poisson else self._balanced(number, stage)
        images = self._images.take(positions)
        rng = torch_stream(self._seed, "flips", number)
        images = flip(images, self._training.flips, self._training.quarter_turns, rng)
        own = torch.from_numpy(labels) if labels is not None and self._conditional else None
        return Batch(len(positions), reduced(to_float(images), stage.size), own)

    def _poisson_draw(self, number: int, stage: ScheduledStage) -> tuple[np.ndarray, np.ndarray | None]:
        share = stage.batch_size / len(self._images)
        entered = numpy_stream(self._seed, "poisson", number).random(len(self._images)) < share
        positions = np.flatnonzero(entered)
        labels = self._images.labels
        return positions, None if labels is None else np.asarray(labels[positions])

    def _balanced(self, number: int, stage: ScheduledStage) -> tuple[np.ndarray, np.ndarray]:
        size, classes = stage.batch_size, len(self.labels)
        first = stage.first_image_of(number)
        slots = np.arange(first, first + size)
        labels = np.asarray(self.labels, dtype=np.int64)[slots % classes]
        positions = np.empty(size, dtype=np.int64)
        for label in self.labels:
            positions[labels == label] = self._take(label, slots[labels == label] // classes)
        return positions, labels

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


def reduced(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Images (n, c, h, w) as means over equal areas, of a (height, width) that divides theirs; None: as they are."""
    if size is None or tuple(images.shape[-2:]) == size:
        return images
    return avg_pool2d(images, (images.shape[-2] // size[0], images.shape[-1] // size[1]))


def flip(images: Tensor, flips: str, quarter_turns: bool, rng: torch.Generator) -> Tensor:
    """Each image of (n, c, h, w) mirrored with probability 1/2 per axis, and turned by 0, 90, 180 or 270 degrees."""
    if images.dtype == torch.uint16:  # torch moves the bits of int16 only
        return flip(images.view(torch.int16), flips, quarter_turns, rng).view(torch.uint16)
    n = len(images)
    for axis in {"none": (), "horizontal": (3,), "both": (3, 2)}[flips]:
        mirrored = torch.rand(n, generator=rng) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(axis), images)
    if quarter_turns and n:
        turns = torch.randint(4, (n,), generator=rng)
        images = torch.stack([torch.rot90(image, int(k), (1, 2)) for image, k in zip(images, turns, strict=True)])
    return images
