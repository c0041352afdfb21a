"""Distance to real images over the real images seen, for each federation: its centres together, alone, and pooled.

Colour and marker say the centre, the kind of line says the series, so the figure reads without colour too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from reports.pictures import COLOURS, GREY, INK, STYLE, WIDTH_IN, Picture, handles_above, picture
from reports.sections.convergence.first_crossing import MEASURES, Convergence

# A panel of more centres than this is unreadable.
CENTRES_SHOWN = 6
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHED, _DASH_DOTTED, _DOTTED = (0, (4, 2)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.5))
# Markers beyond this many on a line hide it.
_MARKS = 10
_MARKERS_BY_TURNS = 3


def convergence_figure(
    table: pd.DataFrame, found: Sequence[Convergence], shown: Mapping[tuple[str, str], Sequence[str]]
) -> Picture | None:
    """A row of panels for each federated arm and task, a column for each measure; None without a federation.

    table: convergence.csv. shown: (arm, task) -> the centres to draw, at most `CENTRES_SHOWN`.
    """
    if not found:
        return None
    rows = list(dict.fromkeys((c.arm, c.task) for c in found))
    columns = list(dict.fromkeys(c.metric for c in found))
    several_tasks = len({task for _, task in rows}) > 1
    looks = _looks(list(dict.fromkeys(centre for key in rows for centre in shown[key])))
    figure = Figure(figsize=(WIDTH_IN, 0.6 + 2.9 * len(rows)))
    with matplotlib.rc_context(STYLE):
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for own_axes, (arm, task) in zip(grid, rows, strict=True):
            for axes, metric in zip(own_axes, columns, strict=True):
                panel = [c for c in found if (c.arm, c.task, c.metric) == (arm, task, metric)]
                if not panel:
                    axes.set_visible(False)
                    continue
                title = f"{arm}, {task}" if several_tasks else arm
                own_looks = {centre: looks[centre] for centre in shown[arm, task]}
                _panel(axes, table, panel, own_looks, f"{title}: {MEASURES.get(metric, metric)}")
        centres = [Line2D([], [], label=centre, **look) for centre, look in looks.items()]
        handles_above(figure, [*centres, *_series_handles(table, found)])
        return picture(figure, _words(found, shown))


def _panel(axes: Any, table: pd.DataFrame, panel: list[Convergence], looks: dict[str, Any], title: str) -> None:
    first = panel[0]
    of_metric = table[(table["task"] == first.task) & (table["metric"] == first.metric)]
    for i, (centre, look) in enumerate(looks.items()):
        here = of_metric[(of_metric["arm"] == first.arm) & (of_metric["centre"] == centre)]
        _line(axes, here[here["series"] == "alone"], i, linestyle=_DASHED, markerfacecolor="white", **look)
        _line(axes, here[here["series"] == "federation"], i, linestyle="-", zorder=3, **look)
    if first.central_arm:
        central = of_metric[(of_metric["series"] == "central") & (of_metric["arm"] == first.central_arm)]
        _line(axes, central, 0, linestyle=_DASH_DOTTED, color=INK, linewidth=1.1)
        axes.axhline(first.target, color=INK, linewidth=0.8)
        _label(axes, first.target, "target", right=True)
    floors = sorted({c.floor for c in panel if c.floor > 0})
    if floors:
        axes.axhspan(floors[0], floors[-1], color=GREY, alpha=0.25, linewidth=0)
        axes.axhline(floors[0], color=GREY, linewidth=1.1, linestyle=_DOTTED)
        _label(axes, floors[0], "floor", right=False)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}"))
    )
    axes.set_title(title)
    axes.set_xlabel("real images seen by the centre's discriminator")
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _line(axes: Any, rows: pd.DataFrame, turn: int, **look: Any) -> None:
    """One curve; a logarithm knows nothing of values that are not positive.

    turn: lines that lie on each other, as those of centres that saw equally many images do, show their marks by turns.
    """
    rows = rows[rows["value"] > 0].sort_values(["images_seen", "round"])
    if len(rows):
        every = max(1, -(-len(rows) // _MARKS))
        if len(rows) > 2 * _MARKERS_BY_TURNS:
            every = max(every, _MARKERS_BY_TURNS)
        axes.plot(rows["images_seen"], rows["value"], markevery=(turn % every, every), **look)
        if len(rows) == 1:
            axes.plot(rows["images_seen"], rows["value"], color=look["color"], marker=look.get("marker", "o"))


def _label(axes: Any, y: float, text: str, *, right: bool) -> None:
    """A name on a horizontal line: the target's at the right above it, the floor's at the left, so that they never meet."""
    axes.annotate(
        text, (1.0 if right else 0.0, y), xycoords=("axes fraction", "data"), xytext=(-2 if right else 3, 2),
        textcoords="offset points", ha="right" if right else "left", va="bottom", fontsize=7.5, zorder=4,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
    )  # fmt: skip


def _looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each centre, the same in all panels."""
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": _MARKERS[i % len(_MARKERS)], "markersize": 4}
        for i, name in enumerate(names)
    }


def _series_handles(table: pd.DataFrame, found: Sequence[Convergence]) -> list[Line2D]:
    handles = [Line2D([], [], color=GREY, linestyle="-", label="in the federation")]
    if (table["series"] == "alone").any():
        handles.append(
            Line2D(
                [], [], color=GREY, linestyle=_DASHED, marker="o", markerfacecolor="white", markersize=4, label="alone"
            )
        )
    if any(c.central_arm for c in found):
        handles.append(Line2D([], [], color=INK, linestyle=_DASH_DOTTED, linewidth=1.1, label="one model, pooled data"))
    return handles


def _words(found: Sequence[Convergence], shown: Mapping[tuple[str, str], Sequence[str]]) -> str:
    parts = []
    for c in found:
        if c.centre in shown[c.arm, c.task]:
            target = f", target {c.target:.3g}" if not np.isnan(c.target) else ""
            parts.append(
                f"{c.arm}, {c.task}, {MEASURES.get(c.metric, c.metric)}, {c.centre} ends at {c.final:.3g}{target}"
            )
    return "Distance to real images over real images seen by each centre. " + "; ".join(parts)
