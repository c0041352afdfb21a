"""What every generative model offers, and the phases that the training loop runs through.

The alternation of discriminator and generator steps is data, as in StyleGAN's training loop: a model lists its
phases, the loop in `fit_generative` runs them. A strategy changes training by changing phases: a proximal term
wraps `loss`, differential privacy replaces `gradients`, and a method that keeps discriminators and generator in
different places runs some phases here and others there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from basics.image_shape import ImageShape, Storage
from models.patch_arrays import to_stored

Precision = Literal["fp32", "bf16"]
Logs = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """What a phase works on.

    Attributes:
        size: number of images.
        images: float32 (size, channels, height, width) in [-1, 1]; None where a phase runs without real images.
        labels: int64 (size,), class-balanced, or None for an unconditional model.
        fake: generated images that were made elsewhere, like `images`; None where the phase makes its own.
    """

    size: int
    images: Tensor | None = None
    labels: Tensor | None = None
    fake: Tensor | None = None

    def real(self) -> Tensor:
        """The images, for a phase that needs them."""
        if self.images is None:
            raise ValueError("this phase needs real images and its batch has none")
        return self.images


Loss = Callable[[Batch, torch.Generator], tuple[Tensor, Logs]]


def backpropagate(phase: Phase, network: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
    """Fill `.grad` of the network's parameters with the gradient of the phase's loss; returns loss and logs."""
    loss, logs = phase.loss(batch, rng)
    # Inputs are named because a gradient penalty's interpolated images are a leaf too, whose gradient nobody needs.
    loss.backward(inputs=list(network.parameters()))
    return loss.detach(), logs


@dataclass(frozen=True)
class Phase:
    """One kind of optimizer step.

    Attributes:
        name: for logs and random streams; unique within a model.
        network: whose parameters are stepped; the other networks are frozen meanwhile.
        loss: (batch, random stream) -> (scalar loss, scalars worth logging).
        repeats: optimizer steps of this phase in one training step, e.g. 5 for a WGAN critic.
        interval: runs in every `interval`-th training step only, for lazy regularisers.
        fresh_images: draws a new batch of real images for each repeat; otherwise the phase takes size and labels of
            the previous phase's batch.
        gradients: how `.grad` is filled; see `backpropagate`.
    """

    name: str
    network: str
    loss: Loss
    repeats: int = 1
    interval: int = 1
    fresh_images: bool = True
    gradients: Callable[[Phase, nn.Module, Batch, torch.Generator], tuple[Tensor, Logs]] = backpropagate


class GenerativeTraining(BaseModel):
    """How a generative model is trained; field names are YAML keys. Each model has its own defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=2000, ge=1, description="passes through all phases; the length of the schedule")
    batch_size: int = Field(default=16, ge=2)
    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled (AdamW); 0 is Adam")
    warmup_steps: int = Field(default=0, ge=0, description="steps over which the rate rises linearly from 0")
    decay: Literal["none", "linear_second_half"] = Field(
        default="none", description="linear_second_half: falls to 0 from steps / 2 on"
    )
    clip_norm: float | None = Field(default=None, gt=0, description="largest norm of a network's gradient")
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="decay of the averaged generator that is sampled and shared"
    )
    flips: Literal["none", "horizontal", "both"] = "both"
    quarter_turns: bool = False
    snapshot_from: int = Field(default=0, ge=0, description="first step kept for the checkpoint ensemble")
    snapshot_every: int | None = Field(
        default=None, ge=1, description="steps between ensemble members; without it only the last step is kept"
    )
    channels_last: bool = True

    @property
    def snapshot_steps(self) -> list[int]:
        """Steps after which the weights are a member of the checkpoint ensemble; none without one."""
        every = self.snapshot_every
        if every is None or self.snapshot_from > self.steps:
            return []
        first = max(every, -(-self.snapshot_from // every) * every)
        return sorted({*range(first, self.steps + 1, every), self.steps})

    def keeps_snapshot(self, step: int) -> bool:
        """Whether a step is among `snapshot_steps`."""
        every = self.snapshot_every
        return every is not None and step >= self.snapshot_from and (step == self.steps or step % every == 0)


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
    """

    sample_batch = 128  # fixed: how noise is divided into batches decides which noise an image gets

    def __init__(self, networks: Mapping[str, nn.Module], shape: ImageShape, num_classes: int | None):
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.average: nn.Module | None = None
        self.shape, self.num_classes = shape, num_classes
        self._members: list[dict[str, Tensor]] = []

    @abstractmethod
    def phases(self) -> list[Phase]:
        """The phases of one training step, in order."""

    @abstractmethod
    def draw(self, generator: nn.Module, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        """One batch of images from a generator network: (n, channels, height, width) in about [-1, 1]."""

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
            fit: the `GenerativeFit` of this model's training; its snapshots are the ensemble.
        """
        snapshots = fit.snapshots if fit is not None else {}
        sets = {f"step{step}": state for step, state in snapshots.items()} or {"final": self.sharable_state()}
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
