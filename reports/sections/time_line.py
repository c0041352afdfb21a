"""The section "Who worked when": a time line of the units of work, and the run's time in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from reports.kinds import Kinds
from reports.lane_chart import dress, time_unit
from reports.pictures import FAILED, INK, STYLE, WIDTH_IN, Picture, legend_above, picture
from reports.quantities import duration, share_text
from reports.section import Context, Section
from reports.timeline import (
    Event,
    Work,
    lanes,
    resumptions,
    sessions,
    start_up_seconds,
    wall_seconds,
    work,
    working_share,
)

# A page holds no more lanes than this: of many centres the time line shows the busiest.
TIME_LINE_LANES = 80
# Of more bars than this in a lane, white edges would be all there is to see.
_EDGED = 200

_TEMPLATE = """
{% if time_line %}
{{ picture(time_line, "Every bar is one unit of work in a centre; a centre with several bars at once worked in "
                      ~ "parallel lanes. What was read from an earlier session's record takes no time here.") }}
{{ facts(time_facts) }}
{% else %}<p>No unit of work has finished yet.</p>{% endif %}
"""


def _build(context: Context) -> dict[str, Any]:
    return {"time_line": time_line(context.events, context.kinds), "time_facts": _facts(context.events)}


TIME_LINE = Section("time", "Who worked when", "Who worked when", _build, _TEMPLATE)


def _facts(events: Sequence[Event]) -> list[tuple[str, str]]:
    done = [w for w in work(events) if not w.failed]
    cpu = sum(w.end - w.start for w in done)
    start_up = start_up_seconds(events)
    return [
        ("Running time", duration(wall_seconds(events))),
        ("Share in which a centre worked", share_text(working_share(events))),
        ("Until the first centre worked", duration(start_up) if not math.isnan(start_up) else "–"),
        ("Units of work", str(len(done))),
        ("Work, summed over lanes", duration(cpu)),
        ("Sessions", str(len(sessions(events)))),
    ]


def time_line(events: Sequence[Event], kinds: Kinds) -> Picture | None:
    """Who worked when: a band for each centre, its lanes stacked, a bar for each unit; None when nothing was done."""
    done = work(events)
    if not done:
        return None
    wall = wall_seconds(events)
    scale, unit = time_unit(wall)
    by_centre: dict[str, list[Work]] = {}
    for w in done:
        by_centre.setdefault(w.centre, []).append(w)
    busy = {centre: sum(w.end - w.start for w in own) for centre, own in by_centre.items()}
    chosen = {centre: lanes([(w.start, w.end) for w in own]) for centre, own in by_centre.items()}
    centres = _that_fit({centre: max(chosen[centre]) + 1 for centre in sorted(busy, key=lambda c: (-busy[c], c))})
    colours = kinds.colours(w.kind for w in done)
    # Row and look -> spans: one path for all of them keeps the file small.
    bars: dict[tuple[int, str], list[tuple[float, float]]] = {}
    edges = [0]  # first row of each centre, and one past the last
    for centre in centres:
        for lane, w in zip(chosen[centre], by_centre[centre], strict=True):
            bars.setdefault((edges[-1] + lane, _colour(w, colours)), []).append(
                (w.start / scale, (w.end - w.start) / scale)
            )
        edges.append(edges[-1] + max(chosen[centre]) + 1)
    row_in = 0.3 if edges[-1] <= 20 else 0.15
    figure = Figure(figsize=(WIDTH_IN, 0.9 + row_in * edges[-1]))
    with matplotlib.rc_context(STYLE):
        axes = figure.subplots()
        for (y, colour), spans in bars.items():
            edge = 0.3 if len(spans) <= _EDGED else 0.0
            axes.broken_barh(spans, (y - 0.4, 0.8), facecolor=colour, edgecolor="white", linewidth=edge)
        for moment in resumptions(events):
            axes.axvline(moment / scale, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
            axes.text(moment / scale, -0.6, " resumed", fontsize=7.5, va="bottom")
        which = f"; the {len(centres)} busiest of {len(busy)} centres" if len(busy) > len(centres) else ""
        dress(axes, edges, centres, wall / scale, f"running time ({unit}){which}")
        shown = [w for centre in centres for w in by_centre[centre]]
        legend_above(figure, _legend(shown, colours, kinds))
        words = (f"{c} {busy[c] / scale:.3g} {unit} in {len(by_centre[c])} units" for c in centres)
        return picture(figure, f"Time line of the units of work{which}. Work by centre: " + ", ".join(words))


def _that_fit(lanes_of: dict[str, int]) -> list[str]:
    """Names, the first ones first, as long as their lanes fit the page; at least one. In order of name."""
    taken: list[str] = []
    for name in lanes_of:
        if taken and sum(lanes_of[n] for n in taken) + lanes_of[name] > TIME_LINE_LANES:
            break
        taken.append(name)
    return sorted(taken)


def _colour(w: Work, colours: dict[str, str]) -> str:
    return FAILED if w.failed else colours[w.kind]


def _legend(shown: Sequence[Work], colours: dict[str, str], kinds: Kinds) -> list[tuple[str, str]]:
    """(colour, name) of what is there: kinds in the order of the study, then what failed."""
    met = {w.kind for w in shown if not w.failed}
    failed = [(FAILED, "refused or failed")] if any(w.failed for w in shown) else []
    return [(colour, kinds.title(kind)) for kind, colour in colours.items() if kind in met] + failed
