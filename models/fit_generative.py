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
from torch import Tensor

from models.batch_stream import BatchStream
from models.errors import ModelError
from models.generative import GenerativeModel, Precision, cpu_copy
from models.generative_training import GenerativeTraining
from models.optimizer_state import with_prefix
from models.patch_arrays import PatchArrays
from models.phase_optimizers import PhaseOptimizers
from models.phases import AfterStep, Batch, Logs, Phase, StepDone, phase_stream, runs_of
from models.schedule import Schedule, check_growing
from models.snapshot_distance import distance_to
from models.weight_average import move_average

Progress = Callable[[int, int], None]
# Columns of a history that count, beside those of losses.
_COUNTS = ("step", "images", "empty_batches")


@dataclass
class GenerativeFit:
    """What training returns in addition to the trained model.

    Attributes:
        history: {"step": [...], "images": [...], "<scalar>": [...]}: steps done and real images seen, and means over
            windows of a hundredth of the schedule; with Poisson sampling "empty_batches", too.
        snapshots: sharable weights by step: the members of the checkpoint ensemble, or the nearest one so far; empty without one.
        distances: of all snapshots so far to training images, where the nearest is chosen.
    """

    history: dict[str, list[float]] = field(default_factory=lambda: {"step": [], "images": []})
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    distances: dict[int, float] = field(default_factory=dict)

    @property
    def members(self) -> dict[str, dict[str, Tensor]]:
        """The snapshots by the names under which they are shared; see `GenerativeTraining.members`."""
        if self.distances:
            (nearest,) = self.snapshots.values()
            return {"chosen": nearest}
        return {f"step{step}": state for step, state in self.snapshots.items()}

    @property
    def scalars(self) -> dict[str, list[float]]:
        """The columns of the history that are no counts."""
        return {name: values for name, values in self.history.items() if name not in _COUNTS}


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
    after_step: AfterStep | None = None,
) -> GenerativeFit:
    """Train `model` in place on the images.

    Args:
        start_step, stop_step: a part of the schedule, which has `training.steps` steps; the optimizers start anew.
        state: an earlier `GenerativeTrainer.state()`, to go on from it instead.
        on_progress: see `GenerativeTrainer.advance`; about a hundred times over the schedule.
        after_step: called after every step.

    Raises:
        ModelError: "batch_too_large", "class_missing", "wrong_images", or "diverged".
    """
    trainer = GenerativeTrainer(model, training, seed=seed, device=device, precision=precision, after_step=after_step)
    trainer.step = start_step
    if state is not None:
        trainer.load_state(state)
    return trainer.advance(images, training.steps if stop_step is None else stop_step, on_progress)


