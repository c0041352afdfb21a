"""Figures of results: arms compared, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.pictures import COLOURS, GREY, INK, STYLE, WIDTH_IN, Picture, legend_above, picture
from reports.tables import METRICS, PRIMARY, Block, difference_text, percent

# More points than this cannot be told apart in a panel, and make the file large.
_POINTS = 200

# Name of the line -> its (x, y) curves, which share a colour (one for each repeat).
Panel = Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]]


def arm_colours(names: Sequence[str], baseline: str | None) -> dict[str, str]:
    """A colour for each arm, the same in all figures; the baseline is grey."""
    others = [name for name in names if name != baseline]
    return {name: GREY if name == baseline else COLOURS[others.index(name) % len(COLOURS)] for name in names}


def comparison(block: Block, colours: Mapping[str, str]) -> Picture:
    """AUROC of every arm, a panel for each test centre: dots are repeats, a bar their mean, a line the baseline."""
    rows, centres = block.rows, block.tested_on
    figure = Figure(figsize=(WIDTH_IN, 0.62 + 0.27 * len(rows)))
    words = []
    with matplotlib.rc_context(STYLE):
        panels = figure.subplots(1, len(centres), sharey=True, squeeze=False)[0]
        for axes, centre in zip(panels, centres, strict=True):
            base = block.baseline.spread(centre, PRIMARY) if block.baseline else None
            if base is not None and base.n:
                axes.axvline(100 * base.mean, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            for y, row in enumerate(rows):
                values = [v for v in row.values.get((centre, PRIMARY), {}).values() if not math.isnan(v)]
                if not values:
                    continue
                colour = colours.get(row.arm.name, INK)
                jitter = np.linspace(-0.17, 0.17, len(values)) if len(values) > 1 else np.zeros(1)
                axes.scatter(100 * np.array(values), y + jitter, s=20, color=colour, alpha=0.65, linewidths=0, zorder=2)
                mean = 100 * float(np.mean(values))
                axes.plot([mean, mean], [y - 0.36, y + 0.36], color=colour, linewidth=2.6, zorder=3)
                gain = difference_text(block.difference(row, centre))
                words.append(
                    f"{row.arm.name} at {centre} {percent(row.spread(centre, PRIMARY))}"
                    + (f" ({gain} better)" if gain else "")
                )
            where = "its own test images" if centre == block.setting.receiver else "out of domain"
            axes.set_title(f"{METRICS[PRIMARY]} at {centre}, {where} (%)")
            axes.set_ylim(len(rows) - 0.45, -0.55)
            axes.set_yticks(range(len(rows)), [row.arm.name for row in rows])
            axes.tick_params(axis="y", length=0)
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.grid(axis="x")
            axes.set_axisbelow(True)
            axes.spines["left"].set_visible(False)
        figure.tight_layout(w_pad=2)
        return picture(
            figure, f"Dots: {METRICS[PRIMARY]} of each repeat by arm; bar: mean. In percent: " + "; ".join(words)
        )


def curves(panels: Mapping[str, Panel], *, x_label: str, alt: str, colours: Mapping[str, str] | None = None) -> Picture:
    """Small multiples of lines, three in a row. Non-finite points are left out.

    panels: by title. colours: by name of the line, and one legend for all panels; without it each panel has its own.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH_IN * columns / 3, 2.35 * rows + 0.35))
    with matplotlib.rc_context(STYLE):
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, lines) in zip(grid, panels.items(), strict=False):
            for i, (name, repeats) in enumerate(lines.items()):
                colour = colours.get(name, INK) if colours else COLOURS[i % len(COLOURS)]
                for k, curve in enumerate(repeats):
                    x, y = _thinned(*curve)
                    # One or two points (a network validated that often) are dots: a line would hardly show them.
                    marker = "." if len(x) < 3 else None
                    axes.plot(x, y, color=colour, alpha=0.8, marker=marker, label=name if k == 0 else None)
            axes.set_title(title)
            axes.set_xlabel(x_label)
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if not colours:
                axes.legend(fontsize=7.5, handlelength=1.2)
        if colours:
            shown = [name for name in colours if any(name in lines for lines in panels.values())]
            legend_above(figure, [(colours[name], name) for name in shown])
        else:
            figure.tight_layout()
        return picture(figure, alt)


def _thinned(x: Sequence[Any], y: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Finite points; many are averaged in equal groups, so that noise shrinks and no spike is picked by chance."""
    xy = np.array([(a, b) for a, b in zip(x, y, strict=False) if a is not None and b is not None], float).reshape(-1, 2)
    xy = xy[np.isfinite(xy).all(axis=1)]
    if len(xy) > _POINTS:
        xy = np.array([part.mean(axis=0) for part in np.array_split(xy, _POINTS)])
    return xy[:, 0], xy[:, 1]
