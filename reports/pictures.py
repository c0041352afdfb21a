"""Figures as data URIs, and the looks they share.

No pyplot: nothing global is touched, and the same numbers give the same bytes. Colours are those of Okabe and Ito
(2008), which differ for colour-blind readers, too.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Patch

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#7A5195")
GREY, INK, RULE, FAILED = "#8A8F98", "#1F2933", "#D9DDE3", "#C0392B"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # it comes with matplotlib: the same picture on every machine
    "font.size": 8.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "svg.hashsalt": "polycentre",  # ids within the SVG: without it they are random
}
# A page is this wide; figures scale with it.
WIDTH_IN = 12.0


def arm_colours(names: Sequence[str], baseline: str | None) -> dict[str, str]:
    """A colour for each arm, the same in all figures; the baseline is grey."""
    others = [name for name in names if name != baseline]
    return {name: GREY if name == baseline else COLOURS[others.index(name) % len(COLOURS)] for name in names}


@dataclass(frozen=True)
class Picture:
    """A data URI with what it shows in words."""

    uri: str
    alt: str


def png(content: bytes, alt: str) -> Picture:
    """A PNG file as it is."""
    return Picture("data:image/png;base64," + base64.b64encode(content).decode("ascii"), alt)


def picture(figure: Figure, alt: str) -> Picture:
    """The figure as SVG. Call it within `matplotlib.rc_context(STYLE)`: some of the style applies on drawing."""
    buffer = io.BytesIO()
    # Without a date in it, the same figure is the same file.
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return Picture("data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), alt)


def legend_above(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    """Lay out the figure with a legend of (colour, name) above its panels."""
    handles_above(figure, [Patch(facecolor=colour, label=name) for colour, name in entries], handlelength=1)


def handles_above(figure: Figure, handles: Sequence[Any], *, handlelength: float = 2.4) -> None:
    """Lay out the figure with a legend of labelled artists above its panels, in as many rows as the width asks for."""
    widths_in = [0.35 + 0.1 * handlelength + 0.075 * len(str(handle.get_label())) for handle in handles]
    columns = max(1, min(len(handles), int(figure.get_figwidth() / max(widths_in, default=1.0))))
    if sum(widths_in) <= figure.get_figwidth():
        columns = max(1, len(handles))
    rows = -(-len(handles) // columns)
    figure.tight_layout(rect=(0, 0, 1, 1 - (0.1 + 0.2 * rows) / figure.get_figheight()))
    figure.legend(handles=handles, loc="upper left", ncols=columns, handlelength=handlelength, fontsize=8)
