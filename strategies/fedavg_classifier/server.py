"""A classifier that receiver and providers train together, by federated averaging (McMahan et al. 2017; FedProx by choice).

The alternative to sharing generators that a consortium would otherwise pick. Every centre takes local steps on its own
patches, class-balanced as all classifiers here are trained; the weights are averaged, weighted by number of patches. The
receiver's cell decides: its own training subset takes part, its validation patches choose the round (by AUPRC, with batch
norm's statistics recomputed on its own images), and it may fine-tune what was chosen. The same loop over rounds as for
generators; see `strategies.rounds`.

No moving average of weights is kept within a round: the average over centres takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from federation.wire.centres import Centres
from federation.wire.clock import Clock
from federation.wire.exchange import Exchange, gather
from federation.wire.units import Units, digest
from models import ClassifierSpec
from models.federated_parts import averaged_state, parts
from strategies.aggregation import Aggregator
from strategies.ask import Ask
from strategies.members import FederationFailed, Member, RoundSettings
from strategies.planned import FederationRecord, Learned, ServerHalf, problems_of
from strategies.rounds import Outcome, Rounds
from strategies.sums import Sums


@dataclass(frozen=True)
class ClassifierFederation:
    """One cell of the study, trained by several centres.

    Attributes:
        spec: may name a file of pretrained weights, which are read here; the initial weights travel.
        seed: of the initial weights.
        members: receiver first.
        validation, adoption: what is asked of the receiver.
        select: which round is adopted: the best on validation, or the last.
        sums: where the server learns sums only.
    """

    arm: str
    task: str
    label: str
    spec: ClassifierSpec
    seed: int
    members: Sequence[Member]
    settings: RoundSettings
    aggregation: str
    options: Mapping[str, Any]
    validation: Ask
    adoption: Ask
    select: Literal["best", "last"]
    sums: Sums | None = None

    @property
    def asks(self) -> tuple[Ask, ...]:
        """All that it asks of the centres."""
        opening = () if self.sums is None else self.sums.every_ask
        return (*(member.ask for member in self.members), *opening, self.validation, self.adoption)


class ClassifierTrainedTogether(ServerHalf[Learned]):
    """Trains one classifier over several centres and has the receiver adopt the best round."""

    def __init__(self, units: Units, federation: ClassifierFederation, clock: Clock):
        self._units, self._federation, self._clock = units, federation, clock
        self._rounds: Rounds | None = None

    def share(self, centres: Centres) -> Exchange[Learned]:
        try:
            return (yield from self._train(centres))
        except FederationFailed as problem:
            record = None if self._rounds is None else replace(self._record(self._rounds.done), failed=str(problem))
            return Learned(None, record, (str(problem),))

    def _record(self, done: Outcome) -> FederationRecord:
        f = self._federation
        return FederationRecord(
            f.arm, f.task, "fedavg_classifier", "federation", done.round, done.summary, self._clock.rows, [],
            f.settings.transport,
        )  # fmt: skip

    def _train(self, centres: Centres) -> Exchange[Learned]:
        f = self._federation
        network = f.spec.build(f.seed)
        initial = {name: tensor.numpy() for name, tensor in averaged_state(network).items()}
        key = digest({
            "classifier": [f.arm, f.task, f.spec.model_dump(mode="json"), f.seed, f.validation.json, f.aggregation, dict(f.options)],
            "settings": vars(f.settings), "code": self._units.code, "clock": self._clock.identity,
            "members": [member.identity(self._units) for member in f.members],
        })  # fmt: skip

        def after_round(done: Outcome, now_s: float) -> Exchange[list[dict[str, Any]]]:
            job = f.validation.job(
                self._units, inputs=[done.identity], arrays=_named(done.weights),
                label=f"{f.label} · validation of round {done.round}", federation=key, round=done.round,
            )  # fmt: skip
            (reply,) = yield from gather([job])
            auprc = reply.body.get("val_auprc")
            if not reply.ok or not isinstance(auprc, float):
                raise FederationFailed(f"{f.label}: centre {reply.centre!r} could not validate it ({reply.code})")
            # Equal rounds: the latest, as in `fit_classifier`.
            if f.select == "last" or all(auprc >= row["val_auprc"] for row in done.measured):
                done.best = dict(done.weights)
            return [{"round": done.round, "val_auprc": auprc, "virtual_s": now_s}]

        self._rounds = Rounds(
            self._units, centres, key=key, label=f.label, members=f.members,
            settings=f.settings, clock=self._clock, initial=initial, after_round=after_round, sums=f.sums,
            aggregator=Aggregator(f.aggregation, f.options, [n for n, part in parts(network).items() if part == "statistic"]),
        )  # fmt: skip
        done = yield from self._rounds.run()
        best = max(done.measured, key=lambda row: (f.select == "best" and row["val_auprc"], row["round"]))
        history = {
            "step": [row["round"] * f.settings.local_steps for row in done.measured],
            "val_auprc": [row["val_auprc"] for row in done.measured],
            "stage": ["federated"] * len(done.measured),
        }
        job = f.adoption.job(
            self._units, inputs=[done.identity], arrays=_named(done.best), label=f.label, history=history,
            best={"step": best["round"] * f.settings.local_steps, "val_auprc": best["val_auprc"]},
            federation=key,
        )  # fmt: skip
        (reply,) = yield from gather([job])
        record = self._record(done)
        if not reply.ok:
            problems = problems_of([reply])
            return Learned(None, replace(record, failed=problems[0]), tuple(problems))
        return Learned(reply, record)


def _named(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"weights.{name}": array for name, array in weights.items()}
