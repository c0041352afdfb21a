"""Lanes of simulated time: what each centre computed, and what became of jobs that were not used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.lane_chart import REFUSED, dress, time_unit
from reports.pictures import COLOURS, GREY, INK, STYLE, WIDTH_IN, Picture, handles_above, picture
from reports.sections.simulated_time.jobs import CentreTime, SimulatedJob, Simulation, covered_share

# Of more jobs than this in one lane, bars would be hairs: the lane shows the share of each bin that was computing.
JOBS_IN_A_LANE = 120
_BINS = 300
_USED, _UNUSED = COLOURS[0], "#F2C68A"
_HATCH = "////"
_GONE = 0.22
# Of what was computed and used, and of what was computed in vain.
_LOOKS: tuple[dict[str, Any], ...] = ({"facecolor": _USED}, {"facecolor": _UNUSED, "hatch": _HATCH})
_BAR = (-0.42, 0.5)  # top and height within a lane; the marks are below the bar
_MARK_Y = 0.26
_STATE_LOST = "empty state"
# Look of the mark of each outcome that is not `used`.
_MARKS: dict[str, dict[str, Any]] = {
    "lost": {"marker": "x", "color": "#C0392B", "markeredgewidth": 1.4},
    "late": {"marker": ">", "color": "#B36B00", "markeredgewidth": 0},
    "stale": {
        "marker": "D",
        "markeredgecolor": "#7A5195",
        "markerfacecolor": "white",
        "markeredgewidth": 1.2,
        "markersize": 4,
    },
    "outage": {"marker": "v", "color": INK, "markeredgewidth": 0},
    "refused": REFUSED,
    _STATE_LOST: {"marker": "*", "color": "#009E73", "markeredgewidth": 0, "markersize": 8},
}

Spans = list[tuple[float, float]]


def lane_chart(
    simulation: Simulation, times: Sequence[CentreTime], federation: Mapping[str, Any] | None, of_centres: int
) -> Picture:
    """One lane for each of `times`; bars and marks by job where there are few, by bins of time elsewhere.

    federation: its entry of federations.json, for centres that were gone or lost their state. of_centres: how many the
    simulation has, of which `times` are shown.
    """
    by_centre: dict[str, list[SimulatedJob]] = {t.centre: [] for t in times}
    for job in simulation.jobs:
        if job.centre in by_centre:
            by_centre[job.centre].append(job)
    scale, unit = time_unit(simulation.seconds)
    until = max(simulation.seconds, 1e-9)
    dense = max(map(len, by_centre.values())) > JOBS_IN_A_LANE
    figure = Figure(figsize=(WIDTH_IN, 0.9 + (0.42 if len(times) <= 10 else 0.3) * len(times)))
    with matplotlib.rc_context(STYLE | {"hatch.color": "#B36B00", "hatch.linewidth": 0.5}):
        axes = figure.subplots()
        edges = np.linspace(0, until, _BINS + 1)
        for y, own in enumerate(by_centre.values()):
            (_profile if dense else _bars)(axes, y, _spans(own, simulation.start), edges, scale)
        marks = _marks(by_centre, simulation, federation)
        for name, points in marks.items():
            points = _one_a_bin(points, edges) if dense else points
            x, y_marks = [t / scale for t, _ in points], [y + _MARK_Y for _, y in points]
            axes.plot(x, y_marks, linestyle="", zorder=4, clip_on=False, **_look(name))
        gone = _gone(axes, list(by_centre), simulation, federation, scale)
        dress(axes, range(len(times) + 1), list(by_centre), until / scale, f"simulated time ({unit})")
        handles_above(figure, _handles(marks, _any_unused(by_centre), gone, dense))
        return picture(figure, _words(simulation, times, of_centres))


def _spans(jobs: Sequence[SimulatedJob], start: float) -> tuple[Spans, Spans]:
    """Spans, from the start of the simulation, of what was computed and used, and of what was computed in vain."""
    used: Spans = []
    unused: Spans = []
    for job in jobs:
        if job.computed:
            begin, end = job.computed
            (used if job.outcome == "used" else unused).append((begin - start, end - start))
    return used, unused


def _bars(axes: Any, y: float, spans: tuple[Spans, Spans], _: np.ndarray, scale: float) -> None:
    for own, look in zip(spans, _LOOKS, strict=True):
        widths = [(start / scale, (end - start) / scale) for start, end in own]
        axes.broken_barh(widths, (y + _BAR[0], _BAR[1]), edgecolor="white", linewidth=0.4, **look)


def _profile(axes: Any, y: float, spans: tuple[Spans, Spans], edges: np.ndarray, scale: float) -> None:
    """Steps in the lane, as high as the share of each bin in which the centre computed; in vain on top of used."""
    x = np.repeat(edges / scale, 2)[1:-1]
    base = np.full(len(x), y + _BAR[0] + _BAR[1])
    for own, look in zip(spans, _LOOKS, strict=True):
        top = base - _BAR[1] * np.repeat(covered_share(own, edges), 2)
        axes.fill_between(x, base, top, where=top < base, linewidth=0, **look)
        base = top


def _marks(
    by_centre: Mapping[str, Sequence[SimulatedJob]], simulation: Simulation, federation: Mapping[str, Any] | None
) -> dict[str, list[tuple[float, float]]]:
    """Name of the mark -> its (seconds since the start, lane), in the order of `_MARKS`; names without marks left out."""
    marks: dict[str, list[tuple[float, float]]] = {name: [] for name in _MARKS}
    for y, own in enumerate(by_centre.values()):
        for job in own:
            if job.outcome != "used":
                marks[job.outcome].append((job.ended - simulation.start, y))
    lanes = {centre: y for y, centre in enumerate(by_centre)}
    for lost in (federation or {}).get("state_lost") or []:
        moment = [job.sent for job in by_centre.get(lost["centre"], []) if job.number == lost["number"]]
        if moment:
            marks[_STATE_LOST].append((min(moment) - simulation.start, lanes[lost["centre"]]))
    return {name: points for name, points in marks.items() if points}


def _one_a_bin(points: Sequence[tuple[float, float]], edges: np.ndarray) -> list[tuple[float, float]]:
    """Marks of one kind that would cover each other, once."""
    width = 2 * (edges[1] - edges[0])  # a mark is about that wide
    return sorted({((math.floor(t / width) + 0.5) * width, y) for t, y in points})


def _gone(
    axes: Any, centres: Sequence[str], simulation: Simulation, federation: Mapping[str, Any] | None, scale: float
) -> bool:
    """Shade the lanes of centres that were gone; whether there are any."""
    shaded = False
    for entry in (federation or {}).get("gone") or []:
        start = max(0.0, entry["from_s"] - simulation.start)
        if entry["centre"] in centres and start < simulation.seconds:
            y = centres.index(entry["centre"])
            span = [(start / scale, (simulation.seconds - start) / scale)]
            axes.broken_barh(span, (y - 0.46, 0.92), facecolor=GREY, alpha=_GONE, linewidth=0)
            shaded = True
    return shaded


def _any_unused(by_centre: Mapping[str, Sequence[SimulatedJob]]) -> bool:
    return any(job.computed and job.outcome != "used" for own in by_centre.values() for job in own)


def _look(name: str) -> dict[str, Any]:
    return {"markersize": 5.5} | _MARKS[name]


def _handles(marks: Mapping[str, Any], any_unused: bool, gone: bool, dense: bool) -> list[Any]:
    height = " (height: share of the time)" if dense else ""
    handles: list[Any] = [Patch(facecolor=_USED, label=f"computed and used{height}")]
    if any_unused:
        handles.append(Patch(facecolor=_UNUSED, hatch=_HATCH, label="computed, not used"))
    if gone:
        handles.append(Patch(facecolor=GREY, alpha=_GONE, label="gone"))
    return handles + [Line2D([], [], linestyle="", label=name, **_look(name)) for name in marks]


def _words(simulation: Simulation, times: Sequence[CentreTime], of_centres: int) -> str:
    which = f" {len(times)} of {of_centres} centres." if of_centres > len(times) else ""
    parts = []
    for t in times:
        unused = ", ".join(f"{n} {outcome}" for outcome, n in sorted(t.outcomes.items()) if outcome != "used")
        share = "" if math.isnan(t.share) else f" computed {100 * t.share:.0f} % of the time,"
        parts.append(f"{t.centre}{share} {t.outcomes['used']} jobs used" + (f", {unused}" if unused else ""))
    return f"Lanes of simulated time of arm {simulation.arm}.{which} " + "; ".join(parts)
