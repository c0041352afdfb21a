"""The schema of a scenario. Field names are the YAML keys; objects are frozen; unknown keys are refused.

`scenarios.reader` reads files and words errors; `scenarios.plan` turns a scenario into units of work.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from data_partitions import DealtSource, PartitionRule, PatchTask, Source, SplitRule
from data_partitions.dealt import AnySource
from federation.clock import Availability
from federation.transport import Transport
from metrics.feature_spaces import FEATURE_SPACES
from models import CLASSIFIERS, GENERATIVE_MODELS, ClassifierTraining, GenerativeTraining
from strategies.aggregation import check_aggregation

# Names become file names, array names and columns of tables.
LONGEST_NAME = 40
_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_\-]{{0,{LONGEST_NAME - 1}}}")
Fraction = Annotated[float, Field(gt=0, le=1)]
# A number of optimizer steps, or "100 epochs" of the stage's own training set.
Duration = int | str
# A number of images, or "4 per generator" of those that an arm brings to a receiver.
Images = int | str


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Outage(_Section):
    """From when to when a centre cannot be reached; without `to` it is gone for good."""

    from_s: float = Field(ge=0)
    to_s: float | None = None

    @model_validator(mode="after")
    def _order(self) -> Outage:
        if self.to_s is not None and self.to_s <= self.from_s:
            raise ValueError(f"to_s is {self.to_s:g} and from_s {self.from_s:g}; an outage ends after it began")
        return self


class SimulatedAvailability(_Section):
    """How a simulated centre behaves, in simulated seconds; see `federation.clock.Availability`."""

    speed: float = Field(1.0, gt=0, description="relative to the others: 0.5 takes twice as long")
    delay_s: float = Field(0.0, ge=0, description="one way, for every message")
    bandwidth_mbit_s: float | None = Field(None, gt=0, description="of its line; none: transfers take no time")
    dropout: float = Field(0.0, ge=0, lt=1, description="probability that a job is lost")
    outages: tuple[Outage, ...] = ()

    def build(self) -> Availability:
        """As the clock takes it."""
        outages = tuple((o.from_s, math.inf if o.to_s is None else o.to_s) for o in self.outages)
        return Availability(self.speed, self.delay_s, self.bandwidth_mbit_s, self.dropout, outages)


class SimulatedClock(_Section):
    """What simulated time is made of. Only strategies that exchange many jobs use it; see the report's section on it."""

    step_s: float = Field(1.0, gt=0, description="seconds of one local training step at speed 1")
    notice_s: float = Field(60.0, ge=0, description="until the server notices that a job is lost")


class Centre(_Section):
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


class Schedule(_Section):
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


class Use(_Section):
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
        return _number_of_images(value)

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


def _number_of_images(value: Any) -> Images:
    text = str(value)
    if not re.fullmatch(r"[1-9][0-9]*( per generator)?", text):
        raise ValueError("must be a number of images such as 600, or '4 per generator'")
    return int(text) if text.isdigit() else text


class ClassifierChoice(_Section):
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


class _Arm(_Section):
    """What all arms share: a title and settings of `study` that this arm changes."""

    title: str = ""
    control: bool = Field(False, description="a control that explains a result, not a candidate")
    receivers: tuple[str, ...] | None = Field(None, description="all receivers when left out")
    synthetic: Images | None = None
    classes: Literal["lesion", "both"] | None = None
    use: Literal["mix", "pretrain", "pretrain_mix", "only"] | None = None
    synthetic_share: float | Literal["by_count"] | None = None
    augmentation: Literal["none", "traditional"] | None = None
    normalise: Literal["none", "per_patch"] | None = None
    schedule: Schedule | None = None

    @field_validator("synthetic", mode="before")
    @classmethod
    def _images(cls, value: Any) -> Images | None:
        return None if value is None else _number_of_images(value)

    def settings(self, study: Study) -> Use:
        """The study's settings with this arm's changes."""
        own = {k: v for k in Use.model_fields if (v := getattr(self, k)) is not None}
        base = {k: getattr(study, k) for k in Use.model_fields}
        if self.schedule is not None:  # only the stages that the arm names
            named = {k: getattr(self.schedule, k) for k in self.schedule.model_fields_set}
            own["schedule"] = study.schedule.model_copy(update=named)
        return Use(**(base | own))


class LocalArm(_Arm):
    """Nothing is shared: the receiver's own patches (the baseline)."""

    strategy: Literal["local"]
    oversample: int | None = Field(
        None,
        ge=1,
        description="control: this many of the receiver's own positives drawn again in place of synthetic ones",
    )


