"""Sections of a scenario: centres, the task, generators, the study. Field names are the YAML keys, as in `scenario`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from data_partitions import PartitionRule, PatchTask, Source
from data_partitions.dealing.dealt import AnySource
from federation.wire.availability import Availability
from models import CLASSIFIERS, GENERATIVE_MODELS, ClassifierTraining, GenerativeTraining

# Names become file names, array names and columns of tables.
LONGEST_NAME = 40
NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_\-]{{0,{LONGEST_NAME - 1}}}")
Fraction = Annotated[float, Field(gt=0, le=1)]
# A number of optimizer steps, or "100 epochs" of the stage's own training set.
Duration = int | str
# A number of images, or "4 per generator" of those that an arm brings to a receiver.
Images = int | str


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Outage(Section):
    """From when to when a centre cannot be reached; without `to` it is gone for good."""

    from_s: float = Field(ge=0)
    to_s: float | None = None

    @model_validator(mode="after")
    def _order(self) -> Outage:
        if self.to_s is not None and self.to_s <= self.from_s:
            raise ValueError(f"to_s is {self.to_s:g} and from_s {self.from_s:g}; an outage ends after it began")
        return self


class SimulatedAvailability(Section):
    """How a simulated centre behaves, in simulated seconds; see `federation.wire.availability.Availability`."""

    speed: float = Field(1.0, gt=0, description="relative to the others: 0.5 takes twice as long")
    delay_s: float = Field(0.0, ge=0, description="one way, for every message")
    bandwidth_mbit_s: float | None = Field(None, gt=0, description="of its line; none: transfers take no time")
    dropout: float = Field(0.0, ge=0, lt=1, description="probability that a job is lost")
    outages: tuple[Outage, ...] = ()

    def build(self) -> Availability:
        """As the clock takes it."""
        outages = tuple((o.from_s, math.inf if o.to_s is None else o.to_s) for o in self.outages)
        return Availability(self.speed, self.delay_s, self.bandwidth_mbit_s, self.dropout, outages)


class SimulatedClock(Section):
    """What simulated time is made of. Only strategies that exchange many jobs use it; see the report's section on it."""

    step_s: float = Field(1.0, gt=0, description="seconds of one local training step at speed 1")
    notice_s: float = Field(60.0, ge=0, description="until the server notices that a job is lost")


class Centre(Section):
    """A hospital: what it holds and what it does."""

    roles: tuple[Literal["provider", "receiver", "test"], ...] = Field(
        min_length=1, description="provider trains generators, receiver trains classifiers, test is only tested on"
    )
    data: Annotated[Source, Field(discriminator="source")]
    gpu: float = Field(0.0, ge=0, description="share of a GPU that the centre's jobs take under Ray")
    availability: SimulatedAvailability = SimulatedAvailability()


class Partition(PartitionRule):
    """One archive dealt out to several of the study's centres; they have no `data` of their own."""

    source: AnySource = Field(description="the archive, as a centre's `data` would name it")

    @property
    def rule(self) -> PartitionRule:
        """The rule without the archive."""
        return PartitionRule.model_validate(self.model_dump(mode="json", exclude={"source"}))


class Task(PatchTask):
    """What is to be classified; see `data_partitions.PatchTask`."""


class Generator(BaseModel):
    """A generative model of one centre, or a package received from elsewhere.

    Keys beside the ones below are those of the model (`models.GENERATIVE_MODELS[model]`) and of its training
    (`models.GenerativeTraining`), side by side: `{centre: B, model: wgan_gp, steps: 2000, latent: 100}`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    centre: str | None = None
    model: str | None = None
    conditional: bool = Field(False, description="one model of both classes, sampled by label; else positives only")
    tasks: tuple[str, ...] | None = Field(None, description="tasks it is trained for; all when left out")
    package: str | None = Field(None, description="folder of a generator package made elsewhere, instead of a centre")

    _hyper: Any = PrivateAttr(None)
    _training: Any = PrivateAttr(None)

    @model_validator(mode="after")
    def _check(self) -> Generator:
        extra = dict(self.model_extra or {})
        if self.package is not None:
            given = [key for key in ("centre", "model") if getattr(self, key) is not None] + list(extra)
            if given:
                raise ValueError(f"a package brings its own model; remove {', '.join(given)}")
            return self
        if self.centre is None:
            raise ValueError("needs `centre` (who trains it) and `model`, or `package` (a folder made elsewhere)")
        hyper, training = generative_settings(self.model, extra)
        # Private attributes of a frozen model may be set once, here, where it is built.
        self.__pydantic_private__ = {"_hyper": hyper, "_training": training}
        return self

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Resolved settings of the model."""
        return self._hyper.model_dump(mode="json")

    @property
    def training(self) -> dict[str, Any]:
        """Resolved settings of its training."""
        return self._training.model_dump(mode="json")


