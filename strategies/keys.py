"""Keys that arms of several strategies share in a scenario. Field names are the YAML keys.

Longer than most files, because every key is declared here once, with its description.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from federation.secure_sum.rules import LEAST
from federation.wire.transport import Transport
from metrics.feature_spaces import FeatureSpaceName
from models import GenerativeModelName, GenerativeTraining, settings_class
from strategies.aggregation import check_aggregation, needs_single_answers
from strategies.centre_side import FEWEST_PATIENTS

# A number of optimizer steps, or "100 epochs" of the stage's own training set.
Duration = int | str
# A number of images, or "4 per generator" of those that an arm brings to a receiver.
Images = int | str
# Which classes of a task are shared: the positive one of two, all of them, or some by name.
SharedClasses = Literal["lesion", "both", "all"] | Annotated[tuple[str, ...], Field(min_length=1)]


class Section(BaseModel):
    """A section of a scenario: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


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
    classes: SharedClasses | None = Field(
        None,
        description="lesion: the positive class of two (the paper's recipe); all (or both); or a list of names. When left out: "
        "lesion for tasks of two classes, all for others",
    )
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

    def labels(self, classes: Sequence[str]) -> tuple[int, ...]:
        """Labels of the shared classes, of a task with these.

        Raises:
            ValueError: a class that the task does not have.
        """
        chosen = self.classes if self.classes is not None else "lesion" if len(classes) == 2 else "all"
        if chosen in ("both", "all"):
            return tuple(range(len(classes)))
        if chosen == "lesion":
            if len(classes) > 2:
                raise ValueError(
                    f"lesion, but the task has {len(classes)} classes ({', '.join(classes)}); set classes: all, or list some"
                )
            return (1,)
        return labels_of(chosen, classes)


