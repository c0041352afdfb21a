"""dm-GAN (paper 003): keys and plan; see `server` for the algorithm, `local` for a centre's half."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from models import GENERATIVE_MODELS, GeneratorSpec
from strategies.ask import Ask, Check, anything
from strategies.dm_gan.local import DISCRIMINATE, GradientRules
from strategies.dm_gan.phases import no_discriminator, remote_problem
from strategies.dm_gan.server import RemoteTraining
from strategies.dm_gan.settings import DmGANPlan, DmGANSettings
from strategies.dm_gan.sizes import LARGEST_JOB, job_problem
from strategies.fidelity import FEATURE_SUMS, MEASURE
from strategies.fidelity_plan import planned_fidelity
from strategies.generative import GenerativeStrategy, build_seed, member_fixed
from strategies.keys import GenerativeArm
from strategies.kind import layout_bytes
from strategies.layouts import fastest_rate_of
from strategies.members import STEP_AT_MOST, Member
from strategies.planned import Planned, Shared, Training, split_evenly
from strategies.view import View


class RemoteArm(GenerativeArm):
    """Keys of strategies with the generator on the server; see `DmGANSettings`."""

    updates: int = Field(400, ge=1, description="updates of the generator")
    batches_per_job: int = Field(8, ge=1, le=64, description="training steps of a discriminator in one job")
    steps: Literal["each", "mean"] | None = Field(
        None, description="optimizer steps of an update: one for each batch of a job, or one with their mean"
    )
    weights: Literal["patches", "equal"] = Field("patches", description="of the centres")
    clip: float | None = Field(None, gt=0, description="largest norm of a gradient that leaves a centre")
    noise: float = Field(0.0, ge=0, description="noise on it, as a multiple of clip")

    def check_arm(self) -> None:
        if not GENERATIVE_MODELS[self.model].adversarial:
            raise ValueError(no_discriminator(self.model))
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


class DmGANArm(RemoteArm):
    """Keys of an arm."""

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


class Remote(GenerativeStrategy):
    """The generator is trained on the server, discriminators at the centres."""

    kinds = (FEATURE_SUMS, DISCRIMINATE, MEASURE)

    def settings(self, view: View, arm: Any) -> DmGANSettings:
        """How the exchange is run. In a deployment centres choose the size of their jobs by the measured round trip."""
        own = {key: getattr(arm, key) for key in DmGANSettings.__dataclass_fields__ if key in type(arm).model_fields}
        rules = GradientRules(clip=arm.clip, noise=arm.noise)
        return DmGANSettings(**own | {
            "steps": arm.steps_of_update, "gradients": rules, "step_s": view.step_s, "adapt": view.deployed,
        })  # fmt: skip

    def model_problem(self, spec: GeneratorSpec, arm: Any) -> str | None:
        problem = remote_problem(spec, arm.sends_images)
        if problem is None and arm.sends_images:
            problem = job_problem(spec, arm.batches_per_job, arm.transport)
        return problem

    def trainings(self, view: View, name: str, arm: Any, task: str, spec: GeneratorSpec) -> list[Planned[Shared]]:
        members, settings = view.members(arm), self.settings(view, arm)
        # Asynchronous centres share the updates by their speed; a plan without faults gives each the same.
        answers = split_evenly(
            settings.updates * (len(members) if settings.lock_step else settings.quorum), len(members)
        )
        asked = [
            Member(self._ask(view, name, arm, task, spec, settings, centre, jobs))
            for centre, jobs in zip(members, answers, strict=True)
        ]
        plan = DmGANPlan(
            arm=name, task=task, strategy=self.name, spec=spec, build_seed=build_seed(view, name, task), members=tuple(asked),
            settings=settings, fidelity=planned_fidelity(view, self.name, name, arm, task, spec, settings.updates, counts=True),
        )  # fmt: skip
        return [Planned(
            self.name, plan.asks, lambda units, clock: RemoteTraining(units, plan, clock), purpose=f"{name}/{task}",
            members=members, describes=Training(name, task, spec, members, at_server=True),
        )]  # fmt: skip

    def _ask(
        self,
        view: View,
        name: str,
        arm: Any,
        task: str,
        spec: GeneratorSpec,
        settings: DmGANSettings,
        centre: str,
        jobs: int,
    ) -> Ask:
        fixed = member_fixed(view, name, arm, task, spec, centre) | {
            "exchange": settings.exchange, "gradients": settings.gradients, "transport": settings.transport,
            "swap_every": settings.swap_every,
        }  # fmt: skip
        others = set(view.members(arm)) - {centre}
        # Of an asynchronous update the fastest centre may give every answer; what came too late, or twice, comes on top.
        most = 2 * settings.updates * (1 if settings.lock_step else settings.quorum)
        step = STEP_AT_MOST * fastest_rate_of(spec)
        free: dict[str, Check] = {
            "version": lambda body: 0 <= body.version <= settings.updates,
            "batches": lambda body: 1 <= body.batches <= max(LARGEST_JOB, settings.batches_per_job),
            "from_step": lambda body: body.from_step >= 0,
            "send_discriminator": lambda body: not body.send_discriminator or (
                settings.swap_every is not None and (body.version + 1) % settings.swap_every == 0
            ),
            "labels": lambda body: bool(body.labels) and set(body.labels) <= set(spec.labels),
            "discriminator_of": lambda body: not body.discriminator_of or (
                settings.swap_every is not None and body.version >= settings.swap_every
                and body.discriminator_of in others
            ),
            **dict.fromkeys(("federation", "fresh", "state_unit", "introduce", "signature"), anything),
        }  # fmt: skip
        example = {"batches": settings.batches_per_job, "send_discriminator": False, "discriminator_of": ""}
        ask = Ask(
            DISCRIMINATE,
            self.name,
            centre,
            task,
            fixed,
            free,
            times=jobs,
            at_most=most,
            reach=step * (settings.batches_per_job if settings.steps == "each" else 1),
            steps=settings.batches_per_job,
            example=example,
        )
        return ask if not settings.swap_every else _with_swaps(ask, settings.updates, settings.swap_every)


def _with_swaps(ask: Ask, updates: int, every: int) -> Ask:
    """The same, with the bytes of discriminators that change places."""
    swapped = ask.kind.body.model_construct(**ask.fixed, **(dict(ask.example) | {"send_discriminator": True}))
    size = (layout_bytes(ask.kind.layout_out(swapped)) or 0) - (ask.bytes_up or 0)
    return replace(ask, extra_up=updates // every * size, extra_down=(updates - 1) // every * size)


class DmGAN(Remote):
    """One generator on the server, a discriminator at every centre; nobody waits for the slowest (paper 003)."""

    name, title, keys = "dm_gan", "a generator trained by remote discriminators", DmGANArm
