"""Which images a training step sees: the stages of a growing schedule, and the places of their batches in the stream.

A training that does not grow has one stage. All follows from the step alone: sizes, batches, images seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from basics.image_shape import size_text
from models.generative import GenerativeModel
from models.generative_training import GenerativeTraining
from models.phases import Moment, Phase, fresh_batches, runs_of
from models.weight_average import average_decay, average_decay_by_images

Size = tuple[int, int]


@dataclass(frozen=True)
class ScheduledStage:
    """A stage in its place.

    Attributes:
        number: from 0.
        start, steps: its steps are start .. start + steps - 1.
        size: (height, width) of its images; None: as they are.
        batch_size: images of a batch.
        resets: whether optimizers begin anew with it; see `Schedule.resets_between`.
        batches_per_step: places for batches of real images in one step.
        first_batch: number of its first batch.
        first_image: places for images in all batches before.
    """

    number: int
    start: int
    steps: int
    size: Size | None
    batch_size: int
    resets: bool
    batches_per_step: int
    first_batch: int
    first_image: int

    def batch_number(self, step: int, place: int) -> int:
        """Number, in the whole training, of one of a step's batches."""
        return self.first_batch + (step - self.start) * self.batches_per_step + place

    def first_image_of(self, number: int) -> int:
        """Place of a batch's first image among the images of all batches."""
        return self.first_image + (number - self.first_batch) * self.batch_size


class Schedule:
    """The stages of a training with these phases."""

    def __init__(self, training: GenerativeTraining, phases: Sequence[Phase]):
        self.training, self.phases = training, list(phases)
        planned: list[tuple[int, Size | None, int, bool]] = [
            (stage.steps, stage.image_size, stage.batch_size, stage.reset_optimizer) for stage in training.growing
        ] or [(training.steps, None, training.batch_size, False)]
        self.stages: list[ScheduledStage] = []
        start = batch = image = 0
        for number, (steps, size, batch_size, resets) in enumerate(planned):
            fresh = fresh_batches(phases, number)
            self.stages.append(
                ScheduledStage(number, start, steps, size, batch_size, resets, fresh, batch, image),
            )
            start, batch, image = start + steps, batch + steps * fresh, image + steps * fresh * batch_size

    def stage_at(self, step: int) -> ScheduledStage:
        """The stage of a step; steps beyond the schedule belong to the last."""
        for stage in self.stages:
            if step < stage.start + stage.steps:
                return stage
        return self.stages[-1]

    def resets_between(self, done: int, step: int) -> bool:
        """Whether optimizers that did the steps before `done` begin anew with `step`.

        They do where a stage that asks for it has begun meanwhile: a centre may not have worked in that stage's first step.
        """
        return any(stage.resets and done <= stage.start <= step for stage in self.stages)

    def moment(self, step: int) -> Moment:
        """Where a step stands."""
        stage = self.stage_at(step)
        before = self.stages[stage.number - 1].size if stage.number else None
        return Moment(step, self.training.steps, stage.number, step - stage.start, stage.steps, stage.size, before)

    def images_before(self, step: int) -> int:
        """Real images that the steps before this one see; the expected number where `sampling` is poisson."""
        total = 0
        for stage in self.stages:
            end = step if stage is self.stages[-1] else min(step, stage.start + stage.steps)
            total += self._batches(stage, end) * stage.batch_size
            if end == step:
                break
        return total

    def images_of(self, step: int) -> int:
        """Real images that a step sees; the expected number where `sampling` is poisson."""
        return len(self.places(step)) * self.stage_at(step).batch_size

    def average_keeps(self, step: int) -> float:
        """What a step keeps of the generator's moving average."""
        training = self.training
        if training.ema_images is not None:
            before, seen = self.images_before(step), self.images_of(step)
            return average_decay_by_images(training.ema_images, training.ema_ramp, before, seen)
        assert training.ema is not None, "there is an average"
        return average_decay(training.ema, step)

    def places(self, step: int) -> list[int]:
        """Which of a step's batches are drawn, in order."""
        runs = runs_of(self.phases, step, self.stage_at(step).number)
        return sorted({run.batch for run in runs if run.batch is not None})

    def _batches(self, stage: ScheduledStage, end: int) -> int:
        """Batches that steps of a stage before `end` draw: lazy phases repeat with a period."""
        period = math.lcm(*(phase.interval for phase in self.phases)) if self.phases else 1
        total = 0
        for offset in range(min(period, end - stage.start)):
            times = -(-(end - stage.start - offset) // period)
            total += times * len(self.places(stage.start + offset))
        return total


def check_growing(training: GenerativeTraining, model: GenerativeModel) -> None:
    """Refuse a growing schedule by which a model cannot be trained.

    Raises:
        ValueError: with what would be right.
    """
    stages = training.growing
    if not stages:
        return
    sizes, full = model.trained_sizes, model.shape.size
    if set(sizes) == {full}:
        raise ValueError(
            f"growing has {len(stages)} stages, but this model is trained at {size_text(full)} only; remove growing"
        )
    steps = sum(stage.steps for stage in stages)
    if steps != training.steps:
        raise ValueError(f"growing has {steps} steps in all, but the training has {training.steps}; make them the same")
    before = (0, 0)
    for number, stage in enumerate(stages):
        size, key = stage.image_size, f"growing[{number}].image_size"
        if size not in sizes:
            raise ValueError(f"{key} is {size_text(size)}; this model is trained at {', '.join(map(size_text, sizes))}")
        if full[0] % size[0] or full[1] % size[1]:
            raise ValueError(f"{key} is {size_text(size)}, which does not divide {size_text(full)}; name a divisor")
        if size[0] < before[0] or size[1] < before[1]:
            raise ValueError(f"{key} is {size_text(size)}, less than in the stage before; put small stages first")
        before = size
    if before != full:
        raise ValueError(
            f"growing ends with {size_text(before)}, but the images are {size_text(full)}; add a last stage of that size"
        )
