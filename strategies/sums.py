"""Rounds of which the server learns the sum only: bodies, kinds of jobs and asks; `strategies.sum_rounds` is the server's half.

A strategy that averages declares its training kind twice: once with weights in the answer, once with elements of the ring of
`federation.secure_sum.fixed_point` under the same names (`summed_layout`, `summed_answer`). In a simulation, where all centres are
one machine, these are added as they are; on real nodes they carry masks, and four more kinds of jobs open the sum.

Longer than most files, because bodies, answers, work and asks of a secure sum stand together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic import Field as Described

from federation.secure_sum.fixed_point import WEIGHT, to_ring
from federation.secure_sum.rules import LEAST
from strategies.ask import Ask, Check, anything
from strategies.centre_side import CentreSide
from strategies.kind import Answer, Answered, Array, Arrays, Body, Field, Kind, Layout, Phase
from strategies.layouts import prefixed
from strategies.members import LOCAL

_KEY = r"^[0-9a-f]{64}$"

# -- bodies ------------------------------------------------------------------------------------------------------------


class PublicKeys(Body):
    """A member's keys of one session, in hexadecimal digits; see `SumMember.keys`."""

    # Checked at both ends: what one member sends must not make the others stop.
    encryption: str = Described(pattern=_KEY)
    masking: str = Described(pattern=_KEY)
    signature: str = Described(pattern=r"^([0-9a-f]{2}){1,512}$")


class OfSum(Body):
    """Which sum a job belongs to.

    Attributes:
        sum_of: what is trained, as the scenario fixes it.
        sum_members: those that may take part.
        session: the server's number of the attempt.
    """

    sum_of: str
    sum_members: tuple[str, ...]
    session: str


class Summed(OfSum):
    """What a training job says whose answer is summed.

    Attributes:
        masked: False in a simulation.
        shares: by sender, what the others that take part encrypted for this centre.
    """

    masked: bool
    shares: dict[str, str]


class OfRound(OfSum):
    """One step of a sum.

    Attributes:
        round: from 0 on.
    """

    round: int


class Shares(OfRound):
    """Arguments of sharing: the keys of all members of the session."""

    keys: dict[str, PublicKeys]


class Survivors(OfRound):
    """Arguments of signing.

    Attributes:
        survivors: whose input is in the sum.
        next_session: of the next round, for which keys come with the answer; empty: none.
    """

    survivors: tuple[str, ...]
    next_session: str


class Opening(OfRound):
    """Arguments of opening.

    Attributes:
        signatures: of survivors under the list.
        next_session, next_keys: of the next round, for which shares come with the answer; empty: none.
    """

    signatures: dict[str, str]
    next_session: str
    next_keys: dict[str, PublicKeys]


# -- answers -----------------------------------------------------------------------------------------------------------


class KeysAnswer(Answered):
    keys: PublicKeys


class SharesAnswer(Answered):
    shares: dict[str, str]


class SurvivorsAnswer(Answered):
    signature: str
    keys: PublicKeys | None = None


class OpeningAnswer(Answered):
    opening: dict[str, dict[str, str]]
    shares: dict[str, str] | None = None


# -- work --------------------------------------------------------------------------------------------------------------


def _member(here: CentreSide, body: OfRound, session: str = "") -> Any:
    number = body.round + 1 if session else body.round
    return here.sum_member(body.sum_of, body.sum_members, number, session or body.session)


def _plain(keys: Mapping[str, PublicKeys]) -> dict[str, dict[str, str]]:
    return {name: own.model_dump() for name, own in keys.items()}


def make_keys(here: CentreSide, body: OfRound, arrays: Arrays) -> Answer:
    """This centre's keys of a session."""
    return {"keys": _member(here, body).keys()}, {}


def make_shares(here: CentreSide, body: Shares, arrays: Arrays) -> Answer:
    """Shares of its secrets, for each other member."""
    return {"shares": _member(here, body).shares(_plain(body.keys))}, {}


def sign_survivors(here: CentreSide, body: Survivors, arrays: Arrays) -> Answer:
    """Its signature under the list of survivors, and its keys of the next round."""
    answer: dict[str, Any] = {"signature": _member(here, body).survivors(body.survivors)}
    if body.next_session:
        answer["keys"] = _member(here, body, body.next_session).keys()
    return answer, {}


def open_sum(here: CentreSide, body: Opening, arrays: Arrays) -> Answer:
    """What takes the masks off the sum, and its shares of the next round."""
    answer: dict[str, Any] = {"opening": _member(here, body).opening(body.signatures)}
    if body.next_session:
        answer["shares"] = _member(here, body, body.next_session).shares(_plain(body.next_keys))
    return answer, {}


def summed_answer(here: CentreSide, body: Any, weights: Arrays, examples: int) -> Arrays:
    """Arrays of an answer that is summed.

    Args:
        body: a `Summed` with `round`.
        weights: what the centre has learned.
        examples: its weight in the mean.

    Raises:
        OutOfRange, SumRefused: see `federation.secure_sum`.
    """
    ring = to_ring({LOCAL + name: array for name, array in weights.items()}, examples, len(body.sum_members))
    return in_sum(here, body, ring)


