"""What a federation in rounds is made of: settings, members with what they are asked, what happened to its jobs, checks of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from federation.wire.transport import Transport
from federation.wire.units import Units
from strategies.ask import Ask, Check, anything
from strategies.kind import Kind

Weights = dict[str, np.ndarray]
GLOBAL, LOCAL = "global.", "weights."
# The largest change of one weight in one optimizer step, as a multiple of the learning rate. Adam moves a weight by about the rate, and
# in a rare step by several times as much (Kingma and Ba 2015, section 2.1). Over the rounds of the shipped scenarios it was 0.02 to 3.1.
STEP_AT_MOST = 8.0


class FederationFailed(Exception):
    """A federation cannot go on; the text says who is missing and what to do. What does not depend on it is finished."""


@dataclass(frozen=True)
class RoundSettings:
    """How rounds are run.

    Attributes:
        rounds: number of rounds.
        local_steps: training steps of a centre in a round.
        quorum: good answers that make a round; none: more than half of the centres that are not gone for good. At least as
            many as the aggregation needs.
        round_timeout_s: after this a round ends with the answers that are there, if they are a quorum; seconds of the clock.
        attempts: how often a round without a quorum asks the missing centres again.
        transport: how weights travel, both ways.
        step_s: seconds of one local step at speed 1, for a simulated clock.
    """

    rounds: int
    local_steps: int
    quorum: int | None = None
    round_timeout_s: float | None = None
    attempts: int = 5
    transport: Transport = "fp32"
    step_s: float = 1.0

    def quorum_of(self, centres: int) -> int:
        """Answers needed of so many centres."""
        return self.quorum if self.quorum is not None else centres // 2 + 1


@dataclass(frozen=True)
class Member:
    """One centre of a federation.

    Attributes:
        ask: what every job asks of this centre.
        found: values of the ask's free keys that are the same in every job (moved patches).
        inputs: units that its work depends on beside the weights.
    """

    ask: Ask
    found: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()

    @property
    def centre(self) -> str:
        return self.ask.centre

    def identity(self, units: Units) -> list[Any]:
        """What a federation's result depends on at this centre."""
        return [
            self.centre,
            self.ask.json,
            dict(self.found),
            list(self.inputs),
            *units.of_centre(self.centre, self.ask.task),
        ]


def round_ask(
    kind: Kind, strategy: str, centre: str, task: str, settings: RoundSettings, fixed: Mapping[str, Any],
    free: Mapping[str, Check] | None = None, *, times: int | None = None, steps: int = 0, reach: float | None = None,
) -> Ask:  # fmt: skip
    """The ask of a member of a federation in rounds, whose body is a `strategies.bodies.Course` and more.

    Args:
        fixed, free: of the member, beside the course.
        times: rounds in which it works; all when left out.
        steps: training steps of generative models in a round.
        reach: see `Ask`.
    """
    course: dict[str, Check] = {
        "round": lambda body: 0 <= body.round < settings.rounds,
        "from_step": lambda body: body.from_step == body.round * settings.local_steps,
    }
    course |= dict.fromkeys(("federation", "state_unit", "fresh", "attempt", "introduce"), anything)
    # A round whose sum came to nothing is masked anew, as another attempt.
    each = settings.attempts + 1 if "attempt" in kind.place else 1
    return Ask(
        kind, strategy, centre, task, {**fixed, "steps": settings.local_steps, "transport": settings.transport},
        {**course, **(free or {})}, times=settings.rounds if times is None else times, at_most=each * settings.rounds, steps=steps,
        reach=reach,
    )  # fmt: skip


@dataclass
class Summary:
    """What happened to a federation's jobs, for the table and the report (one entry of federations.json)."""

    jobs: int = 0
    used: int = 0
    lost: int = 0
    late: int = 0
    stale: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    state_lost: list[tuple[str, int]] = field(default_factory=list)
    transport_error: float = 0.0

    def __add__(self, other: Summary) -> Summary:
        """Of two federations of one arm."""
        refused = {k: self.refused.get(k, 0) + other.refused.get(k, 0) for k in {**self.refused, **other.refused}}
        return Summary(
            self.jobs + other.jobs, self.used + other.used, self.lost + other.lost, self.late + other.late,
            self.stale + other.stale, refused, {**other.gone, **self.gone}, self.state_lost + other.state_lost,
            max(self.transport_error, other.transport_error),
        )  # fmt: skip


def summary_of(stored: Mapping[str, Any]) -> Summary:
    """A `Summary` read from JSON, where tuples are lists."""
    return Summary(**{**stored, "state_lost": [(c, int(n)) for c, n in stored["state_lost"]]})


def sound(body: Mapping[str, Any], counts: Sequence[str], there: Sequence[str] = ()) -> bool:
    """Whether a reply's body has what the server computes with: counts above 0, a rounding error, and the keys `there`."""
    numbers = [body.get(name) for name in counts]
    error: Any = body.get("transport_error")
    return (
        all(type(number) is int and number > 0 for number in numbers)
        and type(error) in (int, float)
        and error >= 0
        and all(isinstance(body.get(name), Mapping) for name in there)
    )


def round_settings(arm: Any, step_s: float) -> RoundSettings:
    """How an arm's rounds are run.

    Args:
        arm: with the keys of `strategies.keys.InRounds`, maybe also of `Together`.
        step_s: see `RoundSettings`.
    """
    return RoundSettings(
        rounds=arm.rounds, local_steps=arm.local_steps, quorum=getattr(arm, "quorum", None),
        round_timeout_s=getattr(arm, "round_timeout_s", None), transport=arm.transport, step_s=step_s,
    )  # fmt: skip
