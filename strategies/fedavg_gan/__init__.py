"""Federated averaging of GANs: keys and plan; see `server` for the algorithm, `local` for a centre's half."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from models import GeneratorSpec
from strategies.aggregation import check_aggregation, reach_after
from strategies.ask import Check, anything
from strategies.fedavg_gan.local import SUM_KINDS, TRAIN_ROUND, TRAIN_SUMMED_ROUND, LocalRules
from strategies.fedavg_gan.server import FederatedTraining, Federation
from strategies.fidelity import FEATURE_SUMS, MEASURE, SUMMED_FEATURES
from strategies.fidelity_plan import Fidelity, planned_fidelity
from strategies.generative import GenerativeStrategy, build_seed, member_fixed
from strategies.keys import Averaged, GenerativeInRounds
from strategies.kind import Kind
from strategies.layouts import fastest_rate_of
from strategies.members import STEP_AT_MOST, Member, RoundSettings, round_ask, round_settings
from strategies.planned import Planned, Shared, Training
from strategies.pooled import Move
from strategies.sums import SUMMED_FREE, Sums, planned_sums
from strategies.view import Facts, View

Series = Literal["federation", "alone", "central"]


class FedAvgGANArm(Averaged, GenerativeInRounds):
    """Keys of an arm."""

    strategy: Literal["fedavg_gan"]
    optimizer: Literal["keep", "reset"] = Field("keep", description="moments of the centres' optimizers over rounds")
    batch_norm: Literal["average", "local"] = Field("average", description="running statistics of batch norm")
    average_ema: Literal["average", "rebuild"] = Field(
        "average", description="the generators' moving averages: averaged, or rebuilt on the server"
    )
    alone: bool = Field(False, description="also train every member by itself, for the convergence plot")


class InRounds(GenerativeStrategy):
    """Members train in rounds, from the same weights."""

    kinds: ClassVar[tuple[Kind, ...]] = (FEATURE_SUMS, TRAIN_ROUND, MEASURE)
    turns: ClassVar[Literal["all", "cyclic"]] = "all"

    def rules(self, arm: Any) -> LocalRules:
        """What the arm's keys say of the centres' half."""
        return LocalRules(optimizer=arm.optimizer, batch_norm=arm.batch_norm)

    def sums(self, view: View, arm: Any, of: str, members: tuple[str, ...]) -> Sums | None:
        """How the rounds are summed; None: the server sees each member's weights."""
        return None

    def measured(self, view: View, name: str, arm: Any, task: str, spec: GeneratorSpec) -> Fidelity:
        """How the generators of an arm are measured, those of all its series."""
        return planned_fidelity(view, self.name, name, arm, task, spec, arm.rounds)

    def trainings(self, view: View, name: str, arm: Any, task: str, spec: GeneratorSpec) -> list[Planned[Shared]]:
        measured = self.measured(view, name, arm, task, spec)
        return [self.training(view, name, arm, spec, measured, "federation", view.members(arm), self.rules(arm))]

    def training(
        self, view: View, name: str, arm: Any, spec: GeneratorSpec, measured: Fidelity, series: Series, members: tuple[str, ...],
        rules: LocalRules, pooled: tuple[Move, ...] = (),
    ) -> Planned[Shared]:  # fmt: skip
        """One federation.

        Args:
            measured: all of an arm are measured against the same patches; a thousand centres alone share one plan of that.
            members: that work; one alone, and a central model, are there to compare with: plain local training, without
                what belongs to averaging over a line.
        """
        comparing, task = series != "federation", measured.task
        sums = None if comparing else self.sums(view, arm, f"{name}/{task}", members)
        kind = TRAIN_ROUND if sums is None else TRAIN_SUMMED_ROUND
        settings = (
            RoundSettings(arm.rounds, arm.local_steps, step_s=view.step_s)
            if comparing
            else round_settings(arm, view.step_s)
        )
        asked = []
        averaged = "FedAvg" if comparing else getattr(arm, "aggregation", "FedAvg")
        options = {} if comparing else getattr(arm, "aggregation_options", {})
        reach = reach_after(averaged, options, STEP_AT_MOST * fastest_rate_of(spec) * settings.local_steps)
        for number, centre in enumerate(members):
            rounds = len(range(number, settings.rounds, len(members))) if self.turns == "cyclic" else settings.rounds
            fixed = member_fixed(view, name, arm, task, spec, centre) | {"rules": rules}
            free: dict[str, Check] = {"pools": anything} if pooled else {}
            fixed |= {} if pooled else {"pools": ()}
            if sums is not None:
                fixed, free = fixed | sums.fixed, free | SUMMED_FREE
            asked.append(Member(round_ask(
                kind, self.name, centre, task, settings, fixed, free, times=rounds, steps=settings.local_steps,
                reach=reach,
            )))  # fmt: skip
        federation = Federation(
            arm=name, task=task, strategy=self.name, series=series, spec=spec, build_seed=build_seed(view, name, task),
            members=asked, settings=settings, rules=rules,
            aggregation=averaged, options=options,
            fidelity=measured,
            turns=self.turns, pooled=pooled, sums=sums,
        )  # fmt: skip
        return Planned(
            self.name, federation.asks, lambda units, clock: FederatedTraining(units, federation, clock),
            purpose=f"{name}/{task}" + (f"/{members[0]}" if series == "alone" else ""), members=members, faults=not comparing,
            describes=None if series == "alone" else Training(name, task, spec, members),
        )  # fmt: skip