def generative_settings(
    model: str | None, extra: Mapping[str, Any], not_here: Mapping[str, str] | None = None
) -> tuple[BaseModel, GenerativeTraining]:
    """Sort keys that stand side by side into those of a generative model and those of its training, and check them.

    Args:
        not_here: training keys that have no meaning where they were written, each with the reason.

    Raises:
        ValueError: an unknown model or key.
    """
    if model not in GENERATIVE_MODELS:
        raise ValueError(f"model is {model!r}; known models: {', '.join(GENERATIVE_MODELS)}")
    hyper_class = GENERATIVE_MODELS[model]
    for key, reason in (not_here or {}).items():
        if key in extra:
            raise ValueError(f"{key} cannot be set here: {reason}; remove it")
    hyper_keys = set(hyper_class.model_fields)
    training_keys = set(GenerativeTraining.model_fields) - set(not_here or {})
    unknown = set(extra) - hyper_keys - training_keys
    if unknown:
        raise ValueError(
            f"unknown key{'s' if len(unknown) > 1 else ''} {', '.join(sorted(unknown))}; {model} takes "
            f"{', '.join(sorted(hyper_keys))} and the training keys {', '.join(sorted(training_keys))}"
        )
    training = hyper_class.training_defaults().model_dump() | {k: v for k, v in extra.items() if k in training_keys}
    return (
        hyper_class(**{k: v for k, v in extra.items() if k in hyper_keys}),
        GenerativeTraining.model_validate(training),
    )


class Schedule(Section):
    """How long a classifier learns, per stage: optimizer steps, or "100 epochs" of the stage's training set."""

    real: Duration = 300
    pretrain: Duration = 700
    mix: Duration = 300
    fine_tune: Duration = 240

    @field_validator("real", "pretrain", "mix", "fine_tune")
    @classmethod
    def _positive(cls, value: Duration) -> Duration:
        text = str(value)
        if not re.fullmatch(r"[1-9][0-9]*( epochs?)?", text):
            raise ValueError("must be a number of steps such as 300, or a number of epochs such as '100 epochs'")
        return int(text) if text.isdigit() else text


class Use(Section):
    """How a receiver uses what it was given. `study` sets it for all arms, an arm overrides it."""

    synthetic: Images = Field(1200, description="synthetic images per shared class: a number, or '4 per generator'")
    classes: Literal["lesion", "both"] = Field("lesion", description="lesion: positives only (the paper's recipe)")
    use: Literal["mix", "pretrain", "pretrain_mix", "only"] = "mix"
    synthetic_share: float | Literal["by_count"] = Field(
        0.4,
        description="share of a class's draws that come from foreign images when mixed; by_count: as many as there are",
    )
    augmentation: Literal["none", "traditional"] = "traditional"
    normalise: Literal["none", "per_patch"] = "none"
    schedule: Schedule = Schedule()

    @field_validator("synthetic", mode="before")
    @classmethod
    def _images(cls, value: Any) -> Images:
        return number_of_images(value)

    @field_validator("synthetic_share")
    @classmethod
    def _share(cls, value: float | str) -> float | str:
        if isinstance(value, float | int) and not 0 < value < 1:
            raise ValueError("must lie between 0 and 1 (both excluded), or be by_count")
        return value

    def images(self, generators: int) -> int:
        """Synthetic images of each shared class that so many generators make together."""
        number, _, each = str(self.synthetic).partition(" ")
        return int(number) * (generators if each else 1)


def number_of_images(value: Any) -> Images:
    text = str(value)
    if not re.fullmatch(r"[1-9][0-9]*( per generator)?", text):
        raise ValueError("must be a number of images such as 600, or '4 per generator'")
    return int(text) if text.isdigit() else text


class ClassifierChoice(Section):
    """A classifier by name, with weights from a local file if wanted."""

    model: str
    pretrained: str | None = Field(None, description="path of a state dict (.safetensors or .pth)")
    image_size: int | None = Field(
        None, ge=16, le=512, description="side to which patches are resized for this network"
    )

    @field_validator("model")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in CLASSIFIERS:
            raise ValueError(f"is {value!r}; known classifiers: {', '.join(CLASSIFIERS)}")
        return value


class Study(Use):
    """The learn phase: every receiver x arm x task x classifier x real fraction x repeat is a cell."""

    classifiers: tuple[ClassifierChoice, ...] = (ClassifierChoice(model="cnn_small"),)
    real_fraction: tuple[Fraction, ...] | None = Field(None, description="shares of the receiver's training patients")
    real_images: tuple[int, ...] | None = Field(
        None, description="instead: numbers of training images, drawn by patient"
    )
    test_on: tuple[str, ...] = Field((), description="further centres to test at; the receiver itself always is")
    minimum_positives: int = Field(20, ge=1, description="fewest positive training patches of a receiver or provider")
    training: ClassifierTraining = ClassifierTraining()

    @field_validator("classifiers", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return [{"model": v} if isinstance(v, str) else v for v in value] if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _one_size(self) -> Study:
        if self.real_fraction and self.real_images:
            raise ValueError("real_fraction and real_images say the same thing; keep one")
        if self.real_images and min(self.real_images) < 2:
            raise ValueError("real_images must be at least 2 (one of each class)")
        twice = {"augmentation", "normalise"} & self.training.model_fields_set
        if twice:
            raise ValueError(
                f"training.{min(twice)} is a setting of its own that arms can change; move it to study.{min(twice)}"
            )
        names = [c.model for c in self.classifiers]
        if not names or len(set(names)) != len(names):
            raise ValueError("classifiers must name at least one classifier, each once")
        return self

    @property
    def sizes(self) -> list[tuple[float | None, int | None]]:
        """(fraction, images) of the receiver's data, one of them None."""
        if self.real_images:
            return [(None, n) for n in self.real_images]
        return [(f, None) for f in self.real_fraction or (1.0,)]
