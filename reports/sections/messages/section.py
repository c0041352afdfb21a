"""The section "Messages": a table of what was sent, each centre by itself or, of many centres, by kind of work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from reports.kinds import Kinds
from reports.pictures import COLOURS, STYLE, WIDTH_IN, Picture, legend_above, picture
from reports.quantities import bytes_text, duration
from reports.section import Context, Section
from reports.sections.messages.traffic import BODY_BYTES, TOLERANCE, Line, lines, total, traffic
from reports.tables import count_text
from reports.timeline import Event

# Of more centres than this the table shows kinds of work, not centres.
CENTRES_SHOWN = 20
# Centres that are named for not being as expected, where the table does not show them.
_NAMED = 5
_DIFFERS = "\N{NOT EQUAL TO} "
BYTE_BAR_CENTRES = 20

_TEMPLATE = """
{% if verdict %}<p class="note">{{ verdict }}</p>{% endif %}
{% if wide %}{{ plain_table(table) }}
{% if bars %}{{ picture(bars, bars_caption) }}{% endif %}
{% else %}<div class="side"><div>{{ plain_table(table) }}</div>
<div>{% if bars %}{{ picture(bars) }}{% endif %}</div></div>{% endif %}
"""


def _build(context: Context) -> dict[str, Any] | None:
    return message_section(context.events, context.record.expected(), context.centres, context.kinds)


MESSAGES = Section("messages", "Messages", "Messages", _build, _TEMPLATE)


def message_section(
    events: Sequence[Event], expected: Sequence[dict[str, Any]], centres: Sequence[str], kinds: Kinds
) -> dict[str, Any] | None:
    """Table, bars and a sentence on what was not as expected; None when nothing was sent or expected.

    expected: the entries of expected.json. centres: in the scenario's order.
    """
    found = lines(traffic(events, kinds), expected, centres)
    if not found:
        return None
    of_centres = len({line.centre for line in found})
    many = of_centres > CENTRES_SHOWN
    return {
        "table": _by_kind(found, kinds) if many else _by_centre(found, kinds),
        "bars": byte_bars(found),
        "verdict": _verdict(found, many, kinds) if expected else "",
        "bars_caption": f"The {BYTE_BAR_CENTRES} of {of_centres} centres with the most." if many else "",
        "wide": many or bool(expected),
    }


def _verdict(found: Sequence[Line], many: bool, kinds: Kinds) -> str:
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
        text += f" {first}{'; '.join(_instead(line, kinds) for line in odd[:_NAMED])}."
    return text


def _instead(line: Line, kinds: Kinds) -> str:
    """ "c07, train a classifier: 3 instead of 5 messages"."""
    assert line.predicted is not None
    name = line.differing[0]
    m, e = getattr(line.measured, name), getattr(line.predicted, name)
    what = {"messages": "messages", "down": "to the centre", "up": "from the centre"}[name]
    one, other = (str(m), str(e)) if name == "messages" else (bytes_text(m), bytes_text(e))
    return f"{line.centre}, {kinds.title(line.kind)}: {one} instead of {other} {what}"


# -- each centre ---------------------------------------------------------------------------------------------------


def _by_centre(found: Sequence[Line], kinds: Kinds) -> dict[str, Any]:
    predicted = found[0].predicted is not None
    header = ["Centre", "Work"]
    for name in ("Messages", "To the centre", "From the centre"):
        header += [name, "expected"] if predicted else [name]
    header += ["Steps, expected", "Computing"] if predicted else ["Computing"]
    rows = [_row(line, kinds) for line in [*found, total(found)]]
    return {
        "caption": _caption(predicted),
        "header": header,
        "text": [True, True] + [False] * (len(header) - 2),
        "rows": rows,
    }


def _row(line: Line, kinds: Kinds) -> list[str]:
    m, e, odd = line.measured, line.predicted, line.differing
    entries = [line.centre, kinds.title(line.kind)]
    for name, words in (("messages", count_text), ("down", bytes_text), ("up", bytes_text)):
        entries.append((_DIFFERS if name in odd else "") + words(getattr(m, name)))
        if e is not None:
            entries.append(_predicted(getattr(e, name), words))
    if e is not None:
        entries.append(_predicted(e.steps, count_text))
    return [*entries, duration(m.seconds)]


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


def _by_kind(found: Sequence[Line], kinds: Kinds) -> dict[str, Any]:
    predicted = found[0].predicted is not None
    rows = []
    for kind in dict.fromkeys(line.kind for line in found):
        own = [line for line in found if line.kind == kind]
        rows.append(_measured_row(own, kinds))
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


def _measured_row(own: Sequence[Line], kinds: Kinds) -> list[str]:
    m = total(own).measured
    odd = {name for line in own for name in line.differing}
    entries = [kinds.title(own[0].kind), "measured", count_text(sum(line.measured.messages > 0 for line in own))]
    for name, words in (("messages", count_text), ("down", bytes_text), ("up", bytes_text)):
        entries.append((_DIFFERS if name in odd else "") + words(getattr(m, name)))
        entries.append(_spread([getattr(line.measured, name) for line in own], words))
    return [*entries, duration(m.seconds)]


def _expected_row(own: Sequence[Line]) -> list[str]:
    predictions = [line.predicted for line in own if line.predicted is not None]
    e = total(own).predicted
    entries = ["", "expected", count_text(sum(p.messages != 0 for p in predictions))]
    for name, words in (("messages", count_text), ("down", bytes_text), ("up", bytes_text)):
        values = [getattr(p, name) for p in predictions]
        entries.append(_predicted(getattr(e, name), words))
        entries.append("–" if None in values else _spread(values, words))
    return [*entries, ""]


def _spread(values: Sequence[int], words: Callable[[float], str]) -> str:
    """ "3 / 5 / 5"; one number where all are equal."""
    low, middle, high = min(values), float(np.median(values)), max(values)
    return words(low) if low == high else " / ".join(words(value) for value in (low, middle, high))


# -- figure --------------------------------------------------------------------------------------------------------


def byte_bars(found: Sequence[Line]) -> Picture | None:
    """Bytes to and from each centre as bars, of many centres those with the most; None when nothing was sent."""
    sent: dict[str, tuple[int, int]] = {}
    for line in found:
        down, up = sent.get(line.centre, (0, 0))
        sent[line.centre] = (down + line.measured.down, up + line.measured.up)
    most = set(sorted(sent, key=lambda centre: -sum(sent[centre]))[:BYTE_BAR_CENTRES])
    shown = {centre: amounts for centre, amounts in sent.items() if centre in most}
    largest = max((max(amounts) for amounts in shown.values()), default=0)
    if largest == 0:
        return None
    scale, unit = next(((s, n) for s, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if largest >= s), (1, "bytes"))
    figure = Figure(figsize=(WIDTH_IN * 0.55, 0.75 + 0.36 * len(shown)))
    with matplotlib.rc_context(STYLE):
        axes = figure.subplots()
        y = np.arange(len(shown))
        for offset, colour, values in zip((-0.19, 0.19), COLOURS, zip(*shown.values(), strict=True), strict=False):
            axes.barh(y + offset, np.array(values) / scale, 0.34, color=colour)
        axes.set_yticks(y, list(shown))
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel(unit)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        legend_above(figure, [(COLOURS[0], "to the centre"), (COLOURS[1], "from the centre")])
        which = f", the {len(shown)} of {len(sent)} centres with the most" if len(sent) > len(shown) else ""
        words = "; ".join(f"{c}: {bytes_text(d)} to, {bytes_text(u)} from" for c, (d, u) in shown.items())
        return picture(figure, f"Bytes by centre{which}: {words}")
