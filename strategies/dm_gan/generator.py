"""The server's half of a GAN whose discriminators are elsewhere: a generator, its optimizer, and a ring of its versions.

A centre is sent images of some version; when its gradient comes back, later versions may exist. The images are made again
from that version's weights and the same noise, and the gradient is carried back through them, so nothing but weights has to
be kept while a job is under way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models import GenerativeTrainer, GeneratorSpec, Phase
from models.batch_stream import batch_labels
from models.federated_parts import averaged_state
from models.phases import Batch, Logs, fresh_batches, phase_stream, runs_of
from models.schedule import Schedule
from strategies.dm_gan.phases import adversarial_phases, build_gan

Gradients = list[Tensor]


@dataclass(frozen=True)
class Draw:
    """Which images: everything that decides the noise and the labels of a centre's batches.

    Attributes:
        seed: of the centre's streams.
        from_step: the centre's local step of the first batch.
        batches: training steps of the discriminator.
        labels: of the centre's classes.
    """

    seed: int
    from_step: int
    batches: int
    labels: tuple[int, ...]


class RemoteGenerator:
    """A generator that is trained by gradients from elsewhere.

    Args:
        steps: optimizer steps in all: the length of the learning-rate schedule, and of that in which settings of the
            generator's optimizer find their moment.
    """

    def __init__(self, spec: GeneratorSpec, seed: int, steps: int, device: str = "cpu"):
        self.model = build_gan(spec, seed)
        self._discriminating, self._generating = adversarial_phases(self.model)
        # With the model's settings of that phase. What they say of a moment is of the generator's own steps, here.
        optimizer = self._generating.optimizer
        self._stepping = Phase("generator", "generator", _no_loss, optimizer=optimizer, gradients=self._take_over)
        training = spec.training.model_copy(update={"steps": steps})
        self.trainer = GenerativeTrainer(self.model, training, seed=seed, device=device, phases=[self._stepping])
        self._schedule = Schedule(spec.training, self._discriminating)
        self._scratch = deepcopy(self.model.networks["generator"])
        self._batch_size = spec.training.batch_size
        self._ring: dict[int, dict[str, Tensor]] = {}
        self._gradients: Gradients = []
        self.version = 0
        self.keep_version()

    def images_seen(self, draw: Draw) -> int:
        """Real images that a centre's discriminator sees in a job."""
        end = draw.from_step + draw.batches
        return self._schedule.images_before(end) - self._schedule.images_before(draw.from_step)

    @property
    def generator(self) -> nn.Module:
        """The present generator."""
        return self.model.networks["generator"]

    @property
    def finite(self) -> bool:
        """Whether all weights and running statistics are numbers."""
        return all(bool(t.isfinite().all()) for t in self.generator.state_dict().values())

    # -- versions ------------------------------------------------------------------------------------------------

    def keep_version(self) -> None:
        """Put the present weights (and batch norm's statistics) into the ring."""
        kept = averaged_state(self.generator, copy=False)
        self._ring[self.version] = {name: tensor.detach().clone() for name, tensor in kept.items()}

    def weights(self, version: int) -> dict[str, np.ndarray]:
        """A version as it travels: what `models.federated_parts.load_averaged` takes."""
        return {name: tensor.cpu().contiguous().numpy() for name, tensor in self._ring[version].items()}

    def forget_versions(self, needed: set[int]) -> None:
        """Drop versions that no job under way was made from; the present one stays."""
        self._ring = {v: weights for v, weights in self._ring.items() if v in needed or v == self.version}

    def holds(self, version: int) -> bool:
        """Whether a version can still be rebuilt."""
        return version in self._ring

    @torch.no_grad()
    def _load(self, version: int) -> nn.Module:
        for name, parameter in self._scratch.named_parameters():
            parameter.copy_(self._ring[version][name])
        return self._scratch.train()

    # -- images and gradients ------------------------------------------------------------------------------------

    @torch.no_grad()
    def images(self, version: int, draw: Draw) -> dict[str, np.ndarray]:
        """Generated images for a job, in the order in which ordinary training would make them.

        Batch norm's running statistics follow when the version is the present one; a job that is made again after a
        restart leaves them alone.

        Returns:
            by phase name float32 (batches * repeats, batch size, channels, height, width).
        """
        scratch = self._load(version)
        present = version == self.version
        if present:
            _copy_buffers(self.generator, scratch)
        made: dict[str, list[np.ndarray]] = {}
        for step in range(draw.from_step, draw.from_step + draw.batches):
            for phase, repeat, labels in self._calls(step, draw.labels):
                noise = self.model.noise(self._batch_size, phase_stream(draw.seed, phase, step, repeat))
                image = scratch(noise, labels).float().cpu().contiguous().numpy()
                made.setdefault(phase.name, []).append(image)
        return {name: np.stack(images) for name, images in made.items()}

    def follow_statistics(self) -> None:
        """Take over the running statistics of the images that were made last."""
        _copy_buffers(self._scratch, self.generator)

    def gradients_of(self, version: int, draw: Draw, image_gradients: np.ndarray) -> list[Gradients]:
        """The generator's gradients, one set per batch, from gradients with respect to its images.

        Args:
            image_gradients: float32 (batches, batch size, channels, height, width).
        """
        scratch = self._load(version)
        parameters = list(scratch.parameters())
        found = []
        for number, step in enumerate(range(draw.from_step, draw.from_step + draw.batches)):
            phase, repeat, labels = self._calls(step, draw.labels)[-1]
            noise = self.model.noise(self._batch_size, phase_stream(draw.seed, phase, step, repeat))
            image = scratch(noise, labels)
            gradient = torch.from_numpy(np.array(image_gradients[number], dtype=np.float32)).to(image.device)
            found.append(list(torch.autograd.grad(image, parameters, gradient.to(memory_format=torch.channels_last))))
        return found

    def _calls(self, step: int, turns: Sequence[int]) -> list[tuple[Phase, int, Tensor | None]]:
        """(phase, repeat, labels) of every batch of images of one training step; the generator's own comes last."""
        conditional = self.model.num_classes is not None
        first = step * fresh_batches(self._discriminating)
        calls = []
        for phase, repeat, place in runs_of([*self._discriminating, self._generating], step):
            labels = None
            if place is not None and conditional:
                labels = torch.from_numpy(batch_labels(first + place, self._batch_size, turns)).to(self.model.device)
            calls.append((phase, repeat, labels))
        return calls

    # -- steps ---------------------------------------------------------------------------------------------------

    def step(self, gradients: Gradients) -> None:
        """One optimizer step, and one of the moving average."""
        self._gradients = gradients
        self.trainer.run_phase(self._stepping, Batch(self._batch_size), torch.Generator())
        self.trainer.end_step(self._batch_size)

    def _take_over(self, phase: Phase, network: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        for parameter, gradient in zip(network.parameters(), self._gradients, strict=True):
            # In the memory layout of its weight: the fused optimizer goes through both element by element as they lie.
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        return torch.zeros(()), {}

    def draw_statistics(self, seed: int, turns: Sequence[int]) -> None:
        """Bring batch norm's running statistics on by one batch; for exchanges in which no image is made here.

        Args:
            turns: labels of all centres' classes.
        """
        scratch = self._load(self.version)
        _copy_buffers(self.generator, scratch)
        conditional = self.model.num_classes is not None
        labels = torch.from_numpy(batch_labels(self.version, self._batch_size, turns)) if conditional else None
        with torch.no_grad():
            noise = self.model.noise(self._batch_size, phase_stream(seed, self._generating, self.version, 0))
            scratch(noise, None if labels is None else labels.to(noise.device))
        self.follow_statistics()
        self.keep_version()

    # -- state ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """Generator, average, optimizer, and the versions in the ring. The unused discriminator is left out."""
        state = {
            f"trainer.{name}": tensor.numpy() for name, tensor in self.trainer.state().items()
            if not name.startswith("model.networks.discriminator.")
        }  # fmt: skip
        for version, weights in self._ring.items():
            state |= {f"ring.{version}.{name}": w.cpu().contiguous().numpy() for name, w in weights.items()}
        return state

    def load_state(self, state: Mapping[str, np.ndarray], version: int) -> None:
        """Inverse of `state`."""
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
        trainer = {n.removeprefix("trainer."): t for n, t in tensors.items() if n.startswith("trainer.")}
        self.trainer.load_state(trainer, strict=False)
        self.version, self._ring = version, {}
        device = self.model.device
        for name, tensor in tensors.items():
            if name.startswith("ring."):
                _, number, parameter = name.split(".", 2)
                self._ring.setdefault(int(number), {})[parameter] = tensor.to(device)


def combine(weights: Sequence[float], gradients: Sequence[Gradients]) -> Gradients:
    """Sum of weight times gradient, in the order given."""
    if len(weights) == 1 and weights[0] == 1.0:
        return list(gradients[0])
    return [
        sum((weight * part for weight, part in zip(weights[1:], parts[1:], strict=True)), weights[0] * parts[0])
        for parts in zip(*gradients, strict=True)
    ]


@torch.no_grad()
def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
    for mine, theirs in zip(target.buffers(), source.buffers(), strict=True):
        mine.copy_(theirs)


def _no_loss(batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
    raise AssertionError("the loss is where the discriminator is")
