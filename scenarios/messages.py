"""What a scenario will send: messages and bytes by centre and kind, predicted before anything runs.

Counts arrays, which are what takes time and what leaves a hospital; JSON bodies of some kilobytes are not counted. Pixels of
pooled arms cannot be known before the survey. Faults are not predicted: every job is sent once and answered.
"""

from __future__ import annotations

from dataclasses import dataclass

from scenarios.plan import Plan
from strategies import KINDS
from strategies.ask import distinct


@dataclass
class Expected:
    """Messages of one kind with one centre.

    Attributes:
        bytes_down, bytes_up: to and from the centre; None for pixels, whose number is not known before the survey.
        steps: training steps of generative models that they ask for.
    """

    centre: str
    kind: str
    messages: int = 0
    bytes_down: int | None = 0
    bytes_up: int | None = 0
    steps: int = 0


def expected_messages(plan: Plan) -> list[Expected]:
    """All messages of a run without faults, by kind in the order of the study and then by centre."""
    rows: dict[tuple[str, str], Expected] = {}
    for ask in distinct(plan.asks()):
        row = rows.setdefault((ask.kind.name, ask.centre), Expected(ask.centre, ask.kind.name))
        row.messages += ask.times
        row.bytes_down = _added(row.bytes_down, ask.bytes_down, ask.times, ask.extra_down)
        row.bytes_up = _added(row.bytes_up, ask.bytes_up, ask.times, ask.extra_up)
        row.steps += ask.times * ask.steps
    order = list(KINDS)
    return sorted(rows.values(), key=lambda row: order.index(row.kind))


def _added(total: int | None, each: int | None, times: int, extra: int) -> int | None:
    return None if total is None or each is None else total + each * times + extra


def answers_at(plan: Plan, centre: str) -> int:
    """How many different answers a study may be given by a centre."""
    return sum(ask.limit for ask in distinct(plan.asks()) if ask.centre == centre)
