"""Figures of the course of a run: who worked when, and what was sent."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from reports.kinds import kind_colours, kind_name
from reports.lane_chart import dress, time_unit
from reports.messages import Line
from reports.pictures import COLOURS, INK, STYLE, WIDTH_IN, Picture, legend_above, picture
from reports.quantities import bytes_text
from reports.timeline import Event, Work, lanes, resumptions, wall_seconds, work

FAILED = "#C0392B"
# A page holds no more lanes than this: of many centres the time line shows the busiest.
TIME_LINE_LANES = 80
BYTE_BAR_CENTRES = 20
# Of more bars than this in a lane, white edges would be all there is to see.
_EDGED = 200


def time_line(events: Sequence[Event]) -> Picture | None:
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
    colours = kind_colours(w.kind for w in done)
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
        legend_above(figure, list(dict.fromkeys((_colour(w, colours), _name(w)) for w in shown)))
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


def _colour(w: Work, colours: dict[str, str]) -> str:
    return FAILED if w.failed else colours[w.kind]


def _name(w: Work) -> str:
    return "refused or failed" if w.failed else kind_name(w.kind)