class FedAvgGAN(InRounds):
    """Generator and discriminator are trained at every centre and averaged in rounds (paper 002)."""

    name, title, keys = "fedavg_gan", "GANs averaged in rounds", FedAvgGANArm
    kinds = (*InRounds.kinds, SUMMED_FEATURES, TRAIN_SUMMED_ROUND, *SUM_KINDS.all)

    def problems(self, facts: Facts, name: str, arm: FedAvgGANArm) -> Iterator[str]:
        yield from super().problems(facts, name, arm)
        yield from aggregation_problems(name, arm, len(facts.members(arm)))

    def sums(self, view: View, arm: FedAvgGANArm, of: str, members: tuple[str, ...]) -> Sums | None:
        if not arm.summed(len(members)):
            return None
        return planned_sums(SUM_KINDS, self.name, of, members, arm.rounds, view.deployed)

    def measured(self, view: View, name: str, arm: FedAvgGANArm, task: str, spec: GeneratorSpec) -> Fidelity:
        members, together = view.members(arm), None
        # With `alone` the server sees what each centre by itself has learned, and all series have one reference.
        if arm.summed(len(members)) and not arm.alone:
            together = planned_sums(SUM_KINDS, self.name, f"features/{name}/{task}", members, 1, view.deployed)
        return planned_fidelity(view, self.name, name, arm, task, spec, arm.rounds, together=together)

    def rules(self, arm: FedAvgGANArm) -> LocalRules:
        return LocalRules(
            optimizer=arm.optimizer, batch_norm=arm.batch_norm, ema=arm.average_ema, proximal_mu=arm.proximal_mu
        )

    def trainings(
        self, view: View, name: str, arm: FedAvgGANArm, task: str, spec: GeneratorSpec
    ) -> list[Planned[Shared]]:
        planned = super().trainings(view, name, arm, task, spec)
        measured = self.measured(view, name, arm, task, spec)
        for centre in view.members(arm) if arm.alone else ():
            planned.append(self.training(view, name, arm, spec, measured, "alone", (centre,), LocalRules()))
        return planned


def aggregation_problems(name: str, arm: Averaged, members: int) -> Iterator[str]:
    """An aggregation that so few members cannot have."""
    try:
        check_aggregation(arm.aggregation, arm.aggregation_options, members)
    except ValueError as problem:
        yield f"arms.{name}.aggregation: {problem}"
    yield from arm.sum_problems(name, members)