class GeneratorChoice(_Section):
    """Which of an arm's generators a receiver uses; see `strategies.choice`."""

    by: Literal["distance", "validation"] = Field(
        description="distance to the receiver's training patches, or gain on its validation patches"
    )
    how: Literal["select", "weight"] = "select"
    keep: int = Field(1, ge=1, description="generators that are selected")
    space: str = Field("texture", description="feature space of the distance")

    @field_validator("space")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in FEATURE_SPACES:
            raise ValueError(f"known feature spaces: {', '.join(FEATURE_SPACES)}")
        return value


class OneShotArm(_Arm):
    """Each provider's generator goes to the receiver once (paper 000)."""

    strategy: Literal["one_shot"]
    generators: tuple[str, ...] = Field(min_length=1)
    choose: GeneratorChoice | None = Field(None, description="use the best of them; all in equal parts when left out")


class PooledArm(_Arm):
    """Real patches move to the receiver: an upper bound, in simulation only."""

    strategy: Literal["pooled"]
    centres: tuple[str, ...] = Field(min_length=1)
    patches: int | None = Field(None, ge=1, description="real patches per shared class; all when left out")


class FidelityChoice(_Section):
    """How a generator's distance to real patches is measured while it is trained; see `strategies.fidelity`."""

    every: int = Field(1, ge=1, description="rounds (or updates) between two measurements")
    images: int = Field(256, ge=16, description="generated images of each class")
    spaces: tuple[str, ...] = Field(("texture",), description="feature spaces; none: only pictures are drawn")

    @field_validator("spaces")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in FEATURE_SPACES:
                raise ValueError(f"holds {name!r}; known feature spaces: {', '.join(FEATURE_SPACES)}")
        return value


