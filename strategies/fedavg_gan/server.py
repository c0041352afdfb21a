"""Federated averaging of GANs (paper 002, a StyleGAN2-ADA trained by three centres; McMahan et al. 2017 for the averaging).

In every round each centre trains generator and discriminator on its own patches for a number of local steps, and the weights
are averaged, weighted by number of patches. What the paper leaves open is a choice here, each tested:

    averaged      weights of both networks and of the moving average of the generator; batch norm's statistics too
    by choice     statistics kept local (`batch_norm: local`); the moving average rebuilt on the server from the averaged
                  generators (`average_ema: rebuild`); optimizer moments begun anew in every round (`optimizer: reset`)
    never         other buffers, which are constant or follow from the schedule
    by the model  what it holds beside its networks (augmentation probability, path-length mean): averaged, local or constant
    local         optimizer moments

One centre alone gives bit for bit what training there without a federation gives: random streams are keyed by the
centre's local step, and the average of one is that one.

`cyclic` is the same with one centre at a time: the networks are passed from centre to centre. `pooled_gan` is a federation
of one centre that was given the patches of the others: the central model that the paper compares with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from federation.wire.centres import Centres
from federation.wire.clock import Clock
from federation.wire.exchange import Exchange
from federation.wire.units import Units, digest
from models import GeneratorSpec
from models.federated_parts import averaged_state, copy_constants, load_averaged, parts
from models.schedule import Schedule
from strategies.aggregation import Aggregator
from strategies.ask import Ask
from strategies.fedavg_gan.local import LocalRules, arrays_of, build
from strategies.fidelity_plan import Fidelity
from strategies.members import FederationFailed, Member, RoundSettings, Weights
from strategies.one_shot import preview_of
from strategies.planned import FederationRecord, Generated, ServerHalf, Shared, problems_of
from strategies.pooled import Move, move
from strategies.rounds import Correction, Outcome, Rounds
from strategies.sums import Sums

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Federation:
    """A federated training of one generative model for one task.

    Attributes:
        arm: its row in the table; the generator's name.
        strategy: fedavg_gan, cyclic or pooled_gan.
        series: federation, alone or central: which curve of the convergence plot it is.
        build_seed: of the initial weights.
        pooled: patches that move to the only member before the first round; see `strategies.pooled`.
        options: of the aggregation.
        sums: where the server learns sums only.
    """

    arm: str
    task: str
    strategy: str
    series: Literal["federation", "alone", "central"]
    spec: GeneratorSpec
    build_seed: int
    members: Sequence[Member]
    settings: RoundSettings
    rules: LocalRules
    aggregation: str
    options: Mapping[str, Any]
    fidelity: Fidelity
    turns: Literal["all", "cyclic"] = "all"
    pooled: tuple[Move, ...] = ()
    sums: Sums | None = None

    @property
    def asks(self) -> tuple[Ask, ...]:
        """All that it asks of the centres."""
        moved = [ask for one in self.pooled for ask in one.asks]
        # The reference of all members is the arm's, and is asked for once.
        sums = self.fidelity.of_members if self.series != "alone" else ()
        opening = () if self.sums is None else self.sums.every_ask
        return (*moved, *sums, *(member.ask for member in self.members), *opening, *self.fidelity.measuring)


class FederatedTraining(ServerHalf[Shared]):
    """Runs one `Federation`; its generator is shared under the arm's name, unless it is a centre alone."""

    def __init__(self, units: Units, federation: Federation, clock: Clock):
        self._units, self._federation, self._clock = units, federation, clock
        self._rounds: Rounds | None = None

    def share(self, centres: Centres) -> Exchange[Shared]:
        try:
            return (yield from self._share(centres))
        except FederationFailed as problem:
            failed = [replace(self._record(self._rounds.done), failed=str(problem))] if self._rounds else []
            return Shared(problems=[str(problem)], federations=failed)

    def _record(self, done: Outcome) -> FederationRecord:
        f = self._federation
        return FederationRecord(
            f.arm,
            f.task,
            f.strategy,
            f.series,
            done.round,
            done.summary,
            self._clock.rows,
            done.measured,
            f.settings.transport,
        )

    def _share(self, centres: Centres) -> Exchange[Shared]:
        f = self._federation
        members = list(f.members)
        if f.pooled:
            members = [(yield from self._pooled(centres, members[0]))]
        reference = yield from f.fidelity.reference(self._units, centres, self._clock)
        spec = f.spec
        model = build(spec, f.build_seed)
        initial, schedule = arrays_of(averaged_state(model)), Schedule(spec.training, model.phases())
        rounds = [schedule.images_before(number * f.settings.local_steps) for number in range(f.settings.rounds + 1)]
        plain = [
            name
            for name, part in parts(model).items()
            if part in ("statistic", "averaged") or name.startswith("average.")
        ]
        key = digest({
            "federation": [f.arm, f.task, f.strategy, f.series], "spec": spec.model_dump(mode="json"), "seed": f.build_seed,
            "settings": vars(f.settings), "rules": f.rules.model_dump(),
            "aggregation": [f.aggregation, dict(f.options), f.turns], "members": [m.identity(self._units) for m in members],
            "fidelity": [f.fidelity.identity, list(reference.units)],
            "code": self._units.code, "clock": self._clock.identity,
        })  # fmt: skip
        label = f.arm if f.series != "alone" else f"{f.arm}: {members[0].centre} alone"
        preview: list[tuple[np.ndarray, np.ndarray]] = []

        def after_round(done: Outcome, now_s: float) -> Exchange[list[dict[str, Any]]]:
            if not f.fidelity.due(done.round, f.settings.rounds):
                return []
            last = done.round == f.settings.rounds
            reply = yield from f.fidelity.measurement(
                self._units, reference, done.identity, self._shared_arrays(schedule, done), preview=last,
                label=f"fidelity of {label} after round {done.round}",
            )  # fmt: skip
            if last and (images := preview_of(reply)) is not None:
                preview.append(images)
            return [
                {
                    "series": f.series, "centre": member.centre, "round": done.round, "virtual_s": now_s, "metric": metric,
                    "images_seen": done.images_of.get(member.centre, 0), "value": value,
                    "floor": reference.floors[metric],
                }
                for metric, value in reply.body["distances"].items() for member in members
            ]  # fmt: skip

        self._rounds = Rounds(
            self._units, centres, key=key, label=label, members=members, settings=f.settings,
            aggregator=Aggregator(f.aggregation, f.options, plain), clock=self._clock, initial=initial, turns=f.turns,
            at_server=[name for name in initial if name.startswith("average.") and f.rules.ema == "rebuild"],
            correct=self._rebuild(schedule), after_round=after_round,
            introduction=("data_card", "trained_on"), images_in=np.diff(rounds).tolist(), sums=f.sums,
        )  # fmt: skip
        done = yield from self._rounds.run()
        record = self._record(done)
        if f.series == "alone":
            return Shared(federations=[record])
        if not preview:  # the run was ended after its last round: what was measured then is recorded
            reply = yield from f.fidelity.measurement(
                self._units, reference, done.identity, self._shared_arrays(schedule, done), preview=True,
                label=f"fidelity of {label} after round {done.round}",
            )  # fmt: skip
            preview += [images] if (images := preview_of(reply)) is not None else []
        card = {
            "data_card": {centre: facts["data_card"] for centre, facts in done.facts.items()},
            "trained_on": {centre: facts["trained_on"] for centre, facts in done.facts.items()},
            "history": {},
        }
        trained_at = (*(member.centre for member in members), *(one.send.centre for one in f.pooled))
        made = Generated(
            done.identity,
            spec,
            self._shared_arrays(schedule, done),
            trained_at,
            card,
            preview[0] if preview else None,
            reference.classes(spec),
        )
        return Shared(generators={(f.arm, f.task): made}, federations=[record], notes=list(reference.notes))

    def _pooled(self, centres: Centres, host: Member) -> Exchange[Member]:
        replies = yield from move(self._units, centres, self._federation.pooled)
        problems = problems_of(replies)
        if problems:
            raise FederationFailed("; ".join(problems))
        units = tuple(reply.unit for reply in replies)
        return Member(host.ask, {"pools": units}, units)

    def _shared_arrays(self, schedule: Schedule, done: Outcome) -> Weights:
        """What receivers get: the averaged generator alone, grown as far as the centres' were in their last step."""
        f = self._federation
        model = build(f.spec, f.build_seed)
        load_averaged(model, {name: torch.from_numpy(np.array(a)) for name, a in done.weights.items()})
        model.tell(schedule.moment(max(0, done.round * f.settings.local_steps - 1)))
        if model.average is not None:
            # What `tell` set in the generator is no part of a round's weights. Training copies it into the average.
            copy_constants(model.networks["generator"], model.average)
        return model.shared_arrays()

    def _rebuild(self, schedule: Schedule) -> Correction | None:
        """With `ema: rebuild`: a moving average on the server, in which a round counts as its local steps."""
        steps = self._federation.settings.local_steps
        if not schedule.training.averages or self._federation.rules.ema == "average":
            return None

        def correct(number: int, before: Weights, averaged: Weights) -> Weights:
            kept = math.prod(schedule.average_keeps(step) for step in range((number - 1) * steps, number * steps))
            rebuilt = {}
            for name, array in before.items():
                new = averaged["networks.generator." + name.removeprefix("average.")]
                # Statistics are averages already.
                rebuilt[name] = (
                    new if name.endswith(_STATISTICS) else (kept * array + (1 - kept) * new).astype(array.dtype)
                )
            return rebuilt

        return correct
