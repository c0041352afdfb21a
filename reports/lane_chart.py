"""What charts of time have in common: a band for each centre, time to the right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from reports.pictures import INK, RULE

# Look of the mark of a job that a centre refused.
REFUSED: dict[str, Any] = {
    "marker": "s",
    "markeredgecolor": INK,
    "markerfacecolor": "white",
    "markeredgewidth": 1,
    "markersize": 4,
}


def time_unit(seconds: float) -> tuple[float, str]:
    """(seconds in it, its name) of the unit in which a span of time is shown."""
    return (1, "seconds") if seconds < 180 else (60, "minutes") if seconds < 10_800 else (3600, "hours")


def dress(axes: Any, edges: Sequence[int], names: Sequence[str], until: float, x_label: str) -> None:
    """Axes, names and separators of a lane chart, after its bars were drawn.

    edges: the first row of each name, and one past the last (n + 1); rows are 1 high, the first at the top, around 0.
    """
    for edge in edges[1:-1]:
        axes.axhline(edge - 0.5, color=RULE, linewidth=0.8)
    axes.set_ylim(edges[-1] - 0.4, -0.6)
    axes.set_xlim(0, until)
    axes.set_yticks([(first + after - 1) / 2 for first, after in pairwise(edges)], names)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(x_label)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
