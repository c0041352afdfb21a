"""How a generative model is trained, as data; field names are YAML keys."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from basics.image_shape import StageSize


class GrowingStage(BaseModel):
    """A part of a growing schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1)
    image_size: StageSize = Field(description="of the stage's images, which are means over areas of the real ones")
    batch_size: int = Field(ge=2)
    reset_optimizer: bool = Field(default=False, description="moments begin anew with the stage")


class GenerativeTraining(BaseModel):
    """How a generative model is trained. Each model has its own defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=2000, ge=1, description="passes through all phases; the length of the schedule")
    batch_size: int = Field(default=16, ge=2)
    growing: tuple[GrowingStage, ...] = Field(
        default=(),
        description="stages (steps, image_size, batch_size) from small images to full ones; their steps sum to steps",
    )
    sampling: Literal["permutation", "poisson"] = Field(
        default="permutation",
        description="poisson: every image enters a batch independently, so that batch_size is the expected number",
    )
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
    ema_images: float | None = Field(
        default=None, gt=0, description="instead of ema: real images after which an average has forgotten one half"
    )
    ema_ramp: float | None = Field(
        default=None, gt=0, description="ema_images is at most this share of the images seen, so the start is forgotten"
    )
    flips: Literal["none", "horizontal", "both"] = "both"
    quarter_turns: bool = False
    snapshot_from: int = Field(default=0, ge=0, description="first step kept for the checkpoint ensemble")
    snapshot_every: int | None = Field(
        default=None, ge=1, description="steps between ensemble members; without it only the last step is kept"
    )
    choose_snapshot: Literal["sliced_wasserstein"] | None = Field(
        default=None,
        description="sliced_wasserstein: in the place of an ensemble, the one of its members that is nearest to the training images",
    )
    channels_last: bool = True

    @model_validator(mode="after")
    def _one_average(self) -> GenerativeTraining:
        if self.ema is not None and self.ema_images is not None:
            raise ValueError(f"ema is {self.ema:g} and ema_images {self.ema_images:g}; set one of them to null")
        if self.ema_ramp is not None and self.ema_images is None:
            raise ValueError("ema_ramp is set and ema_images is not; set ema_images or remove ema_ramp")
        if self.choose_snapshot is not None and self.snapshot_every is None:
            raise ValueError(
                f"choose_snapshot is {self.choose_snapshot} and there is one snapshot, the last; set snapshot_every, in steps"
            )
        return self

    @property
    def snapshot_steps(self) -> list[int]:
        """Steps after which the weights are a member of the checkpoint ensemble; none without one."""
        every = self.snapshot_every
        if every is None or self.snapshot_from > self.steps:
            return []
        first = max(every, -(-self.snapshot_from // every) * every)
        return sorted({*range(first, self.steps + 1, every), self.steps})

    @property
    def members(self) -> list[str]:
        """Names of what is shared of a training: members of the ensemble, or the only one."""
        steps = self.snapshot_steps
        if not steps:
            return ["final"]
        return [f"step{step}" for step in steps] if self.choose_snapshot is None else ["chosen"]

    def keeps_snapshot(self, step: int) -> bool:
        """Whether a step is among `snapshot_steps`."""
        every = self.snapshot_every
        return every is not None and step >= self.snapshot_from and (step == self.steps or step % every == 0)

    @property
    def largest_batch(self) -> int:
        """Images of the largest batch of any stage; the expected number where `sampling` is poisson."""
        return max([stage.batch_size for stage in self.growing] or [self.batch_size])

    @property
    def averages(self) -> bool:
        """Whether a moving average of the generator is kept."""
        return self.ema is not None or self.ema_images is not None

    def without_average(self) -> GenerativeTraining:
        """The same without a moving average."""
        return self.model_copy(update={"ema": None, "ema_images": None, "ema_ramp": None})


def rate_factor(step: int, training: GenerativeTraining) -> float:
    """Factor of the learning rate at a step, counted from 0."""
    warm = min(1.0, (step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    if training.decay == "none":
        return warm
    return warm * max(0.0, min(1.0, 2.0 * (1.0 - step / training.steps)))
