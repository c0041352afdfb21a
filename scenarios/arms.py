"""Arms of a scenario: for each strategy its keys, by the name that `strategy:` has in the YAML."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from federation.wire.transport import Transport
from metrics.feature_spaces import FeatureSpaceName
from models import GenerativeModelName
from scenarios.sections import Images, Schedule, Section, Study, Use, generative_settings, number_of_images
from strategies.aggregation import check_aggregation


class BaseArm(Section):
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
        return None if value is None else number_of_images(value)

    def settings(self, study: Study) -> Use:
        """The study's settings with this arm's changes."""
        own = {k: v for k in Use.model_fields if (v := getattr(self, k)) is not None}
        base = {k: getattr(study, k) for k in Use.model_fields}
        if self.schedule is not None:  # only the stages that the arm names
            named = {k: getattr(self.schedule, k) for k in self.schedule.model_fields_set}
            own["schedule"] = study.schedule.model_copy(update=named)
        return Use(**(base | own))


class LocalArm(BaseArm):
    """Nothing is shared: the receiver's own patches (the baseline)."""

    strategy: Literal["local"]
    oversample: int | None = Field(
        None,
        ge=1,
        description="control: this many of the receiver's own positives drawn again in place of synthetic ones",
    )


class GeneratorChoice(Section):
    """Which of an arm's generators a receiver uses; see `strategies.choice`."""

    by: Literal["distance", "validation"] = Field(
        description="distance to the receiver's training patches, or gain on its validation patches"
    )
    how: Literal["select", "weight"] = "select"
    keep: int = Field(1, ge=1, description="generators that are selected")
    space: FeatureSpaceName = Field("texture", description="feature space of the distance")


class OneShotArm(BaseArm):
    """Each provider's generator goes to the receiver once (paper 000)."""

    strategy: Literal["one_shot"]
    generators: tuple[str, ...] = Field(min_length=1)
    choose: GeneratorChoice | None = Field(None, description="use the best of them; all in equal parts when left out")


class PooledArm(BaseArm):
    """Real patches move to the receiver: an upper bound, in simulation only."""

    strategy: Literal["pooled"]
    centres: tuple[str, ...] = Field(min_length=1)
    patches: int | None = Field(None, ge=1, description="real patches per shared class; all when left out")


class FidelityChoice(Section):
    """How a generator's distance to real patches is measured while it is trained; see `strategies.fidelity`."""

    every: int = Field(1, ge=1, description="rounds (or updates) between two measurements")
    images: int = Field(256, ge=16, description="generated images of each class")
    spaces: tuple[FeatureSpaceName, ...] = Field(
        ("texture",), description="feature spaces; none: only pictures are drawn"
    )


class GenerativeArm(BaseArm):
    """An arm that trains one generative model together; its keys stand beside the arm's, as in `generators`."""

    model_config = ConfigDict(frozen=True, extra="allow", validate_default=True)

    model: GenerativeModelName
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


class InRounds(Section):
    """Keys of every strategy that works in rounds; see `strategies.rounds.RoundSettings`."""

    rounds: int = Field(20, ge=1)
    local_steps: int = Field(100, ge=1, description="training steps of a centre in a round (paper 002: 100)")


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

    @model_validator(mode="after")
    def _aggregation(self) -> Averaged:
        check_aggregation(self.aggregation, self.aggregation_options)
        return self


class FedAvgGANArm(Averaged, GenerativeArm):
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


class CyclicArm(InRounds, GenerativeArm):
    """The networks are passed from centre to centre, one at a time."""

    strategy: Literal["cyclic"]
    optimizer: Literal["keep", "reset"] = "keep"
    batch_norm: Literal["average", "local"] = "average"

    @property
    def training_steps(self) -> int:
        return self.rounds * self.local_steps


class PooledGANArm(InRounds, GenerativeArm):
    """The central model: real patches of all members move to the first, in simulation only."""

    strategy: Literal["pooled_gan"]

    @property
    def training_steps(self) -> int:
        return self.rounds * self.local_steps


class FedAvgClassifierArm(Averaged, BaseArm):
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


ARMS: dict[str, type[BaseArm]] = {
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
