"""What was sent between the server and the centres, against what was expected before the run.

Sizes are those of the messages' bodies and arrays, without the transport's own bytes. A unit of work counts once, however
often a resumed run repeats it; units of settings that the newest session no longer has count not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.kinds import Kinds
from reports.timeline import Event, current_units

# Measured and expected differ when they are further apart than this share of what was expected.
TOLERANCE = 0.05
# Predictions leave out the JSON bodies (settings, histories, predicted probabilities): where no arrays were expected,
# a message with no more than this is as expected.
BODY_BYTES = 50_000


@dataclass(frozen=True)
class Traffic:
    """Messages of one kind, summed: how many, bytes to and from the centre, and seconds of computing there."""

    messages: int = 0
    down: int = 0
    up: int = 0
    seconds: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.messages + other.messages, self.down + other.down, self.up + other.up, self.seconds + other.seconds
        )


@dataclass(frozen=True)
class Predicted:
    """What was predicted of one kind; None: it could not be known."""

    messages: int | None = 0
    down: int | None = 0
    up: int | None = 0
    steps: int | None = 0

    def __add__(self, other: Predicted) -> Predicted:
        return Predicted(
            _sum(self.messages, other.messages), _sum(self.down, other.down), _sum(self.up, other.up),
            _sum(self.steps, other.steps),
        )  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One centre and kind of work, or a sum of such. `predicted` is None when the record holds no prediction at all."""

    centre: str
    kind: str
    measured: Traffic
    predicted: Predicted | None

    @property
    def differing(self) -> tuple[str, ...]:
        """Which of "messages", "down" and "up" are not as expected."""
        if self.predicted is None:
            return ()
        m, p = self.measured, self.predicted
        allowance = BODY_BYTES * m.messages
        pairs = {
            "messages": (m.messages, p.messages, 0),
            "down": (m.down, p.down, allowance),
            "up": (m.up, p.up, allowance),
        }
        return tuple(name for name, pair in pairs.items() if differs(*pair))


def differs(measured: float, expected: float | None, allowance: float = 0) -> bool:
    """Whether they are more than `TOLERANCE` of the expected value apart; of zero, more than `allowance`."""
    if expected is None:
        return False
    return measured > allowance if expected == 0 else abs(measured - expected) > TOLERANCE * expected


def traffic(events: Sequence[Event], kinds: Kinds) -> dict[tuple[str, str], Traffic]:
    """(centre, kind) -> what was measured: units of the newest session, and of a federation's rounds those of all sessions."""
    current = current_units(events)
    units = {
        e["unit"]: e for e in events
        if e["event"] == "unit_finished" and (e.get("unit") in current or kinds.is_rounds(str(e.get("kind"))))
    }  # fmt: skip
    found: dict[tuple[str, str], Traffic] = {}
    for e in units.values():
        key = (str(e.get("centre")), str(e.get("kind")))
        one = Traffic(1, int(e.get("bytes_down") or 0), int(e.get("bytes_up") or 0), float(e.get("seconds") or 0.0))
        found[key] = found.get(key, Traffic()) + one
    return found


def lines(
    measured: Mapping[tuple[str, str], Traffic], expected: Iterable[Mapping[str, Any]], centres: Sequence[str]
) -> list[Line]:
    """A line for each centre and kind that was measured or expected, centres in the order given, then by name.

    expected: the entries of expected.json; without any, nothing was predicted. What they do not name was not expected.
    """
    predicted = {
        (e["centre"], e["kind"]): Predicted(e["messages"], e["bytes_down"], e["bytes_up"], e["steps"]) for e in expected
    }
    place = {name: i for i, name in enumerate(centres)}
    keys = sorted(measured.keys() | predicted.keys(), key=lambda key: (place.get(key[0], len(place)), key))
    return [
        Line(
            centre,
            kind,
            measured.get((centre, kind), Traffic()),
            predicted.get((centre, kind), Predicted()) if predicted else None,
        )
        for centre, kind in keys
    ]


def total(found: Iterable[Line], centre: str = "All", kind: str = "") -> Line:
    """The sum of lines."""
    found = list(found)
    predictions = [line.predicted for line in found if line.predicted is not None]
    return Line(
        centre, kind,
        sum((line.measured for line in found), Traffic()),
        sum(predictions, Predicted()) if predictions else None,
    )  # fmt: skip


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b
