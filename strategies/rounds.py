"""A federation in rounds: the weights go out, every centre works on them for a while, the answers are averaged.

The loop of McMahan et al. (2017), with what a real consortium needs and Flower's loop lacks: a quorum and a time limit per
round, centres that drop out and come back (also with an empty state), progress that survives a restart of either side, and
nothing averaged that is not of this round, of this model and finite. `fedavg_gan`, `cyclic`, `pooled_gan` and
`fedavg_classifier` are this loop with different local work, members and turns.

Longer than most files, because it is one loop with the record from which it goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from federation.secure_sum.fixed_point import added, mean_of
from federation.secure_sum.rules import LEAST
from federation.wire.centres import Centres
from federation.wire.clock import Arrival, Clock
from federation.wire.exchange import Exchange
from federation.wire.job import Job, Reply
from federation.wire.transport import decode, encode_noting_error
from federation.wire.units import Units, digest
from strategies.aggregation import Aggregator
from strategies.members import (
    GLOBAL,
    LOCAL,
    FederationFailed,
    Member,
    RoundSettings,
    Summary,
    Weights,
    sound,
    summary_of,
)
from strategies.sum_rounds import SumRounds
from strategies.sums import Sums


@dataclass
class Outcome:
    """What a federation leaves.

    Attributes:
        weights: the last averaged weights, by name.
        identity: id of the weights: a hash of everything they depend on.
        images_of: real images that each centre saw in rounds that were used.
        best: weights that `after_round` chose to keep.
        facts: of each centre, the body of its first good reply, in which it introduces itself.
    """

    weights: Weights
    identity: str
    round: int = 0
    summary: Summary = field(default_factory=Summary)
    images_of: dict[str, int] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    measured: list[dict[str, Any]] = field(default_factory=list)
    best: Weights = field(default_factory=dict)


Correction = Callable[[int, Weights, Weights], Weights]
AfterRound = Callable[[Outcome, float], Exchange[list[dict[str, Any]]]]


@dataclass
class _Local:
    """The server's view of a centre's state."""

    version: int = 0
    chain: str = ""
    fresh: int = 0
    made_by: str = ""


class Rounds:
    """One federation.

    Args:
        key: id of everything that the federation depends on; names its progress and the centres' states.
        members: in the order in which their answers are averaged.
        turns: all: every member in every round; cyclic: one after the other.
        initial: weights of the first round.
        at_server: names among `initial` that do not travel and are not averaged.
        correct: (round, those before, averaged weights) -> those after the round.
        after_round: called with (outcome so far, seconds of the clock) after each round; its rows are kept in
            `Outcome.measured`.
        images_in: real images that a member sees in each round.
        introduction: what the body of a member's first reply must hold.
        sums: where the answers are summed; None: weights as they are.
    """

    def __init__(
        self,
        units: Units,
        centres: Centres,
        *,
        key: str,
        label: str,
        members: Sequence[Member],
        settings: RoundSettings,
        aggregator: Aggregator,
        clock: Clock,
        initial: Weights,
        turns: Literal["all", "cyclic"] = "all",
        at_server: Sequence[str] = (),
        correct: Correction | None = None,
        after_round: AfterRound | None = None,
        images_in: Sequence[int] = (),
        introduction: Sequence[str] = (),
        sums: Sums | None = None,
    ):
        self._units, self._centres, self._key, self._label = units, centres, key, label
        self._kind = members[0].ask.kind.name
        self._members = {member.centre: member for member in members}
        self._settings, self._aggregator, self._clock = settings, aggregator, clock
        self._images_in = images_in
        self._turns, self._correct, self._after_round = turns, correct, after_round
        self._local = {name: _Local() for name in self._members}
        self._at_server, self._introduction = frozenset(at_server), tuple(introduction)
        self._done = Outcome(initial, digest([key, "initial"]))
        self._sums, self._masks = sums, None
        if sums is not None and sums.masked:
            self._masks = SumRounds(units, centres, clock, key=key, label=label, sums=sums, settings=settings)

    @property
    def done(self) -> Outcome:
        """What the federation has come to, also when it failed."""
        return self._done

    def run(self) -> Exchange[Outcome]:
        """All rounds that are not recorded yet.

        Raises:
            FederationFailed: a round found no quorum.
        """
        self._resume()
        done = self._done
        while done.round < self._settings.rounds:
            used, replies, examples = yield from self._answers()
            done.round += 1
            averaged = self._aggregator.aggregate(done.round, self._travelling, replies, examples)
            if not all(np.isfinite(array).all() for array in averaged.values()):
                raise FederationFailed(
                    f"{self._label}: the weights of round {done.round} are not finite; lower learning_rate or aggregation_options"
                )
            if self._correct is not None:
                here = {name: done.weights[name] for name in done.weights if name in self._at_server}
                averaged |= self._correct(done.round, here, averaged)
            done.weights = averaged
            done.identity = digest([self._key, done.round, done.identity, [reply.unit for reply in used]])
            seen = self._images_in[done.round - 1] if self._images_in else 0
            for reply in used:
                done.facts.setdefault(reply.centre, reply.body)
                done.images_of[reply.centre] = done.images_of.get(reply.centre, 0) + seen
            if self._after_round is not None:
                done.measured += yield from self._after_round(done, self._clock.now)
            self._save()
            self._centres.discard(reply.unit for reply in used)
            if self._masks is not None:
                self._centres.discard(self._masks.take_spent())
        return done

    # -- one round -----------------------------------------------------------------------------------------------

    def _answers(self) -> Exchange[tuple[list[Reply], list[Weights], list[int]]]:
        """The good replies of one round, and what is averaged: weights and how much each counts, or the mean of all of them."""
        if self._sums is None:
            used = yield from self._round()
            return used, [self._weights_in(reply) for reply in used], [int(reply.body["examples"]) for reply in used]
        if self._masks is None:
            used = yield from self._round()
            total = added(reply.arrays for reply in used)
        else:
            used, total = yield from self._masked_round(self._masks)
        try:
            mean, weight = mean_of(total)
        except ValueError as problem:
            raise FederationFailed(
                f"{self._label}: round {self._done.round + 1}: {problem}; begin the run anew"
            ) from None
        before = self._done.weights
        return used, [{name: mean[LOCAL + name].astype(before[name].dtype) for name in self._travelling}], [weight]

    def _masked_round(self, masks: SumRounds) -> Exchange[tuple[list[Reply], Weights]]:
        """The survivors' replies, and their sum. Whoever is lost after it gave its input is in the sum; before, it is not."""
        number, local = self._done.round, {name: replace(own) for name, own in self._local.items()}
        encoded, good, needed = self._encoded(), dict[str, Reply](), LEAST
        for _ in range(self._settings.attempts + 1):
            names = self._turn()
            group = yield from masks.prepared(number, names, self._done.summary)
            needed = max(self._quorum(len(names)), masks.least)
            if masks.decided or len(group) >= needed:
                good = {}
                for name in group:
                    self._send(name, masks.attempt, encoded)
                yield from self._listen(good, masks.attempt, encoded, needed)
                if masks.decided or len(good) >= needed:
                    total = yield from masks.opened(good, self._done.summary)
                    return [good[name] for name in self._members if name in good], total
            # Nothing of this session will be used, and the next one builds on the same states.
            self._local = {name: replace(own) for name, own in local.items()}
            masks.again()
        raise FederationFailed(
            f"{self._label}: round {number + 1} had {len(good)} good answers and {needed} are needed for its secure sum; no answer from "
            f"{', '.join(name for name in self._members if name not in good)}; bring them back and resume"
        )

    def _turn(self) -> list[str]:
        """Whose turn it is, without those that are gone for good."""
        summary, clock = self._done.summary, self._clock
        names = [n for n in self._members if not (n in summary.gone and clock.gone(n))] or list(self._members)
        if self._turns == "all":
            return names
        names = [n for n in names if not clock.unreachable(n)] or names
        return [names[self._done.round % len(names)]]

    def _quorum(self, asked: int) -> int:
        """Good answers needed when so many centres are asked."""
        least = self._aggregator.least if self._sums is None else LEAST
        return 1 if self._turns == "cyclic" else max(self._settings.quorum_of(asked), least)

    def _round(self) -> Exchange[list[Reply]]:
        """The good replies of one round, in the members' order."""
        settings, clock, gone = self._settings, self._clock, self._done.summary.gone
        good: dict[str, Reply] = {}
        encoded = self._encoded()
        attempt = 0
        while True:
            # Asked anew before each attempt: a centre may have gone for good meanwhile.
            names = self._turn()
            quorum = self._quorum(len(names))
            missing = [name for name in names if name not in good]
            if len(good) >= quorum:
                return [good[name] for name in self._members if name in good]
            if attempt == settings.attempts or all(name in gone and clock.gone(name) for name in missing):
                raise FederationFailed(
                    f"{self._label}: round {self._done.round + 1} had {len(good)} good answers and the quorum is {quorum}; "
                    f"no answer from {', '.join(name for name in self._members if name not in good)}; "
                    "bring them back and resume, or lower quorum"
                )
            for name in missing:
                self._send(name, attempt, encoded)
            yield from self._listen(good, attempt, encoded, quorum)
            attempt += 1

    def _listen(self, good: dict[str, Reply], attempt: int, encoded: Weights, quorum: int) -> Exchange[None]:
        """Add good replies until all are here, or time is up and a quorum is here."""
        settings, clock = self._settings, self._clock
        until = math.inf if settings.round_timeout_s is None else clock.now + settings.round_timeout_s
        time_is_up = False
        while clock.outstanding and not (time_is_up and len(good) >= quorum):
            arrival = yield from clock.next(until)
            if arrival is None:
                until, time_is_up = math.inf, True  # without a quorum there is nothing to average: wait on
            elif (reply := self._judge(arrival, attempt, encoded)) is not None:
                good[arrival.centre] = reply
        for arrival in clock.drop_outstanding():
            self._done.summary.late += 1
            clock.note(arrival, self._done.round, self._kind, "late")

    @property
    def _travelling(self) -> Weights:
        return {name: array for name, array in self._done.weights.items() if name not in self._at_server}

    def _encoded(self) -> Weights:
        weights = self._travelling
        try:
            encoded, error = encode_noting_error(weights, self._settings.transport)
        except ValueError as problem:  # larger than the format can hold
            raise FederationFailed(f"{self._label}: after round {self._done.round}: {problem}") from None
        self._note_error(error)
        return {GLOBAL + name: array for name, array in encoded.items()}

    def _send(self, name: str, attempt: int, encoded: Weights) -> None:
        job = self._job(name, attempt, encoded)
        self._done.summary.jobs += 1
        self._clock.send(
            job,
            work_s=self._settings.local_steps * self._settings.step_s,
            bytes_up=sum(a.nbytes if self._sums is None else 8 * a.size for a in encoded.values()),
        )

    def _job(self, name: str, attempt: int, encoded: Weights) -> Job:
        member, local, number = self._members[name], self._local[name], self._done.round
        steps = self._settings.local_steps
        found = dict(member.found)
        if self._sums is not None:
            found |= {"session": "", "shares": {}} if self._masks is None else self._masks.found(name)
        label = f"{self._label} · round {number + 1} of {self._settings.rounds}"
        job = member.ask.job(
            self._units, inputs=[self._done.identity, local.chain, *member.inputs], arrays=encoded, label=label,
            federation=self._key, round=number, from_step=number * steps, fresh=local.fresh, attempt=attempt,
            introduce=name not in self._done.facts, state_unit=local.made_by, **found,
        )  # fmt: skip
        return replace(job, expects_state=local.version)

    def _judge(self, arrival: Arrival, attempt: int, encoded: Weights) -> Reply | None:
        """The reply if it can be averaged; a centre without its state is asked again, to begin anew."""
        clock, summary, local, reply = self._clock, self._done.summary, self._local[arrival.centre], arrival.reply
        number = self._done.round
        if reply is None:
            summary.lost += 1
            clock.note(arrival, number, self._kind, arrival.fate.lost or "lost")
            if clock.unreachable(arrival.centre):
                summary.gone.setdefault(arrival.centre, clock.now)
            return None
        summary.gone.pop(arrival.centre, None)
        if reply.code == "state_lost" and local.version:
            summary.state_lost.append((arrival.centre, number))
            clock.note(arrival, number, self._kind, "refused")
            local.version, local.fresh, local.chain, local.made_by = 0, number + 1, digest(["fresh", number]), ""
            self._send(arrival.centre, attempt, encoded)
            return None
        problem = self._trouble_with(reply)
        if problem:
            summary.refused[f"{arrival.centre}: {problem}"] = summary.refused.get(f"{arrival.centre}: {problem}", 0) + 1
            clock.note(arrival, number, self._kind, "refused")
            self._centres.discard([reply.unit])  # a resumed run asks again instead of reading it once more
            return None
        local.version, local.chain, local.made_by = local.version + 1, reply.unit, reply.unit
        summary.used += 1
        self._note_error(float(reply.body.get("transport_error", 0.0)))
        clock.note(arrival, number, self._kind, "used")
        return reply

    def _trouble_with(self, reply: Reply) -> str:
        """A code for why a reply cannot be averaged; empty: it can."""
        if not reply.ok:
            return reply.code
        if self._sums is not None:  # integers, of the names and shapes that the kind declares
            there = () if reply.centre in self._done.facts else self._introduction
            return "" if all(name in reply.body for name in there) else "bad_body"
        # Finite as it travelled; a scale may still be too large for what it multiplies.
        if not all(np.isfinite(array).all() for array in self._weights_in(reply).values()):
            return "not_finite"
        introduction = () if reply.centre in self._done.facts else self._introduction
        return "" if sound(reply.body, ("examples",), introduction) else "bad_body"

    def _weights_in(self, reply: Reply) -> Weights:
        arrays = {name.removeprefix(LOCAL): array for name, array in reply.arrays.items() if name.startswith(LOCAL)}
        return decode(arrays, self._settings.transport)

    def _note_error(self, error: float) -> None:
        self._done.summary.transport_error = max(self._done.summary.transport_error, error)

    # -- progress ------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        done = self._done
        info = {
            "identity": done.identity, "round": done.round, "summary": asdict(done.summary), "images_of": done.images_of,
            "facts": done.facts, "measured": done.measured, "clock": self._clock.state(),
            "local": {name: asdict(local) for name, local in self._local.items()},
        }  # fmt: skip
        arrays = {GLOBAL + k: v for k, v in done.weights.items()}
        arrays |= {f"aggregator.{k}": v for k, v in self._aggregator.state().items()}
        arrays |= {f"best.{k}": v for k, v in done.best.items()}
        self._centres.save_progress(self._key, info, arrays)

    def _resume(self) -> None:
        saved = self._centres.load_progress(self._key)
        if saved is None:
            return
        info, arrays = saved
        self._done = Outcome(
            {k.removeprefix(GLOBAL): v for k, v in arrays.items() if k.startswith(GLOBAL)},
            info["identity"], info["round"], summary_of(info["summary"]), info["images_of"], info["facts"], info["measured"],
            {k.removeprefix("best."): v for k, v in arrays.items() if k.startswith("best.")},
        )  # fmt: skip
        self._aggregator.load_state(
            {k.removeprefix("aggregator."): v for k, v in arrays.items() if k.startswith("aggregator.")}
        )
        self._clock.load_state(info["clock"])
        self._local = {name: _Local(**local) for name, local in info["local"].items()}
