"""The one training loop of all generative models: run through the model's phases, step by step.

All that a step draws is derived from (seed, step, phase), and all that it depends on is in `state()`. So steps 0..n in one
go give the same bits as 0..k, a restart, and k..n.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.batch_stream import BatchStream
from models.errors import ModelError
from models.generative import Batch, GenerativeModel, GenerativeTraining, Logs, Phase, Precision, cpu_copy
from models.optimizers import AdamW
from models.patch_arrays import PatchArrays
from models.random_streams import torch_stream
from models.weight_average import update_average

Progress = Callable[[int, int], None]


@dataclass
class GenerativeFit:
    """What training returns in addition to the trained model.

    Attributes:
        history: {"step": [...], "<scalar>": [...]}: means over windows of a hundredth of the schedule.
        snapshots: sharable weights by step: the members of the checkpoint ensemble; empty without one.
    """

    history: dict[str, list[float]] = field(default_factory=lambda: {"step": []})
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)


def fit_generative(
    model: GenerativeModel,
    images: PatchArrays,
    training: GenerativeTraining,
    *,
    seed: int,
    start_step: int = 0,
    stop_step: int | None = None,
    state: Mapping[str, Tensor] | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    on_progress: Progress | None = None,
) -> GenerativeFit:
    """Train `model` in place on the images.

    Args:
        start_step, stop_step: a part of the schedule, which has `training.steps` steps; the optimizers start anew.
        state: an earlier `GenerativeTrainer.state()`, to go on from it instead.
        on_progress: called with (steps done, steps in all), about a hundred times.

    Raises:
        ModelError: "batch_too_large", "class_missing", "wrong_images", or "diverged".
    """
    trainer = GenerativeTrainer(model, training, seed=seed, device=device, precision=precision)
    trainer.step = start_step
    if state is not None:
        trainer.load_state(state)
    return trainer.advance(images, training.steps if stop_step is None else stop_step, on_progress)


class GenerativeTrainer:
    """A model, its optimizers and a step count.

    Args:
        phases: instead of the model's own, e.g. with another loss or another way to gradients.
    """

    def __init__(
        self,
        model: GenerativeModel,
        training: GenerativeTraining,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        phases: Sequence[Phase] | None = None,
    ):
        self.model, self.training, self.seed, self.precision, self.step = model, training, seed, precision, 0
        self.phases = list(phases) if phases is not None else model.phases()
        self.device = torch.device(device)
        self.memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
        if training.ema is not None:
            model.start_average()
        model.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload]
        model.networks.train()
        self.fit = GenerativeFit()
        self._parameters = {name: list(network.parameters()) for name, network in model.networks.items()}
        self._optimizers = {
            name: AdamW(
                self._parameters[name], lr=training.learning_rate, betas=training.betas,
                weight_decay=training.weight_decay, fused=True,
            )
            for name in dict.fromkeys(phase.network for phase in self.phases)
        }  # fmt: skip

    def advance(self, images: PatchArrays, stop_step: int, on_progress: Progress | None = None) -> GenerativeFit:
        """Run steps up to (not including) `stop_step`."""
        batches = BatchStream(self.model, images, self.training, self.seed)
        fresh_per_step = fresh_batches(self.phases)
        window = max(1, self.training.steps // 100)
        sums: Logs = {}
        counts: dict[str, int] = defaultdict(int)
        while self.step < stop_step:
            number, batch = self.step * fresh_per_step, Batch(self.training.batch_size)
            for phase in self.phases:
                for repeat in range(phase.repeats):
                    if phase.fresh_images:
                        batch, number = self._on_device(batches.batch(number)), number + 1
                    if self.step % phase.interval:
                        continue
                    logs = self.run_phase(phase, batch, phase_stream(self.seed, phase, self.step, repeat))
                    for name, value in logs.items():
                        sums[name] = sums[name] + value if name in sums else value
                        counts[name] += 1
            self.end_step()
            last = self.step == stop_step
            if self.step % window == 0 or last or self._is_snapshot():
                self._record(sums, counts)
                sums, counts = {}, defaultdict(int)
                if on_progress is not None:
                    on_progress(self.step, self.training.steps)
            if self._is_snapshot():
                self.fit.snapshots[self.step] = self.model.sharable_state()
        return self.fit

    @property
    def images_per_step(self) -> int:
        """Real images that one training step sees."""
        return self.training.batch_size * fresh_batches(self.phases)

    def run_phase(self, phase: Phase, batch: Batch, rng: torch.Generator) -> Logs:
        """One optimizer step of one phase, at the learning rate of the present step.

        Where `phase.gradients` leaves no gradient, nothing is stepped.
        """
        for name, parameters in self._parameters.items():
            for parameter in parameters:
                # Frozen, not only unstepped: a generator's step does not need gradients of a discriminator's weights.
                parameter.requires_grad_(name == phase.network)
        optimizer = self._optimizers[phase.network]
        optimizer.param_groups[0]["lr"] = self.training.learning_rate * rate_factor(self.step, self.training)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            _, logs = phase.gradients(phase, self.model.networks[phase.network], batch, rng)
        if self.training.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters[phase.network], self.training.clip_norm)
        optimizer.step()
        return logs

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, and the ensemble so far, as copies on the CPU.

        Keys: "step"; "model.<name>"; "optimizer.<network>.<parameter number>.<name>"; "snapshot.<step>.<name>".
        """
        state = {"step": torch.tensor(self.step)}
        state |= {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for network, optimizer in self._optimizers.items():
            for number, parameter in enumerate(self._parameters[network]):
                own = optimizer.state.get(parameter, {})
                state |= {f"optimizer.{network}.{number}.{name}": tensor for name, tensor in own.items()}
        for step, snapshot in self.fit.snapshots.items():
            state |= {f"snapshot.{step}.{name}": tensor for name, tensor in snapshot.items()}
        return cpu_copy(state)

    def load_state(self, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
        """Inverse of `state`. Without keys "optimizer.*" the optimizers start anew.

        Args:
            strict: False leaves parts of the model that `state` lacks as they are.
        """
        self.step = int(state["step"])
        prefix = "model."
        model = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        self.model.load_state_dict(model, strict=strict)
        for optimizer in self._optimizers.values():
            optimizer.state.clear()
        self.fit = GenerativeFit()
        for key, tensor in state.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                network, number, name = rest.split(".")
                parameter = self._parameters[network][int(number)]
                # Moments take the memory layout of their parameter, as when the optimizer made them. A fused optimizer
                # wants the count of steps on the parameter's device.
                count = tensor.ndim == 0
                moment = tensor.clone().to(parameter.device) if count else torch.empty_like(parameter).copy_(tensor)
                self._optimizers[network].state[parameter][name] = moment
            elif kind == "snapshot":
                step, _, name = rest.partition(".")
                self.fit.snapshots.setdefault(int(step), {})[name] = tensor.clone()

    def _on_device(self, batch: Batch) -> Batch:
        images = batch.real().to(self.device, memory_format=self.memory_format)
        return Batch(batch.size, images, None if batch.labels is None else batch.labels.to(self.device))

    def end_step(self) -> None:
        """Move the averaged generator, and count the step."""
        if self.training.ema is not None and self.model.average is not None:
            update_average(self.model.average, self.model.networks["generator"], self.training.ema, self.step)
        self.step += 1

    def _is_snapshot(self) -> bool:
        return self.training.keeps_snapshot(self.step)

    def _record(self, sums: Logs, counts: Mapping[str, int]) -> None:
        means = {name: float(value) / counts[name] for name, value in sums.items()}
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise ModelError(
                "diverged",
                f"{bad[0]} is not finite at step {self.step}; lower learning_rate, now {self.training.learning_rate:g}",
                step=self.step,
                loss=bad[0],
            )
        self.fit.history["step"].append(self.step)
        columns = self.fit.history
        for name in dict.fromkeys([*columns, *means]):
            if name != "step":  # a lazy phase has no value in some windows
                column = columns.setdefault(name, [math.nan] * (len(columns["step"]) - 1))
                column.append(means.get(name, math.nan))


def phase_stream(seed: int, phase: Phase, step: int, repeat: int) -> torch.Generator:
    """The random stream of one run of a phase: noise of the generator, smoothing of targets, ..."""
    return torch_stream(seed, "phase", phase.name, step, repeat)


def fresh_batches(phases: Sequence[Phase]) -> int:
    """Batches of real images that one training step takes."""
    return sum(phase.repeats for phase in phases if phase.fresh_images)


def rate_factor(step: int, training: GenerativeTraining) -> float:
    """Factor of the learning rate at a step, counted from 0."""
    warm = min(1.0, (step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    if training.decay == "none":
        return warm
    return warm * max(0.0, min(1.0, 2.0 * (1.0 - step / training.steps)))
