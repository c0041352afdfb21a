"""Figures of the course of a run: who worked when, and what was sent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from reports.pictures import COLOURS, INK, RULE, STYLE, WIDTH_IN, Picture, legend_above, picture
from reports.timeline import Event, Work, bytes_moved, lanes, resumptions, wall_seconds, work

FAILED = "#C0392B"
KIND_COLOURS = {
    "survey": "#A7B0BC",
    "train_generator": "#0072B2",
    "send_patches": "#8C6D1F",
    "receive_patches": "#E69F00",
    "synthesise": "#009E73",
    "learn": "#D55E00",
    "test": "#CC79A7",
}
KIND_NAMES = {
    "survey": "survey of the data",
    "train_generator": "train a generator",
    "send_patches": "send real patches",
    "receive_patches": "receive real patches",
    "synthesise": "draw synthetic images",
    "learn": "train a classifier",
    "test": "test elsewhere",
}


def time_line(events: Sequence[Event]) -> Picture | None:
    """Who worked when: a band for each centre, its lanes stacked, a bar for each unit; None when nothing was done."""
    done = work(events)
    if not done:
        return None
    wall = wall_seconds(events)
    scale, unit = _time_unit(wall)
    centres = sorted({w.centre for w in done})
    bars: list[tuple[int, Work]] = []
    edges = [0]  # first row of each centre, and one past the last
    for centre in centres:
        own = [w for w in done if w.centre == centre]
        chosen = lanes([(w.start, w.end) for w in own])
        bars += [(edges[-1] + lane, w) for lane, w in zip(chosen, own, strict=True)]
        edges.append(edges[-1] + max(chosen) + 1)
    row_in = 0.3 if edges[-1] <= 20 else 0.15
    figure = Figure(figsize=(WIDTH_IN, 0.9 + row_in * edges[-1]))
    with matplotlib.rc_context(STYLE):
        axes = figure.subplots()
        for y, w in bars:
            span = [(w.start / scale, (w.end - w.start) / scale)]
            axes.broken_barh(span, (y - 0.4, 0.8), facecolor=_colour(w), edgecolor="white", linewidth=0.3)
        for moment in resumptions(events):
            axes.axvline(moment / scale, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
            axes.text(moment / scale, -0.6, " resumed", fontsize=7.5, va="bottom")
        for edge in edges[1:-1]:
            axes.axhline(edge - 0.5, color=RULE, linewidth=0.8)
        axes.set_ylim(edges[-1] - 0.4, -0.6)
        axes.set_xlim(0, wall / scale)
        axes.set_yticks([(first + after - 1) / 2 for first, after in pairwise(edges)], centres)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"running time ({unit})")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        legend_above(figure, list(dict.fromkeys((_colour(w), _name(w)) for w in done)))
        busy = {c: [w.end - w.start for w in done if w.centre == c] for c in centres}
        words = (f"{c} {sum(times) / scale:.3g} {unit} in {len(times)} units" for c, times in busy.items())
        return picture(figure, "Time line of the units of work. Work by centre: " + ", ".join(words))


def byte_bars(events: Sequence[Event]) -> Picture | None:
    """Bytes to and from each centre as bars; None when nothing was sent."""
    moved = bytes_moved(events)
    centres = sorted({centre for centre, _ in moved})
    down = [sum(d for (c, _), (_, d, _) in moved.items() if c == centre) for centre in centres]
    up = [sum(u for (c, _), (_, _, u) in moved.items() if c == centre) for centre in centres]
    if not centres or max(down + up) == 0:
        return None
    scale, unit = next(
        ((s, n) for s, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if max(down + up) >= s), (1, "bytes")
    )
    figure = Figure(figsize=(WIDTH_IN * 0.55, 0.75 + 0.36 * len(centres)))
    with matplotlib.rc_context(STYLE):
        axes = figure.subplots()
        y = np.arange(len(centres))
        axes.barh(y - 0.19, np.array(down) / scale, 0.34, color=COLOURS[0])
        axes.barh(y + 0.19, np.array(up) / scale, 0.34, color=COLOURS[1])
        axes.set_yticks(y, centres)
        axes.set_ylim(len(centres) - 0.5, -0.5)
        axes.set_xlabel(unit)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        legend_above(figure, [(COLOURS[0], "to the centre"), (COLOURS[1], "from the centre")])
        words = "; ".join(
            f"{c}: {d / scale:.3g} to, {u / scale:.3g} {unit} from" for c, d, u in zip(centres, down, up, strict=True)
        )
        return picture(figure, f"Bytes by centre: {words}")


def _time_unit(seconds: float) -> tuple[float, str]:
    return (1, "seconds") if seconds < 180 else (60, "minutes") if seconds < 10_800 else (3600, "hours")


def _colour(w: Work) -> str:
    return FAILED if w.failed else KIND_COLOURS.get(w.kind, INK)


def _name(w: Work) -> str:
    return "failed" if w.failed else KIND_NAMES.get(w.kind, w.kind)