class GenerativeArm(_Arm):
    """An arm that trains one generative model together; its keys stand beside the arm's, as in `generators`."""

    model_config = ConfigDict(frozen=True, extra="allow", validate_default=True)

    model: str
    conditional: bool = Field(False, description="one model of both classes, sampled by label; else positives only")
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
        }

    def check_arm(self) -> None:
        """What is wrong with the arm's own keys, as ValueError."""

    @property
    def training_steps(self) -> int:
        """Length of the training schedule in steps."""
        raise NotImplementedError

    def written(self) -> dict[str, Any]:
        """The model's and the training's keys, resolved, as they are written beside the arm's own."""
        training = self._training.model_dump(mode="json")
        return self._hyper.model_dump(mode="json") | {k: v for k, v in training.items() if k not in self.not_here()}

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Resolved settings of the model."""
        return self._hyper.model_dump(mode="json")

    @property
    def training(self) -> dict[str, Any]:
        """Resolved settings of its training."""
        return self._training.model_dump(mode="json")


class _InRounds(_Section):
    """Keys of every strategy that works in rounds; see `strategies.rounds.RoundSettings`."""

    rounds: int = Field(20, ge=1)
    local_steps: int = Field(100, ge=1, description="training steps of a centre in a round (paper 002: 100)")


class _Together(_InRounds):
    """Keys of strategies whose rounds have several answers."""

    quorum: int | None = Field(None, ge=1, description="answers that make a round; more than half when left out")
    round_timeout_s: float | None = Field(
        None, gt=0, description="after this a round ends with the answers that are there; none: wait for all"
    )


class _Averaged(_Together):
    """Keys of strategies that average; see `strategies.aggregation`."""

    aggregation: str = Field("FedAvg", description="any of Flower's, by name")
    aggregation_options: dict[str, float | int] = Field({}, description="its parameters, e.g. {eta: 0.01}")
    proximal_mu: float = Field(0.0, ge=0, description="weight of FedProx's proximal term in every local loss")

    @model_validator(mode="after")
    def _aggregation(self) -> _Averaged:
        check_aggregation(self.aggregation, self.aggregation_options)
        return self


class FedAvgGANArm(_Averaged, GenerativeArm):
    """Generator and discriminator are trained at every centre and averaged in rounds (paper 002)."""

    strategy: Literal["fedavg_gan"]
    optimizer: Literal["keep", "reset"] = Field("keep", description="moments of the centres' optimizers over rounds")
    batch_norm: Literal["average", "local"] = Field("average", description="running statistics of batch norm")
    average_ema: Literal["average", "rebuild"] = Field(
        "average", description="the generators' moving averages: averaged, or rebuilt on the server"
    )
    alone: bool = Field(False, description="also train every member by itself, for the convergence plot")

    @property
    def training_steps(self) -> int:
        return self.rounds * self.local_steps


class CyclicArm(_InRounds, GenerativeArm):
    """The networks are passed from centre to centre, one at a time."""

    strategy: Literal["cyclic"]
    optimizer: Literal["keep", "reset"] = "keep"
    batch_norm: Literal["average", "local"] = "average"

    @property
    def training_steps(self) -> int:
        return self.rounds * self.local_steps


class PooledGANArm(_InRounds, GenerativeArm):
    """The central model: real patches of all members move to the first, in simulation only."""

    strategy: Literal["pooled_gan"]

    @property
    def training_steps(self) -> int:
        return self.rounds * self.local_steps


class FedAvgClassifierArm(_Averaged, _Arm):
    """Receiver and providers train the classifier together; no image is made."""

    strategy: Literal["fedavg_classifier"]
    centres: tuple[str, ...] | None = Field(
        None, min_length=1, description="who trains with each receiver; all providers when left out"
    )
    optimizer: Literal["keep", "reset"] = Field("reset", description="moments of the centres' optimizers over rounds")
    fine_tune: int = Field(0, ge=0, description="steps on the receiver's own patches after the last round")
    transport: Transport = Field("fp32", description="how weights travel")

    @model_validator(mode="after")
    def _no_images(self) -> FedAvgClassifierArm:
        for key in ("synthetic", "classes", "use", "synthetic_share", "schedule"):
            if getattr(self, key) is not None:
                raise ValueError(
                    f"{key} has no meaning here: no image is added, and rounds x local_steps is the schedule; remove it"
                )
        return self


class _DmGAN(GenerativeArm):
    """Keys of strategies with the generator on the server; see `strategies.dm_gan.DmGANSettings`."""

    updates: int = Field(400, ge=1, description="updates of the generator")
    batches_per_job: int = Field(8, ge=1, le=64, description="training steps of a discriminator in one job")
    steps: Literal["each", "mean"] | None = Field(
        None, description="optimizer steps of an update: one for each batch of a job, or one with their mean"
    )
    weights: Literal["patches", "equal"] = Field("patches", description="of the centres")
    clip: float | None = Field(None, gt=0, description="largest norm of a gradient that leaves a centre")
    noise: float = Field(0.0, ge=0, description="noise on it, as a multiple of clip")

    def check_arm(self) -> None:
        if self.model == "flow_matching":
            raise ValueError("model is 'flow_matching', which has no discriminator; name a GAN: dcgan, wgan_gp")
        if self.noise and self.clip is None:
            raise ValueError("noise is a multiple of clip, and clip is not set; set clip")

    @property
    def sends_images(self) -> bool:
        """Whether jobs hold generated images."""
        return getattr(self, "exchange", "images") == "images"

    @property
    def steps_of_update(self) -> Literal["each", "mean"]:
        """`steps`, resolved."""
        return self.steps or ("each" if self.sends_images else "mean")

    @property
    def training_steps(self) -> int:
        return self.updates * (self.batches_per_job if self.steps_of_update == "each" else 1)


class DmGANArm(_DmGAN):
    """One generator on the server, a discriminator at every centre; nobody waits for the slowest (paper 003)."""

    strategy: Literal["dm_gan"]
    lock_step: bool = Field(False, description="every update waits for every centre: the paper's algorithm 1")
    exchange: Literal["images", "generator"] = Field(
        "images", description="images: gradients with respect to images the server sent; generator: of weights"
    )
    quorum: int = Field(1, ge=1, description="answers of an update")
    update_timeout_s: float | None = Field(None, gt=0, description="after this an update takes what is there")
    max_staleness: int | None = Field(
        None, ge=0, description="updates after which an answer is dropped; twenty per centre when left out"
    )
    staleness_power: float = Field(0.5, ge=0, description="a in (1 + staleness)^-a")

    def check_arm(self) -> None:
        super().check_arm()
        if self.exchange == "generator" and self.steps == "each":
            raise ValueError("exchange generator returns one gradient per job; set steps: mean")
        if self.lock_step:
            for key in ("quorum", "update_timeout_s", "max_staleness"):
                if key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} has no meaning in lock-step, which waits for every centre; remove it")


class MdGANArm(_DmGAN):
    """As dm_gan in lock-step, with discriminators that change places (Hardy et al. 2019)."""

    strategy: Literal["md_gan"]
    swap_every: int = Field(10, ge=1, description="updates after which discriminators change places")


ARMS: dict[str, type[_Arm]] = {
    "local": LocalArm,
    "one_shot": OneShotArm,
    "pooled": PooledArm,
    "fedavg_gan": FedAvgGANArm,
    "cyclic": CyclicArm,
    "pooled_gan": PooledGANArm,
    "dm_gan": DmGANArm,
    "md_gan": MdGANArm,
    "fedavg_classifier": FedAvgClassifierArm,
}
Arm = Annotated[
    LocalArm
    | OneShotArm
    | PooledArm
    | FedAvgGANArm
    | CyclicArm
    | PooledGANArm
    | DmGANArm
    | MdGANArm
    | FedAvgClassifierArm,
    Field(discriminator="strategy"),
]


class Compute(_Section):
    """Where and how fast. Threads are a setting, never the free cores: they change results in the last bit."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    workers: int = Field(2, ge=1, description="jobs at once")
    threads_per_job: int = Field(1, ge=1)
    job_timeout_s: float | None = Field(None, gt=0, description="after this a job counts as failed; none: wait")


