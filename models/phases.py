"""What a training step consists of: phases, the batch that each works on, and the settings of its optimizer.

The alternation of discriminator and generator steps is data, as in StyleGAN's training loop: a model lists its
phases, the loop in `fit_generative` runs them. A strategy changes training by changing phases: a proximal term
wraps `loss`, differential privacy replaces `gradients`, and a method that keeps discriminators and generator in
different places runs some phases here and others there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.random_streams import torch_stream

Logs = dict[str, Tensor]
Betas = tuple[float, float]


@dataclass(frozen=True)
class Batch:
    """What a phase works on.

    Attributes:
        size: number of images; 0 only where `sampling` is poisson.
        images: float32 (size, channels, height, width) in [-1, 1]; None where a phase runs without real images.
        labels: int64 (size,), class-balanced unless `sampling` is poisson, or None for an unconditional model.
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


@dataclass(frozen=True)
class Moment:
    """Where a training step stands in its schedule, as a function of the step alone.

    Attributes:
        step, steps: steps done, and of the whole schedule.
        stage: of a growing schedule, from 0; 0 where nothing grows.
        stage_step, stage_steps: the same within the stage.
        size: (height, width) of this stage's images; None where nothing grows.
        size_before: of the stage before; None in the first.
    """

    step: int
    steps: int
    stage: int = 0
    stage_step: int = 0
    stage_steps: int = 1
    size: tuple[int, int] | None = None
    size_before: tuple[int, int] | None = None


@dataclass(frozen=True)
class StepDone:
    """What a training step leaves behind.

    Attributes:
        step: steps done, this one included.
        images: real images seen until now.
        logs: the scalars of each run of each phase in this step, on the device where they were computed.
    """

    step: int
    images: int
    logs: Mapping[str, Sequence[Tensor]]


AfterStep = Callable[[StepDone], None]


@dataclass(frozen=True)
class PhaseOptimizer:
    """Settings of AdamW for a phase, where they differ from the training's.

    Attributes:
        name: phases that step the same network with the same name share one optimizer, moments and all.
        learning_rate: instead of the training's; warm-up and decay apply to it, too.
        factor: of the learning rate.
        betas: instead of the training's. Like `factor`, a number or a function of the moment.
        weight_decay, clip_norm: instead of the training's; clip_norm inf: none.
        lazy_interval: k of a lazy regulariser among the phases that share this optimizer. It makes k + 1 steps of what
            would be k, so the rate is multiplied by c = k / (k + 1) and betas are raised to c (Karras et al. 2020,
            appendix B).
        rates: further factors of the learning rate, by beginning of a parameter's name, e.g. {"mapping.": 0.01}.
    """

    name: str = ""
    learning_rate: float | None = None
    factor: float | Callable[[Moment], float] = 1.0
    betas: Betas | Callable[[Moment], Betas] | None = None
    weight_decay: float | None = None
    clip_norm: float | None = None
    lazy_interval: int | None = None
    rates: Mapping[str, float] = field(default_factory=dict)


Loss = Callable[[Batch, torch.Generator], tuple[Tensor, Logs]]


def backpropagate(phase: Phase, network: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
    """Fill `.grad` of the network's parameters with the gradient of the phase's weighted loss; returns loss and logs."""
    loss, logs = phase.weighted_loss(batch, rng)
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
        repeats: optimizer steps of this phase in one training step, e.g. 5 for a WGAN critic; or one number for each
            stage of a growing schedule, of which the last holds for all later ones.
        interval: runs in every `interval`-th training step only, for lazy regularisers.
        gain: factor of the loss; left out it is `interval`, so that a lazy regulariser keeps its strength.
        optimizer: settings of its own.
        fresh_images: draws a new batch of real images for each repeat; otherwise the phase takes the batch of the phase
            before it.
        on_empty: whether it runs on an empty batch, too, as DP-SGD does to add its noise.
        losses: like `loss`, but a vector with one loss for each image (size,), whose mean is the loss, for gradients of
            single patients; or the reason why there is none.
        gradients: how `.grad` is filled; see `backpropagate`.
    """

    name: str
    network: str
    loss: Loss
    repeats: int | tuple[int, ...] = 1
    interval: int = 1
    gain: float | None = None
    optimizer: PhaseOptimizer = PhaseOptimizer()
    fresh_images: bool = True
    on_empty: bool = False
    losses: Loss | str = "its model does not say what the loss of one image is"
    gradients: Callable[[Phase, nn.Module, Batch, torch.Generator], tuple[Tensor, Logs]] = backpropagate

    def weighted_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """The loss times its gain; logs are unweighted."""
        loss, logs = self.loss(batch, rng)
        gain = self.interval if self.gain is None else self.gain
        return (loss if gain == 1 else loss * gain), logs

    def losses_of_images(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """The loss of each image, (size,), without the gain.

        Raises:
            ValueError: there is none, with the reason.
        """
        if isinstance(self.losses, str):
            raise ValueError(f"phase {self.name!r} has no loss of each image: {self.losses}")
        return self.losses(batch, rng)

    def repeats_in(self, stage: int) -> int:
        """Optimizer steps of this phase in one training step of a stage."""
        return self.repeats if isinstance(self.repeats, int) else self.repeats[min(stage, len(self.repeats) - 1)]


class Run(NamedTuple):
    """One run of a phase in a training step.

    Attributes:
        batch: which of the step's batches of real images it takes, from 0; None: it has none.
    """

    phase: Phase
    repeat: int
    batch: int | None


def runs_of(phases: Sequence[Phase], step: int, stage: int = 0) -> list[Run]:
    """What a training step does, in order. A lazy phase that waits keeps its place among the step's batches."""
    found, last, fresh = [], None, 0
    for phase in phases:
        for repeat in range(phase.repeats_in(stage)):
            if phase.fresh_images:
                last, fresh = fresh, fresh + 1
            if step % phase.interval == 0:
                found.append(Run(phase, repeat, last))
    return found


def fresh_batches(phases: Sequence[Phase], stage: int = 0) -> int:
    """Batches of real images that one training step has places for."""
    return sum(phase.repeats_in(stage) for phase in phases if phase.fresh_images)


def fastest_rate(phases: Sequence[Phase], learning_rate: float) -> float:
    """Learning rate of the network that moves most in a training step, summed over its optimizer steps, in any stage.

    Args:
        learning_rate: of phases that have none of their own. Factors that follow the moment count as 1.
    """
    rates: dict[str, float] = {}
    for phase in phases:
        own = phase.optimizer
        rate = learning_rate if own.learning_rate is None else own.learning_rate
        factor = 1.0 if callable(own.factor) else own.factor
        repeats = phase.repeats if isinstance(phase.repeats, int) else max(phase.repeats)
        most = max(1.0, *own.rates.values()) if own.rates else 1.0
        rates[phase.network] = rates.get(phase.network, 0.0) + rate * factor * most * repeats / phase.interval
    return max(rates.values())


def phase_stream(seed: int, phase: Phase, step: int, repeat: int) -> torch.Generator:
    """The random stream of one run of a phase: noise of the generator, smoothing of targets, ..."""
    return torch_stream(seed, "phase", phase.name, step, repeat)