class GenerativeTrainer:
    """A model, its optimizers and a step count, which may be set to begin elsewhere in the schedule.

    Args:
        phases: instead of the model's own, e.g. with another loss or another way to gradients.
        after_step: called after every step and the model's own `after_step`.

    Attributes:
        images, empty_batches: real images that this trainer (and those whose state it loaded) has seen, and batches of
            Poisson sampling that were empty.

    Raises:
        ValueError: the model cannot be trained by this schedule, or phases contradict each other.
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
        after_step: AfterStep | None = None,
    ):
        check_growing(training, model)
        self.model, self.training, self.seed, self.precision, self.step = model, training, seed, precision, 0
        self.phases = list(phases) if phases is not None else model.phases()
        self.schedule = Schedule(training, self.phases)
        self.device = torch.device(device)
        self.memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
        if training.averages:
            model.start_average()
        model.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload]
        model.networks.train()
        self.fit = GenerativeFit()
        self.images, self.empty_batches = 0, 0
        # The step after the last one that these optimizers did; `step` may have been set beyond it.
        self._optimized = 0
        self._after_step = after_step
        self._parameters = {name: list(network.parameters()) for name, network in model.networks.items()}
        self._optimizers = PhaseOptimizers(self.phases, model.networks, training)  # type: ignore[arg-type]

    def advance(self, images: PatchArrays, stop_step: int, on_progress: Progress | None = None) -> GenerativeFit:
        """Run steps up to (not including) `stop_step`.

        Args:
            on_progress: called with (real images seen, real images to be seen) of these steps.
        """
        batches = BatchStream(self.model, images, self.training, self.seed, self.schedule)
        window, images_then = max(1, self.training.steps // 100), self.images
        until_stop = self.schedule.images_before(stop_step)
        sums: Logs = {}
        counts: dict[str, int] = defaultdict(int)
        while self.step < stop_step:
            logs = self._one_step(batches)
            for name, values in logs.items():
                for value in values:
                    sums[name] = sums[name] + value if name in sums else value
                counts[name] += len(values)
            last, snapshot = self.step == stop_step, self.training.keeps_snapshot(self.step)
            if snapshot:
                for name, value in self._keep_snapshot(images).items():
                    sums[name], counts[name] = value, 1
            if self.step % window == 0 or last or snapshot:
                self._record(sums, counts)
                sums, counts = {}, defaultdict(int)
                if on_progress is not None:
                    seen = self.images - images_then
                    on_progress(seen, seen + until_stop - self.schedule.images_before(self.step))
        return self.fit

    def _one_step(self, batches: BatchStream) -> dict[str, list[Tensor]]:
        stage = self.schedule.stage_at(self.step)
        if self.schedule.resets_between(self._optimized, self.step):
            self._optimizers.reset()
        self.model.tell(self.schedule.moment(self.step))
        logs: dict[str, list[Tensor]] = {}
        batch, place, seen = Batch(stage.batch_size), None, 0
        for phase, repeat, wanted in runs_of(self.phases, self.step, stage.number):
            if wanted != place:
                assert wanted is not None, "a phase keeps the batch of the phase before it"
                batch, place = self._on_device(batches.batch(stage.batch_number(self.step, wanted), stage)), wanted
                seen += batch.size
                self.empty_batches += batch.size == 0
            if batch.size == 0 and not phase.on_empty:
                continue
            for name, value in self.run_phase(phase, batch, phase_stream(self.seed, phase, self.step, repeat)).items():
                logs.setdefault(name, []).append(value)
        self.end_step(seen)
        done = StepDone(self.step, self.images, logs)
        self.model.after_step(done)
        if self._after_step is not None:
            self._after_step(done)
        return logs

    def run_phase(self, phase: Phase, batch: Batch, rng: torch.Generator) -> Logs:
        """One optimizer step of one phase, at the learning rate of the present step.

        Where `phase.gradients` leaves no gradient, nothing is stepped.
        """
        for name, parameters in self._parameters.items():
            for parameter in parameters:
                # Frozen, not only unstepped: a generator's step does not need gradients of a discriminator's weights.
                parameter.requires_grad_(name == phase.network)
        optimizer = self._optimizers.prepare(phase, self.schedule.moment(self.step))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            _, logs = phase.gradients(phase, self.model.networks[phase.network], batch, rng)
        self._optimizers.clip(phase)
        optimizer.step()
        return logs

    def end_step(self, seen: int) -> None:
        """Move the averaged generator, and count the step and the images that it has seen."""
        if self.training.averages and self.model.average is not None:
            keep = self.schedule.average_keeps(self.step)
            move_average(self.model.average, self.model.networks["generator"], keep)
        self.step, self.images = self.step + 1, self.images + seen
        self._optimized = self.step

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, and the ensemble so far, as copies on the CPU.

        Keys: "step", "images", "empty_batches"; "model.<name>"; "optimizer.<network>.<parameter number>.<name>", with
        "<network>:<name>" for an optimizer that has one; "snapshot.<step>.<name>"; "distance.<step>".
        """
        state = {name: torch.tensor(getattr(self, name)) for name in _COUNTS}
        state |= {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        state |= {f"optimizer.{name}": tensor for name, tensor in self._optimizers.state().items()}
        for step, snapshot in self.fit.snapshots.items():
            state |= {f"snapshot.{step}.{name}": tensor for name, tensor in snapshot.items()}
        for step, distance in self.fit.distances.items():
            state[f"distance.{step}"] = torch.tensor(distance, dtype=torch.float64)
        return cpu_copy(state)

    def load_state(self, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
        """Inverse of `state`. Without keys "optimizer.*" the optimizers start anew.

        Args:
            strict: False leaves parts of the model that `state` lacks as they are.
        """
        self.step, self.images, self.empty_batches = (int(state[name]) for name in _COUNTS)
        self._optimized = self.step
        self.model.load_state_dict(with_prefix(state, "model."), strict=strict)
        self._optimizers.load_state(with_prefix(state, "optimizer."))
        self.fit = GenerativeFit()
        for key, tensor in with_prefix(state, "snapshot.").items():
            step, _, name = key.partition(".")
            self.fit.snapshots.setdefault(int(step), {})[name] = tensor.clone()
        self.fit.distances = {int(step): float(value) for step, value in with_prefix(state, "distance.").items()}

    def _on_device(self, batch: Batch) -> Batch:
        images = batch.real().to(self.device, memory_format=self.memory_format)
        return Batch(batch.size, images, None if batch.labels is None else batch.labels.to(self.device))

    def _keep_snapshot(self, images: PatchArrays) -> Logs:
        """Add the present weights to the snapshots, or let them take the place of one that is farther away."""
        snapshots, distances = self.fit.snapshots, self.fit.distances
        if self.training.choose_snapshot is None:
            snapshots[self.step] = self.model.sharable_state()
            return {}
        distance = distance_to(images, self.model, seed=self.seed, precision=self.precision)
        if not distances or distance < min(distances.values()):
            snapshots.clear()
            snapshots[self.step] = self.model.sharable_state()
        distances[self.step] = distance
        return {self.training.choose_snapshot: torch.tensor(distance)}

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
        columns = self.fit.history
        columns["step"].append(self.step)
        columns["images"].append(self.images)
        if self.training.sampling == "poisson":
            columns.setdefault("empty_batches", []).append(self.empty_batches)
        for name in dict.fromkeys([*self.fit.scalars, *means]):  # a lazy phase has no value in some windows
            column = columns.setdefault(name, [math.nan] * (len(columns["step"]) - 1))
            column.append(means.get(name, math.nan))
