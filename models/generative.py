"""What every generative model offers: networks, phases to train them by, state beside them, and samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from basics.image_shape import ImageShape, Storage
from models.generative_training import GenerativeTraining
from models.patch_arrays import to_stored
from models.phases import Batch, Logs, Moment, Phase, PhaseOptimizer, StepDone, backpropagate

# What a file with a model needs, from one place.
__all__ = [
    "Batch", "Federated", "GenerativeModel", "GenerativeSettings", "GenerativeTraining", "Logs", "Moment", "Phase",
    "PhaseOptimizer", "Precision", "StepDone", "backpropagate", "cpu_copy", "load_weights", "weights_of",
]  # fmt: skip

Precision = Literal["fp32", "bf16"]
# What a federation does with a tensor that a model holds beside its networks.
Federated = Literal["averaged", "local", "constant"]


class GenerativeSettings(BaseModel, ABC):
    """Hyper-parameters of a generative model, which build it; field names are YAML keys. An entry of `GENERATIVE_MODELS`.

    Attributes:
        adversarial: whether it builds a `models.adversarial.AdversarialModel`, whose discriminators and generator can be
            trained at different places.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adversarial: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def training_defaults(cls) -> GenerativeTraining:
        """How the model is trained unless a scenario says otherwise."""

    def resolved_training(self, size: tuple[int, int], training: GenerativeTraining) -> GenerativeTraining:
        """The training with what follows from the model and the size of its images, such as a growing schedule.

        Args:
            size: (height, width) of its images.

        Returns:
            the same where nothing follows, or all has been said.

        Raises:
            ValueError: the model cannot be trained so.
        """
        return training

    @abstractmethod
    def build(self, shape: ImageShape, num_classes: int | None) -> GenerativeModel:
        """The model with random weights from torch's global stream.

        Args:
            num_classes: of the labels; None: it takes none.

        Raises:
            ValueError: it cannot make images of this shape; says which it can.
        """


