"""The server's half of rounds with secure sums: who is in a session, and what opens it.

A session belongs to one attempt of one round. Its keys and shares are asked for before the training; those of the next round come with
the answers that sign and open this one, so a round takes two exchanges beside its training. Where a centre left or is back, the
next round begins with keys and shares of its own.

Every decision is recorded before it is told to anybody. A server that was killed goes on with the same session, and once a list
of survivors was sent out, the round is finished with these survivors or not at all.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from federation.secure_sum.coordinator import SumFailed, unmasked
from federation.secure_sum.rules import LEAST, Session, least, threshold
from federation.wire.centres import Centres
from federation.wire.clock import Clock
from federation.wire.exchange import Exchange
from federation.wire.job import Reply
from federation.wire.units import Units, digest
from strategies.members import FederationFailed, RoundSettings, Summary
from strategies.sums import Sums

Keys = dict[str, dict[str, str]]
_KEYS, _SHARES, _SURVIVORS, _OPENING = range(4)


@dataclass
class _State:
    """What is decided. `shares` has those that take part; `survivors` are decided once the list may have been sent."""

    nonce: str
    round: int = -1
    attempt: int = 0
    keys: Keys = field(default_factory=dict)
    shares: Keys = field(default_factory=dict)
    survivors: list[str] = field(default_factory=list)
    next_keys: Keys = field(default_factory=dict)
    next_shares: Keys = field(default_factory=dict)


class SumRounds:
    """The sums of one federation.

    Args:
        key: of the federation.
    """

    def __init__(
        self, units: Units, centres: Centres, clock: Clock, *, key: str, label: str, sums: Sums, settings: RoundSettings
    ):  # fmt: skip
        self._units, self._centres, self._clock, self._key, self._label = units, centres, clock, key, label
        self._sums, self._settings, self._spent = sums, settings, list[str]()
        self._place = digest([key, "sums"])
        saved = centres.load_progress(self._place)
        # The nonce is this run's: a run of the same study anew has sessions of its own.
        self._state = _State(secrets.token_hex(8)) if saved is None else _State(**saved[0])

    @property
    def attempt(self) -> int:
        """Of the present round."""
        return self._state.attempt

    @property
    def decided(self) -> bool:
        """Whether the present round is summed over certain survivors or not at all."""
        return bool(self._state.survivors)

    @property
    def least(self) -> int:
        """Survivors that the present session needs."""
        return least(len(self._state.keys))

    def found(self, centre: str) -> dict[str, Any]:
        """Free keys of the training job of a member."""
        shares = {sender: own[centre] for sender, own in self._state.shares.items() if sender != centre}
        return {"session": self._number(self._state.round, self._state.attempt), "shares": shares}

    def take_spent(self) -> list[str]:
        """Units whose replies are not needed once the round is recorded."""
        units, self._spent = self._spent, []
        return units

    # -- before the training -------------------------------------------------------------------------------------

    def prepared(self, number: int, names: Iterable[str], summary: Summary) -> Exchange[list[str]]:
        """The members of a session of round `number`: those among `names` that gave keys and shares.

        Args:
            summary: told what was refused.
        """
        state, wanted = self._state, set(names)
        if state.round == number and state.survivors:
            return list(state.survivors)
        if state.round == number and state.shares:
            return list(state.shares)
        if state.round < number:
            ready = wanted <= set(state.next_shares)
            self._state = _State(state.nonce, number)
            if ready:
                self._state.keys, self._state.shares = state.next_keys, state.next_shares
                self._save()
                return list(self._state.shares)
        yield from self._agree(sorted(wanted), summary)
        return list(self._state.shares)

    def again(self) -> None:
        """The present session came to nothing: the next one has other keys."""
        state = self._state
        self._state = _State(state.nonce, state.round, state.attempt)
        self._save()

    def _agree(self, names: list[str], summary: Summary) -> Exchange[None]:
        state = self._state
        state.attempt += 1  # 0 is the session whose keys came with the round before
        self._save()
        keys = yield from self._ask(summary, _KEYS, names, len(names))
        if len(keys) < LEAST:
            return
        state.keys = {name: reply.body["keys"] for name, reply in sorted(keys.items())}
        self._save()  # before the list is sent: nobody may see another one
        shares = yield from self._ask(summary, _SHARES, list(state.keys), len(state.keys), keys=state.keys)
        state.shares = self._whole(state.keys, shares)
        self._save()

    def _whole(self, keys: Keys, replies: Mapping[str, Reply]) -> Keys:
        """Shares by sender, of those that gave one to every other."""
        found = {name: reply.body["shares"] for name, reply in sorted(replies.items())}
        return {name: own for name, own in found.items() if set(own) == set(keys) - {name}}

    # -- after the training --------------------------------------------------------------------------------------

    def opened(self, good: Mapping[str, Reply], summary: Summary) -> Exchange[dict[str, np.ndarray]]:
        """The sum over those that answered.

        Raises:
            FederationFailed: too few open it; the round can be resumed.
        """
        state = self._state
        state.survivors = state.survivors or sorted(good)
        self._save()
        gone = [name for name in state.survivors if name not in good]
        needed, number = threshold(len(state.keys)), state.round
        if gone:
            raise self._failed(f"{', '.join(gone)} no longer gives what it gave before")
        later = self._number(number + 1, 0) if number + 1 < self._settings.rounds else ""
        signed = yield from self._ask(
            summary, _SURVIVORS, state.survivors, needed, survivors=tuple(state.survivors), next_session=later
        )
        if len(signed) < needed:
            raise self._failed(f"{len(signed)} of them signed the list and {needed} are needed")
        signatures = {name: reply.body["signature"] for name, reply in sorted(signed.items())}
        next_keys = {name: reply.body["keys"] for name, reply in sorted(signed.items()) if reply.body.get("keys")}
        if len(next_keys) < LEAST:
            later, next_keys = "", {}
        opened = yield from self._ask(
            summary, _OPENING, list(signatures), needed, signatures=signatures, next_session=later, next_keys=next_keys
        )
        if len(opened) < needed:
            raise self._failed(f"{len(opened)} of them opened the sum and {needed} are needed")
        if later:
            shared = {name: reply for name, reply in opened.items() if reply.body.get("shares")}
            state.next_keys, state.next_shares = next_keys, self._whole(next_keys, shared)
        session = Session(self._units.scenario, self._sums.of, number, self._number(number, state.attempt))
        inputs = {name: good[name].arrays for name in state.survivors}
        openings = {name: reply.body["opening"] for name, reply in opened.items()}
        try:
            total = unmasked(session, state.keys, list(state.shares), inputs, openings)
        except SumFailed as problem:
            raise FederationFailed(f"{self._label}: round {number + 1}: {problem}; begin the run anew") from None
        self._save()
        return total

    def _failed(self, why: str) -> FederationFailed:
        state = self._state
        return FederationFailed(
            f"{self._label}: round {state.round + 1} is summed over {', '.join(state.survivors)} and over nobody else, but {why}; "
            "bring them back and resume"
        )

    # -- messages ------------------------------------------------------------------------------------------------

    def _number(self, number: int, attempt: int) -> str:
        return digest([self._key, self._state.nonce, number, attempt])

    def _ask(
        self, summary: Summary, which: int, names: Iterable[str], needed: int, **found: Any
    ) -> Exchange[dict[str, Reply]]:
        """Good answers by centre: of all, or of as many as are needed when the others cannot be reached or time is up."""
        state, clock, good = self._state, self._clock, dict[str, Reply]()
        for attempt in range(self._settings.attempts + 1):
            missing = [name for name in names if name not in good]
            if not missing or (attempt and len(good) >= needed) or (attempt and which in (_KEYS, _SHARES)):
                break
            for name in missing:
                ask = self._sums.asks[name][which]
                label = f"{self._label} · {ask.kind.title}, round {state.round + 1}"
                job = ask.job(
                    self._units,
                    label=label,
                    round=state.round,
                    session=self._number(state.round, state.attempt),
                    **found,
                )
                clock.send(job, work_s=0.0)
            until = math.inf if self._settings.round_timeout_s is None else clock.now + self._settings.round_timeout_s
            while clock.outstanding:
                arrival = yield from clock.next(until)
                if arrival is None:
                    break
                if arrival.reply is not None and arrival.reply.ok:
                    good[arrival.centre] = arrival.reply
                    self._spent.append(arrival.unit)
                elif arrival.reply is not None:
                    problem = f"{arrival.centre}: {arrival.reply.code}"
                    summary.refused[problem] = summary.refused.get(problem, 0) + 1
            clock.drop_outstanding()
        return good

    def _save(self) -> None:
        self._centres.save_progress(self._place, asdict(self._state), {})