def labels_of(names: Iterable[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Labels of classes, ascending.

    Raises:
        ValueError: a name that is not among the classes.
    """
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise ValueError(f"no class {unknown[0]!r}; the task's classes are {', '.join(classes)}")
    return tuple(label for label, name in enumerate(classes) if name in names)


def number_of_images(value: Any) -> Images:
    """What `synthetic` may be.

    Raises:
        ValueError: neither a number nor "N per generator".
    """
    text = str(value)
    if not re.fullmatch(r"[1-9][0-9]*( per generator)?", text):
        raise ValueError("must be a number of images such as 600, or '4 per generator'")
    return int(text) if text.isdigit() else text


class BaseArm(Section):
    """What all arms share: a title and settings of `study` that this arm changes. A strategy adds `strategy` and its own keys."""

    title: str = ""
    control: bool = Field(False, description="a control that explains a result, not a candidate")
    receivers: tuple[str, ...] | None = Field(None, description="all receivers when left out")
    synthetic: Images | None = None
    classes: SharedClasses | None = None
    use: Literal["mix", "pretrain", "pretrain_mix", "only"] | None = None
    synthetic_share: float | Literal["by_count"] | None = None
    augmentation: Literal["none", "traditional"] | None = None
    normalise: Literal["none", "per_patch"] | None = None
    schedule: Schedule | None = None

    @field_validator("synthetic", mode="before")
    @classmethod
    def _images(cls, value: Any) -> Images | None:
        return None if value is None else number_of_images(value)

    def settings(self, study: Use) -> Use:
        """The study's settings with this arm's changes."""
        own = {k: v for k in Use.model_fields if (v := getattr(self, k)) is not None}
        base = {k: getattr(study, k) for k in Use.model_fields}
        if self.schedule is not None:  # only the stages that the arm names
            named = {k: getattr(self.schedule, k) for k in self.schedule.model_fields_set}
            own["schedule"] = study.schedule.model_copy(update=named)
        return Use(**(base | own))

    def written(self) -> dict[str, Any]:
        """Resolved keys that stand beside the fields in a written scenario."""
        return {}

    @property
    def trains_generator(self) -> bool:
        """Whether its members train a generative model together."""
        return False


class FidelityChoice(Section):
    """How a generator's distance to real patches is measured while it is trained; see `strategies.fidelity`."""

    every: int = Field(1, ge=1, description="rounds (or updates) between two measurements")
    images: int = Field(256, ge=16, description="generated images of each class")
    spaces: tuple[FeatureSpaceName, ...] = Field(
        ("texture",), description="feature spaces; none: only pictures are drawn"
    )
    fewest_patients: int = Field(
        FEWEST_PATIENTS,
        ge=2,
        description="fewest training patients in a half of a member's sums; a hospital may want more",
    )


def generative_settings(
    model: str, extra: Mapping[str, Any], not_here: Mapping[str, str] | None = None
) -> tuple[BaseModel, GenerativeTraining]:
    """Sort keys that stand side by side into those of a generative model and those of its training, and check them.

    Args:
        not_here: training keys that have no meaning where they were written, each with the reason.

    Raises:
        ValueError: an unknown model or key.
    """
    hyper_class = settings_class(model)
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


MAKES: Any = Field(
    None,
    min_length=1,
    description="names of the classes that the model learns and makes; when left out all of them if it is conditional, else the "
    "positive one of two",
)


class GenerativeArm(BaseArm):
    """An arm that trains one generative model together; its keys stand beside the arm's, as in `generators`."""

    model_config = ConfigDict(frozen=True, extra="allow", validate_default=True)

    model: GenerativeModelName
    conditional: bool = Field(False, description="one model of several classes, sampled by label; else of one")
    makes: tuple[str, ...] | None = MAKES
    centres: tuple[str, ...] | None = Field(None, min_length=1, description="members; all providers when left out")
    transport: Transport = Field("fp32", description="how weights, images and gradients travel")
    fidelity: FidelityChoice = FidelityChoice()

    _hyper: Any = PrivateAttr(None)
    _training: Any = PrivateAttr(None)

    @model_validator(mode="after")
    def _check(self) -> GenerativeArm:
        hyper, training = generative_settings(self.model, dict(self.model_extra or {}), self.not_here())
        self.__pydantic_private__ = {
            "_hyper": hyper, "_training": training.model_copy(update={"steps": self.training_steps}),
        }  # fmt: skip
        self.check_arm()
        return self

    @classmethod
    def not_here(cls) -> dict[str, str]:
        """Training keys that the arm sets itself."""
        return {
            "steps": "the arm's other keys say how long it trains",
            "snapshot_from": "only the last generator is shared",
            "snapshot_every": "only the last generator is shared",
            "choose_snapshot": "only the last generator is shared",
        }

    def check_arm(self) -> None:
        """What is wrong with the arm's own keys, as ValueError."""

    @property
    def training_steps(self) -> int:
        """Length of the training schedule in steps."""
        raise NotImplementedError

    def written(self) -> dict[str, Any]:
        training = self._training.model_dump(mode="json")
        return self._hyper.model_dump(mode="json") | {k: v for k, v in training.items() if k not in self.not_here()}

    @property
    def trains_generator(self) -> bool:
        return True

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Resolved settings of the model."""
        return self._hyper.model_dump(mode="json")

    @property
    def training(self) -> dict[str, Any]:
        """Resolved settings of its training."""
        return self._training.model_dump(mode="json")


class InRounds(Section):
    """Keys of every strategy that works in rounds; see `strategies.rounds.RoundSettings`."""

    rounds: int = Field(20, ge=1)
    local_steps: int = Field(100, ge=1, description="training steps of a centre in a round (paper 002: 100)")


class GenerativeInRounds(InRounds, GenerativeArm):
    """An arm that trains its generative model in rounds."""

    @property
    def training_steps(self) -> int:
        return self.rounds * self.local_steps


class Together(InRounds):
    """Keys of strategies whose rounds have several answers."""

    quorum: int | None = Field(None, ge=1, description="answers that make a round; more than half when left out")
    round_timeout_s: float | None = Field(
        None, gt=0, description="after this a round ends with the answers that are there; none: wait for all"
    )


class Averaged(Together):
    """Keys of strategies that average; see `strategies.aggregation`."""

    aggregation: str = Field("FedAvg", description="any of Flower's, by name")
    aggregation_options: dict[str, float | int] = Field({}, description="its parameters, e.g. {eta: 0.01}")
    proximal_mu: float = Field(0.0, ge=0, description="weight of FedProx's proximal term in every local loss")
    secure_aggregation: bool | None = Field(
        None,
        description="the server learns the sum of the members' weights only; when left out: true where the aggregation needs the mean "
        "alone and there are three members or more",
    )

    @model_validator(mode="after")
    def _aggregation(self) -> Averaged:
        check_aggregation(self.aggregation, self.aggregation_options)
        if self.secure_aggregation and needs_single_answers(self.aggregation):
            raise ValueError(
                f"secure_aggregation is true, but aggregation {self.aggregation} compares the weights of single centres, which a "
                "secure sum hides; name FedAvg or a server optimizer (FedAvgM, FedAdam, ...), or set secure_aggregation: false"
            )
        return self

    def summed(self, members: int) -> bool:
        """Whether so many members give sums only."""
        wanted = (
            not needs_single_answers(self.aggregation) if self.secure_aggregation is None else self.secure_aggregation
        )
        return wanted and members >= LEAST

    def sum_problems(self, name: str, members: int) -> Iterator[str]:
        """A sum that so few members cannot hide in."""
        if self.secure_aggregation and members < LEAST:
            yield (
                f"arms.{name}.secure_aggregation: true, but {members} centres train together, and a sum of fewer than {LEAST} "
                "shows what single ones gave; add centres, or set secure_aggregation: false"
            )