class GenerativeModel(nn.Module, ABC):
    """A holder of networks; the one called "generator" is what is sampled and shared.

    Attributes:
        networks: by name; every phase names one.
        average: moving average of the generator, once training has started one.
        shape: of the images made.
        num_classes: number of labels, or None for an unconditional model.
        moment: where training stands, while it runs.
    """

    sample_batch = 128  # fixed: how noise is divided into batches decides which noise an image gets

    def __init__(self, networks: Mapping[str, nn.Module], shape: ImageShape, num_classes: int | None):
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.average: nn.Module | None = None
        self.shape, self.num_classes = shape, num_classes
        self.moment: Moment | None = None
        self._members: list[dict[str, Tensor]] = []
        self._held: dict[str, Federated] = {}

    @abstractmethod
    def phases(self) -> list[Phase]:
        """The phases of one training step, in order."""

    @abstractmethod
    def draw(self, generator: nn.Module, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        """One batch of images from a generator network: (n, channels, height, width) in about [-1, 1]."""

    @property
    def trained_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the images that it can be trained on, from small to full; more than one where it can grow."""
        return (self.shape.size,)

    def hold(self, name: str, value: Tensor, federated: Federated) -> None:
        """Keep a tensor beside the networks, as `self.<name>`: an augmentation's probability, a mean path length, ...

        It is saved and restored with the model. Phases and `after_step` change it in place, or assign it anew.

        Args:
            federated: averaged: travels with the weights of every round; local: stays at the centre, from round to round;
                constant: the same in every copy, never changed.

        Raises:
            ValueError: a mean of integers was asked for.
        """
        if federated == "averaged" and not value.is_floating_point():
            raise ValueError(
                f"{name!r} is {value.dtype}, of which a federation takes no mean; hold it as a float, or local"
            )
        self.register_buffer(name, value)
        self._held[name] = federated

    @property
    def held(self) -> Mapping[str, Federated]:
        """What was declared by `hold`."""
        return self._held

    def tell(self, moment: Moment) -> None:
        """Called before every training step. What it sets in a model that grows must follow from the moment alone.

        A fade-in belongs into a buffer of the generator in `networks`, which is then shared with its weights. The loop copies
        it into the average.
        """
        self.moment = moment

    def after_step(self, done: StepDone) -> None:
        """Called after every training step. Reading a number off a log waits for the device; `hold` sums on it instead."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def start_average(self) -> None:
        """Begin a moving average at the generator's present weights, unless there is one."""
        if self.average is None:
            self.average = deepcopy(self.networks["generator"]).eval().requires_grad_(False)

    @property
    def sampler(self) -> nn.Module:
        """The network that samples: the averaged generator where there is one."""
        return self.average if self.average is not None else self.networks["generator"]

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None, rng: torch.Generator, *, precision: Precision = "fp32") -> Tensor:
        """Draw images.

        Batch norm uses its running statistics, so an image does not depend on its neighbours. A model that holds a
        checkpoint ensemble gives image i to member i modulo the number of members: every prefix is an even draw.

        Args:
            labels: int64 (n,) for a conditional model, None for an unconditional one.
            rng: a CPU generator.

        Returns:
            float32 (n, channels, height, width) in [-1, 1], on the CPU.
        """
        if (labels is None) != (self.num_classes is None):
            kind = "unconditional: pass labels=None" if self.num_classes is None else f"conditional: pass {n} labels"
            raise ValueError(f"this model is {kind}")
        images = torch.empty(n, *self.shape)
        members: list[dict[str, Tensor] | None] = [*self._members] or [None]
        for offset, member in enumerate(members):
            if member is not None:
                load_weights(self.sampler, member)
            own = torch.arange(offset, n, len(members))
            for part in own.split(self.sample_batch):
                chosen = None if labels is None else labels[part].to(self.device)
                images[part] = self._draw_in_eval(len(part), chosen, rng, precision)
        return images

    def sample_stored(
        self, n: int, labels: Tensor | None, rng: torch.Generator, *, precision: Precision = "fp32",
        storage: Storage = "uint8",
    ) -> np.ndarray:  # fmt: skip
        """The same as stored images (n, channels, height, width)."""
        return to_stored(self.sample(n, labels, rng, precision=precision), storage)

    def _draw_in_eval(self, n: int, labels: Tensor | None, rng: torch.Generator, precision: Precision) -> Tensor:
        network = self.sampler
        was_training = network.training
        network.eval()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            images = self.draw(network, n, labels, rng)
        network.train(was_training)
        return images.float().clamp_(-1, 1).cpu()

    def sharable_state(self) -> dict[str, Tensor]:
        """What may leave the centre: weights of the generator that is sampled, never of a discriminator or optimizer."""
        return weights_of(self.sampler)

    def shared_arrays(self, fit: Any = None) -> dict[str, np.ndarray]:
        """`sharable_state` as arrays, one set per member of the checkpoint ensemble.

        Args:
            fit: the `GenerativeFit` of this model's training; its members are the ensemble.
        """
        sets = (fit.members if fit is not None else {}) or {"final": self.sharable_state()}
        return {f"{member}.{name}": t.numpy() for member, state in sets.items() for name, t in state.items()}

    def load_shared_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load weights that another process shared.

        Raises:
            ValueError: names or shapes differ from this architecture's.
        """
        sets: dict[str, dict[str, Tensor]] = {}
        for key, array in arrays.items():
            member, _, name = key.partition(".")
            sets.setdefault(member, {})[name] = torch.from_numpy(np.array(array))
        if not sets:
            raise ValueError("there are no weights among the shared arrays")
        self.average = None
        for weights in sets.values():
            load_weights(self.networks["generator"], weights)
        self._members = list(sets.values()) if len(sets) > 1 else []
        # Sampling on a CPU is a quarter faster so.
        self.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers as contiguous copies on the CPU.

    Batch norm's count of batches is left out: a receiver does not need it, and it tells how long training was.
    """
    return cpu_copy({k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")})


def cpu_copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU."""
    return {k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Inverse of `weights_of`.

    Raises:
        ValueError: names or shapes differ.
    """
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    wrong = sorted(set(own) ^ set(weights)) or [k for k in own if own[k].shape != weights[k].shape]
    if wrong:
        raise ValueError(
            f"weights do not fit the architecture: {len(wrong)} names or shapes differ, first {wrong[0]!r}"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])
