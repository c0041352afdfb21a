"""The section "Messages": a table of what was sent, each centre by itself or, of many centres, by kind of work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from reports.kinds import kind_name
from reports.messages import BODY_BYTES, TOLERANCE, Line, lines, total, traffic
from reports.quantities import bytes_text, duration
from reports.tables import count_text
from reports.time_figures import BYTE_BAR_CENTRES, byte_bars
from reports.timeline import Event

# Of more centres than this the table shows kinds of work, not centres.
CENTRES_SHOWN = 20
# Centres that are named for not being as expected, where the table does not show them.
_NAMED = 5
_DIFFERS = "\N{NOT EQUAL TO} "


def message_section(
    events: Sequence[Event], expected: Sequence[dict[str, Any]], centres: Sequence[str]
) -> dict[str, Any] | None:
    """Table, bars and a sentence on what was not as expected; None when nothing was sent or expected.

    expected: the entries of expected.json. centres: in the scenario's order.
    """
    found = lines(traffic(events), expected, centres)
    if not found:
        return None
    of_centres = len({line.centre for line in found})
    many = of_centres > CENTRES_SHOWN
    return {
        "table": _by_kind(found) if many else _by_centre(found),
        "bars": byte_bars(found),
        "verdict": _verdict(found, many) if expected else "",
        "bars_caption": f"The {BYTE_BAR_CENTRES} of {of_centres} centres with the most." if many else "",
        "wide": many or bool(expected),
    }


def _verdict(found: Sequence[Line], many: bool) -> str:
    odd = [line for line in found if line.differing]
    if not odd:
        return f"Messages and bytes are within {100 * TOLERANCE:.0f} % of what was expected before the run."
    count = f"{count_text(len(odd))} of {count_text(len(found))} lines differ{'s' if len(odd) == 1 else ''}"
    text = (
        f"{count} by more than {100 * TOLERANCE:.0f} % from what was expected before the run (marked {_DIFFERS.strip()}). "
        "A job that failed or was lost, and a run that is not complete, send less than expected; a job that was sent again "
        "sends more."
    )
    if many:
        first = f"The first {_NAMED}: " if len(odd) > _NAMED else "Namely "
        text += f" {first}{'; '.join(_instead(line) for line in odd[:_NAMED])}."
    return text


def _instead(line: Line) -> str:
    """ "c07, train a classifier: 3 instead of 5 messages"."""
    assert line.expected is not None
    name = line.differing[0]
    m, e = getattr(line.measured, name), getattr(line.expected, name)
    what = {"messages": "messages", "down": "to the centre", "up": "from the centre"}[name]
    one, other = (str(m), str(e)) if name == "messages" else (bytes_text(m), bytes_text(e))
    return f"{line.centre}, {kind_name(line.kind)}: {one} instead of {other} {what}"


# -- each centre ---------------------------------------------------------------------------------------------------


def _by_centre(found: Sequence[Line]) -> dict[str, Any]:
    predicted = found[0].expected is not None
    header = ["Centre", "Work"]
    for name in ("Messages", "To the centre", "From the centre"):
        header += [name, "expected"] if predicted else [name]
    header += ["Steps, expected", "Computing"] if predicted else ["Computing"]
    rows = [_row(line) for line in found] + [_row(total(found))]
    return {
        "caption": _caption(predicted),
        "header": header,
        "text": [True, True] + [False] * (len(header) - 2),
        "rows": rows,
    }


def _row(line: Line) -> list[str]:
    m, e, odd = line.measured, line.expected, line.differing
    cells = [line.centre, kind_name(line.kind)]
    for name, words in (("messages", count_text), ("down", bytes_text), ("up", bytes_text)):
        cells.append((_DIFFERS if name in odd else "") + words(getattr(m, name)))
        if e is not None:
            cells.append(_predicted(getattr(e, name), words))
    if e is not None:
        cells.append(_predicted(e.steps, count_text))
    return [*cells, duration(m.seconds)]


def _predicted(value: int | None, words: Callable[[float], str]) -> str:
    return "–" if value is None else words(value)


def _caption(predicted: bool) -> str:
    text = "Bodies and arrays of the messages, without the transport's own bytes; each unit of work once."
    if predicted:
        text += (
            " Expected are arrays only: where none were, a message of up to "
            f"{BODY_BYTES // 1000} kB is as expected. “–”: it could not be known before the run."
        )
    return text


# -- many centres --------------------------------------------------------------------------------------------------


def _by_kind(found: Sequence[Line]) -> dict[str, Any]:
    predicted = found[0].expected is not None
    rows = []
    for kind in dict.fromkeys(line.kind for line in found):
        own = [line for line in found if line.kind == kind]
        rows.append(_measured_row(own))
        if predicted:
            rows.append(_expected_row(own))
    everything = total(found)
    m = everything.measured
    rows.append(["All", "measured", count_text(len({line.centre for line in found})), count_text(m.messages), "",
                 bytes_text(m.down), "", bytes_text(m.up), "", duration(m.seconds)])  # fmt: skip
    return {
        "caption": _caption(predicted) + " Per centre: smallest / median / largest.",
        "header": ["Work", "", "Centres", "Messages", "per centre", "To centres", "per centre", "From centres", "per centre",
                   "Computing"],
        "text": [True, True] + [False] * 8,
        "rows": rows,
    }  # fmt: skip


def _measured_row(own: Sequence[Line]) -> list[str]:
    m = total(own).measured
    odd = {name for line in own for name in line.differing}
    cells = [kind_name(own[0].kind), "measured", count_text(sum(line.measured.messages > 0 for line in own))]
    for name, words in (("messages", count_text), ("down", bytes_text), ("up", bytes_text)):
        cells.append((_DIFFERS if name in odd else "") + words(getattr(m, name)))
        cells.append(_spread([getattr(line.measured, name) for line in own], words))
    return [*cells, duration(m.seconds)]


def _expected_row(own: Sequence[Line]) -> list[str]:
    predictions = [line.expected for line in own if line.expected is not None]
    e = total(own).expected
    cells = ["", "expected", count_text(sum(p.messages != 0 for p in predictions))]
    for name, words in (("messages", count_text), ("down", bytes_text), ("up", bytes_text)):
        values = [getattr(p, name) for p in predictions]
        cells.append(_predicted(getattr(e, name), words))
        cells.append("–" if None in values else _spread(values, words))
    return [*cells, ""]


def _spread(values: Sequence[int], words: Callable[[float], str]) -> str:
    """ "3 / 5 / 5"; one number where all are equal."""
    low, middle, high = min(values), float(np.median(values)), max(values)
    return words(low) if low == high else " / ".join(words(value) for value in (low, middle, high))
