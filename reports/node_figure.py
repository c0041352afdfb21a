"""Lanes of a deployment: when each centre's node computed, when it had a job and did not, and when it was away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from federation.wire.errors import REFUSAL_CODES
from reports.lane_chart import REFUSED, dress, time_unit
from reports.pictures import COLOURS, GREY, STYLE, WIDTH_IN, Picture, handles_above, picture
from reports.quantities import share_text
from reports.time_figures import FAILED
from reports.timeline import Absence, NodeJob, computing_share, node_seconds, union

_COMPUTING, _WAITING = COLOURS[0], "#F2C68A"
# Look of the mark of each end that is not an answer.
_MARKS: dict[str, dict[str, Any]] = {
    "refused": REFUSED,
    "failed": {"marker": "x", "color": FAILED, "markeredgewidth": 1.4, "markersize": 5.5},
}


def node_lanes(
    by_centre: Mapping[str, Sequence[NodeJob]], away: Sequence[Absence], until: float, at_most: int
) -> Picture:
    """One lane for each centre, of many those with the most node time.

    until: seconds of running time that the axis spans. at_most: lanes.
    """
    busiest = sorted(by_centre, key=lambda centre: -node_seconds(by_centre[centre]))[:at_most]
    shown = [centre for centre in by_centre if centre in busiest]
    scale, unit = time_unit(until)
    figure = Figure(figsize=(WIDTH_IN, 0.9 + (0.42 if len(shown) <= 10 else 0.3) * len(shown)))
    with matplotlib.rc_context(STYLE):
        axes = figure.subplots()
        for y, centre in enumerate(shown):
            jobs = by_centre[centre]
            # From a job's sending on the node could have computed it; two may be on their way at once.
            spans = {
                _WAITING: union((job.sent, job.answered) for job in jobs),
                _COMPUTING: union((job.start, job.end) for job in jobs),
                GREY: union((absence.start, absence.end) for absence in away if absence.centre == centre),
            }
            for colour, found in spans.items():
                bars = [(start / scale, (end - start) / scale) for start, end in found]
                axes.broken_barh(bars, (y - 0.32, 0.64), facecolor=colour, linewidth=0)
            for name, look in _MARKS.items():
                moments = [job.answered / scale for job in jobs if _mark(job) == name]
                if moments:
                    axes.plot(moments, [y] * len(moments), linestyle="", zorder=4, clip_on=False, **look)
        which = f"; {len(shown)} of {len(by_centre)} centres" if len(shown) < len(by_centre) else ""
        dress(axes, range(len(shown) + 1), shown, max(until, 1e-9) / scale, f"running time ({unit}){which}")
        handles: list[Any] = [Patch(facecolor=_COMPUTING, label="computing")]
        handles.append(Patch(facecolor=_WAITING, label="has a job and does not compute"))
        if any(absence.centre in shown for absence in away):
            handles.append(Patch(facecolor=GREY, label="node lost"))
        met = {_mark(job) for centre in shown for job in by_centre[centre]}
        handles += [Line2D([], [], linestyle="", label=name, **look) for name, look in _MARKS.items() if name in met]
        handles_above(figure, handles, handlelength=1.4)
        words = (f"{centre} {share_text(computing_share(by_centre[centre]))}" for centre in shown)
        return picture(
            figure, f"Lanes of the nodes{which}. Share of each node's time that is computing: {', '.join(words)}"
        )


def _mark(job: NodeJob) -> str:
    return "" if job.done else "refused" if job.code in REFUSAL_CODES else "failed"
