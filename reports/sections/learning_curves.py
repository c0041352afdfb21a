"""The section "Learning curves": generators and classifiers, from the histories in their units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from basics.words import listed
from reports.pictures import COLOURS, INK, STYLE, WIDTH_IN, Picture, legend_above, picture
from reports.section import Context, Section
from reports.study import Study

# More points than this make the file large and show no more.
_POINTS = 200
# Columns of a generator's history that count.
_COUNTS = ("step", "images", "empty_batches")
# More generators than this are shown together where their curves are alike: a panel of each would take half a second.
_MANY = 12

# Name of the line -> its (x, y) curves, which share a colour (one for each repeat).
Panel = Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]]

_TEMPLATE = """
{% if generators %}<h3>Generators</h3>
{{ picture(generators, "Losses of training, averaged over neighbouring steps where there are many. "
                       ~ "Losses of adversarial models do not measure the quality of images. Of many generators whose "
                       ~ "curves are alike, the median and the middle nine tenths are shown.") }}{% endif %}
{% if classifiers %}<h3>Classifiers</h3>
{{ picture(classifiers, "AUPRC on the receiver's validation images over training steps, one line a repeat.") }}
{% endif %}
"""


def _build(context: Context) -> dict[str, Any] | None:
    content = {
        "generators": generator_curves(context.units),
        "classifiers": classifier_curves(context.units, context.study, context.colours),
    }
    return content if any(content.values()) else None


LEARNING_CURVES = Section("curves", "Learning curves", "Learning curves", _build, _TEMPLATE)


def generator_curves(units: Sequence[dict[str, Any]]) -> Picture | None:
    """Losses of every unit that has a history and no cell of the study."""
    histories = {}
    for info in units:
        result = info.get("result") or {}
        history = result.get("history")
        if history and history.get("step") and not result.get("cell"):
            histories[f"{info.get('label') or info['unit']}"] = history
    # Runs of earlier versions counted steps alone.
    by = "images" if all("images" in history for history in histories.values()) else "step"
    panels = {}
    for title, history in sorted(histories.items()):
        lines = {
            name: [(history[by], values)]
            for name, values in history.items()
            if name not in _COUNTS and _is_curve(values, len(history["step"]))
        }
        if lines:
            panels[title] = lines
    if not panels:
        return None
    if len(panels) > _MANY:
        panels = _together(panels)
    alt = "Training losses of " + "; ".join(f"{title}: {', '.join(lines)}" for title, lines in panels.items())
    return curves(panels, x_label={"images": "real images seen", "step": "step"}[by], alt=alt)


def _together(panels: dict[str, dict[str, list[Any]]]) -> dict[str, dict[str, list[Any]]]:
    """Panels with the same lines at the same steps as one: of each line the median, and what nine tenths lie between."""
    alike: dict[Any, list[str]] = {}
    for title, lines in panels.items():
        key = tuple((name, tuple(curve[0])) for name, (curve,) in lines.items())
        alike.setdefault(key, []).append(title)
    found = {}
    for key, titles in alike.items():
        if len(titles) == 1:
            found[titles[0]] = panels[titles[0]]
            continue
        steps = dict(key)
        found[listed(sorted(titles), at_most=3)] = {
            name: [(steps[name], _quantile([panels[t][name][0][1] for t in titles], q)) for q in (0.5, 0.05, 0.95)]
            for name in steps
        }
    return found


def _quantile(curves: Sequence[Sequence[Any]], q: float) -> list[float | None]:
    """At each step, over the curves that are finite there; None where none is."""
    values = np.array([[np.nan if v is None else v for v in curve] for curve in curves], float)
    values[~np.isfinite(values)] = np.nan
    return [None if np.isnan(column).all() else float(np.nanquantile(column, q)) for column in values.T]


def classifier_curves(units: Sequence[dict[str, Any]], study: Study, colours: dict[str, str]) -> Picture | None:
    """Validation AUPRC of every cell, whether the receiver trained its classifier alone or others took part."""
    panels: dict[str, dict[str, list[Any]]] = {}
    for info in units:
        result = info.get("result") or {}
        cell, history = result.get("cell"), result.get("history")
        if not cell or not history or not history.get("val_auprc"):
            continue
        size = cell.get("real_images") or cell.get("real_fraction")
        title = f"{cell['receiver']}, {cell['task']}, {cell['classifier']}, " + (
            f"{size} images" if size and size > 1 else f"{100 * (size or 1):g} %"
        )
        panels.setdefault(title, {}).setdefault(cell["arm"], []).append((history["step"], history["val_auprc"]))
    if not panels:
        return None
    order = list(study.arms)
    panels = {
        title: dict(sorted(lines.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))
        for title, lines in sorted(panels.items())
    }
    alt = "AUPRC on validation images over training steps for " + "; ".join(
        f"{title}: {', '.join(lines)}" for title, lines in panels.items()
    )
    return curves(panels, x_label="step", alt=alt, colours=colours)


def _is_curve(values: Any, n: int) -> bool:
    return isinstance(values, list) and len(values) == n and any(isinstance(v, int | float) for v in values)


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