def in_sum(here: CentreSide, body: Any, ring: Arrays) -> Arrays:
    """Elements of the ring as they leave: with masks, on a real node.

    Args:
        body: a `Summed` with `round`.

    Raises:
        SumRefused: see `federation.secure_sum`.
    """
    if not body.masked:
        return ring
    member = here.sum_member(body.sum_of, body.sum_members, body.round, body.session)
    return member.masked(ring, body.shares)


def summed_layout(layout: Layout) -> Layout:
    """Of the arrays of `summed_answer`, from that of the weights."""
    return prefixed({name: Array(array.shape, "uint64") for name, array in layout.items()}, LOCAL)


def weight_layout(body: Any) -> Layout:
    """Of the weight beside them."""
    return {WEIGHT: Array((1,), "uint64")}


SUMMED = (
    f"elements of a ring with masks that vanish in the sum over {LEAST} centres or more; by themselves they tell nothing, and the sum "
    "tells what all of them together have learned"
)


# -- kinds -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SumKinds:
    """The four kinds that open sums of one phase of a study."""

    keys: Kind
    shares: Kind
    survivors: Kind
    opening: Kind

    @property
    def all(self) -> tuple[Kind, ...]:
        return (self.keys, self.shares, self.survivors, self.opening)


def sum_kinds(phase: Phase, names: tuple[str, str, str, str]) -> SumKinds:
    """The kinds of a phase.

    Args:
        names: in the order of `SumKinds`.
    """
    keys = Field("keys", "public keys", "of this sum, signed by this centre")
    shares = Field("shares.*", "ciphertexts", "shares of this centre's secrets, which their recipients alone can read")
    signature = Field("signature", "signature", "under the list of those whose input is in the sum")
    opening = Field(
        "opening.*",
        "shares",
        "of masks: with those of enough others they open the sum over the survivors, and no single input",
    )

    def kind(
        name: str, title: str, body: type[Body], work: Callable[..., Answer], model: type[BaseModel], *fields: Field
    ) -> Kind:
        return Kind(name, title, phase, body, work, answer=fields, answer_model=model, once=True)

    when = "for the next round"
    return SumKinds(
        kind(names[0], "make keys of a secure sum", OfRound, make_keys, KeysAnswer, keys),
        kind(names[1], "share secrets of a secure sum", Shares, make_shares, SharesAnswer, shares),
        kind(names[2], "sign who is in a secure sum", Survivors, sign_survivors, SurvivorsAnswer, signature,
             Field(keys.name, keys.type, keys.tells, when=when)),
        kind(names[3], "open a secure sum", Opening, open_sum, OpeningAnswer, opening,
             Field(shares.name, shares.type, shares.tells, when=when)),
    )  # fmt: skip


# -- asks --------------------------------------------------------------------------------------------------------------

# Free keys of a `Summed` body.
SUMMED_FREE: dict[str, Check] = {"session": anything, "shares": lambda body: set(body.shares) <= set(body.sum_members)}


@dataclass(frozen=True)
class Sums:
    """How the rounds of a federation are summed.

    Attributes:
        of: see `OfSum.sum_of`.
        members: in a fixed order.
        masked: whether the centres are real nodes.
        asks: by centre, those of `SumKinds.all`; none where nothing is masked.
    """

    of: str
    members: tuple[str, ...]
    masked: bool
    asks: Mapping[str, tuple[Ask, Ask, Ask, Ask]]

    @property
    def fixed(self) -> dict[str, Any]:
        """Fixed keys of a `Summed` body."""
        return {"masked": self.masked, "sum_of": self.of, "sum_members": self.members}

    @property
    def every_ask(self) -> Iterator[Ask]:
        for asks in self.asks.values():
            yield from asks


def planned_sums(kinds: SumKinds, strategy: str, of: str, members: Sequence[str], rounds: int, masked: bool) -> Sums:
    """The sums of a federation of so many rounds.

    Two messages with each centre beside its training, and two once: keys and shares of the next round come with the answers.
    """
    names = tuple(members)
    fixed = {"sum_of": of, "sum_members": names}
    step: dict[str, Check] = {"round": lambda body: 0 <= body.round < rounds, "session": anything}

    def among(key: str) -> Check:
        return lambda body: set(getattr(body, key)) <= set(names)

    later: dict[str, Check] = {"next_session": anything}
    more: tuple[tuple[Kind, dict[str, Check], int], ...] = (
        (kinds.keys, {}, 1),
        (kinds.shares, {"keys": among("keys")}, 1),
        (kinds.survivors, {"survivors": among("survivors"), **later}, rounds),
        (kinds.opening, {"signatures": among("signatures"), "next_keys": among("next_keys"), **later}, rounds),
    )

    def asks(centre: str) -> Any:
        return tuple(
            Ask(kind, strategy, centre, None, fixed, {**step, **free}, times=times) for kind, free, times in more
        )

    return Sums(of, names, masked, {name: asks(name) for name in names} if masked else {})