class Scenario(_Section):
    """A whole study."""

    name: str
    description: str = ""
    seed: int = Field(0, ge=0)
    repeats: int = Field(3, ge=1)
    centres: dict[str, Centre]
    partition: Partition | None = None
    task: Task | None = None
    tasks: tuple[Task, ...] = ()
    split: SplitRule = SplitRule()
    generators: dict[str, Generator] = {}
    arms: dict[str, Arm] = Field(min_length=1)
    study: Study = Study()
    compute: Compute = Compute()
    clock: SimulatedClock = SimulatedClock()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(
                f"must start with a letter and hold letters, digits, - and _ only ({LONGEST_NAME} at most): "
                "it names the run folder"
            )
        return value

    @field_validator("centres", "generators", "arms")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"name {name!r} must start with a letter and hold letters, digits, - and _ only "
                    f"({LONGEST_NAME} at most)"
                )
        return value

    @model_validator(mode="before")
    @classmethod
    def _dealt(cls, tree: Any) -> Any:
        """Give each centre of the partition its part of the archive as `data`."""
        raw = tree.get("partition") if isinstance(tree, dict) else None
        centres = tree.get("centres") if isinstance(tree, dict) else None
        if not isinstance(raw, dict) or not isinstance(centres, dict):
            return tree
        seed = tree.get("seed", 0)
        raw = {"seed": seed} | raw if isinstance(seed, int) else raw
        try:
            partition = Partition.model_validate(raw)
        except ValidationError:
            partition = None
        parts = {}
        for name, centre in centres.items():
            # What is wrong with a partition is said once, of the partition, not again of each of its centres.
            data: dict[str, Any] = {"source": "phantom", "patients": 1}
            if partition is not None and name in partition.centres:
                rule, archive = partition.rule.model_dump(mode="json"), partition.source.model_dump(mode="json")
                data = {"source": "dealt", "archive": archive, "partition": rule, "centre": name}
            elif partition is not None:
                continue
            if isinstance(centre, dict) and "data" not in centre:
                parts[name] = centre | {"data": data}
        return tree | {"partition": raw, "centres": centres | parts}

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        problems = list(_problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def all_tasks(self) -> tuple[Task, ...]:
        return self.tasks or ((self.task,) if self.task else ())

    @property
    def receivers(self) -> list[str]:
        return [name for name, centre in self.centres.items() if "receiver" in centre.roles]

    @property
    def providers(self) -> list[str]:
        return [name for name, centre in self.centres.items() if "provider" in centre.roles]

    def members(self, arm: Any, receiver: str | None = None) -> tuple[str, ...]:
        """The centres that train together in an arm, with the receiver first if it takes part as such."""
        centres = tuple(arm.centres or self.providers)
        return centres if receiver is None else (receiver, *(centre for centre in centres if centre != receiver))


def listed(names: Iterable[str], at_most: int = 12) -> str:
    """Names for a person to read: all of them, or of many the first ones, the last, and how many there are."""
    names = list(names)
    if len(names) <= at_most:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:3])}, ..., {names[-1]} ({len(names)})"


