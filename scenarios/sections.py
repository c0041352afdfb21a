"""Sections of a scenario: centres, the task, generators, the study. Field names are the YAML keys, as in `scenario`."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, field_validator, model_validator

from basics.image_shape import ImageSize
from data_partitions import SOURCES, DataSource, PartitionRule, PatchTask
from data_partitions.sources import AnySource
from federation.wire.availability import Availability
from metrics import METRICS
from models import ClassifierName, ClassifierTraining, GenerativeModelName
from scenarios.chosen import chosen_by
from strategies.keys import MAKES, Section, Use, generative_settings

# Names become file names, array names and columns of tables.
LONGEST_NAME = 40
NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_\-]{{0,{LONGEST_NAME - 1}}}")
Fraction = Annotated[float, Field(gt=0, le=1)]
if TYPE_CHECKING:
    Source = DataSource
else:  # mypy reads no type that is computed
    Source = chosen_by("source", SOURCES, lambda source: source)


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
    data: Source
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
    model: GenerativeModelName | None = None
    conditional: bool = Field(False, description="one model of several classes, sampled by label; else of one")
    makes: tuple[str, ...] | None = MAKES
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
        if self.centre is None or self.model is None:
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

    def written(self) -> dict[str, Any]:
        """Resolved keys that stand beside the fields in a written scenario."""
        return {} if self.package is not None else self.hyper_parameters | self.training


class ClassifierChoice(Section):
    """A classifier by name, with weights from a local file if wanted."""

    model: ClassifierName
    pretrained: str | None = Field(None, description="path of a state dict (.safetensors or .pth)")
    pretrained_sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="of that file, by which a hospital finds its own copy; filled in where the file is at hand"
    )
    image_size: ImageSize | None = Field(
        None, description="height and width to which patches are resized for this network"
    )

    @model_validator(mode="after")
    def _of_a_file(self) -> ClassifierChoice:
        if self.pretrained_sha256 is not None and self.pretrained is None:
            raise ValueError(
                f"{self.model}: pretrained_sha256 is set and pretrained is not; name the file, or remove it"
            )
        return self


class Study(Use):
    """The learn phase: every receiver x arm x task x classifier x real fraction x repeat is a cell."""

    classifiers: tuple[ClassifierChoice, ...] = (ClassifierChoice(model="cnn_small"),)
    real_fraction: tuple[Fraction, ...] | None = Field(None, description="shares of the receiver's training patients")
    real_images: tuple[int, ...] | None = Field(
        None, description="instead: numbers of training images, drawn by patient"
    )
    test_on: tuple[str, ...] = Field((), description="further centres to test at; the receiver itself always is")
    metrics: tuple[str, ...] | None = Field(None, description="of plug-ins, measured beside those of every study")
    minimum_positives: int = Field(
        20,
        ge=1,
        description="fewest positive training patches of a receiver or provider; of more than two classes, of all classes together",
    )
    training: ClassifierTraining = ClassifierTraining()

    @field_validator("classifiers", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return [{"model": v} if isinstance(v, str) else v for v in value] if isinstance(value, list | tuple) else value

    @field_validator("metrics")
    @classmethod
    def _extra(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            if name in METRICS.builtin:
                raise ValueError(f"{name!r} is measured in every study; remove it")
            if name not in METRICS:
                raise ValueError(METRICS.unknown(name))
            METRICS[name]
        if len(set(value or ())) != len(value or ()):
            raise ValueError("a metric is named twice; name each once")
        return value

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