def _problems(s: Scenario):  # -> Iterator[str], each "key: what is wrong and what would be right"
    centres, providers, receivers = listed(s.centres), set(s.providers), set(s.receivers)
    if bool(s.task) == bool(s.tasks):
        yield "task: give exactly one of `task` (one) and `tasks` (a list)"
    for name in s.partition.centres if s.partition else ():
        if name not in s.centres:
            yield f"partition.centres: no centre {name!r}; centres: {centres}"
        elif not isinstance(s.centres[name].data, DealtSource):
            yield f"centres.{name}.data: the partition deals to {name!r}, too; remove it here or there"
    names = [t.name for t in s.all_tasks]
    if len(set(names)) != len(names):
        yield "tasks: two tasks have the same name; give each a name of its own"
    if not receivers:
        yield f"centres: no centre has the role receiver; centres: {centres}"
    if not providers and not any(g.package for g in s.generators.values()):
        yield f"centres: no centre has the role provider and no generator is a package, so nothing can be shared; centres: {centres}"
        return  # what follows from it would only repeat it
    for name, generator in s.generators.items():
        if generator.centre is not None and generator.centre not in s.centres:
            yield f"generators.{name}.centre: no centre {generator.centre!r}; centres: {centres}"
        elif generator.centre is not None and generator.centre not in providers:
            yield f"generators.{name}.centre: centre {generator.centre!r} lacks the role provider; add it to its roles"
        for task in generator.tasks or ():
            if task not in names:
                yield f"generators.{name}.tasks: no task {task!r}; tasks: {', '.join(names)}"
    for name in s.study.test_on:
        if name not in s.centres:
            yield f"study.test_on: no centre {name!r}; centres: {centres}"
    for name, arm in s.arms.items():
        for receiver in arm.receivers or ():
            if receiver not in receivers:
                yield f"arms.{name}.receivers: {receiver!r} is no receiver; receivers: {listed(s.receivers)}"
        yield from _arm_problems(s, name, arm, providers)


def _arm_problems(s: Scenario, name: str, arm: Any, providers: set[str]):
    settings = arm.settings(s.study)
    if isinstance(arm, OneShotArm):
        for generator_name in arm.generators:
            generator = s.generators.get(generator_name)
            if generator is None:
                yield f"arms.{name}.generators: no generator {generator_name!r}; generators: {listed(s.generators)}"
            elif settings.classes == "both" and generator.package is None and not generator.conditional:
                yield (
                    f"arms.{name}.classes: both, but generator {generator_name!r} is not conditional and makes positives only; "
                    f"set generators.{generator_name}.conditional: true or classes: lesion"
                )
        if settings.use == "only" and settings.classes != "both":
            yield f"arms.{name}.use: only, but classes: lesion shares no negatives; set classes: both"
        if arm.choose is not None and len(arm.generators) < 2:
            yield f"arms.{name}.choose: there is one generator and nothing to choose; name two, or remove choose"
        if settings.images(len(arm.generators)) < len(arm.generators):
            yield (
                f"arms.{name}.synthetic: {settings.synthetic} images from {len(arm.generators)} generators; "
                f"set it or study.synthetic to {len(arm.generators)} or more"
            )
    if isinstance(arm, PooledArm | GenerativeArm | FedAvgClassifierArm):
        for centre in arm.centres or ():
            if centre not in s.centres:
                yield f"arms.{name}.centres: no centre {centre!r}; centres: {listed(s.centres)}"
            elif centre not in providers:
                yield f"arms.{name}.centres: centre {centre!r} lacks the role provider; add it to its roles"
    if isinstance(arm, GenerativeArm):
        parts = s.study.sizes != [(1.0, None)]
        own = [centre for centre in arm.receivers or s.receivers if centre in s.members(arm)]
        if parts and own:
            yield (
                f"arms.{name}.centres: {own[0]!r} trains with all its patches and also receives, while cells of real_fraction or "
                f"real_images may use only a part of them; leave it out of centres, or use all of its patches"
            )
        if settings.classes == "both" and not arm.conditional:
            yield f"arms.{name}.classes: both, but its model is not conditional and makes positives only; set conditional: true"
        if settings.use == "only" and settings.classes != "both":
            yield f"arms.{name}.use: only, but classes: lesion shares no negatives; set classes: both"
    if isinstance(arm, _Together | DmGANArm):
        members = len(_members_at_least(s, arm))
        if arm.quorum is not None and arm.quorum > members:
            yield f"arms.{name}.quorum: {arm.quorum}, but the arm has {members} centres; lower quorum"
    if isinstance(arm, MdGANArm) and len(s.members(arm)) < 2:
        yield f"arms.{name}.centres: md_gan lets discriminators change places and has one centre; name two"
    if isinstance(arm, _Averaged):
        try:
            check_aggregation(arm.aggregation, arm.aggregation_options, len(_members_at_least(s, arm)))
        except ValueError as problem:
            yield f"arms.{name}.aggregation: {problem}"


def _members_at_least(s: Scenario, arm: Any) -> tuple[str, ...]:
    """The members of an arm; of a federated classifier with the receiver where they are fewest."""
    if not isinstance(arm, FedAvgClassifierArm):
        return s.members(arm)
    return min((s.members(arm, receiver) for receiver in arm.receivers or s.receivers), key=len)
