"""The section "Deployment": what each centre's node did with its time, what it runs, and what it refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from federation.wire.errors import REFUSAL_CODES
from reports.lane_chart import REFUSED, dress, time_unit
from reports.pictures import COLOURS, FAILED, GREY, STYLE, WIDTH_IN, Picture, handles_above, picture
from reports.quantities import bytes_text, duration, share_text
from reports.refusals import refusals
from reports.section import Context, Section
from reports.tables import count_text
from reports.timeline import (
    Absence,
    Event,
    NodeJob,
    absences,
    computing_share,
    deployment,
    node_jobs,
    node_seconds,
    union,
    wall_seconds,
)

# Of more centres than this the picture shows those with the most node time.
CENTRES_SHOWN = 40
_COMPUTING, _WAITING = COLOURS[0], "#F2C68A"
# Look of the mark of each end that is not an answer.
_MARKS: dict[str, dict[str, Any]] = {
    "refused": REFUSED,
    "failed": {"marker": "x", "color": FAILED, "markeredgewidth": 1.4, "markersize": 5.5},
}

_TEMPLATE = """
<p class="soft">Real nodes, in real time. A node's time runs, in each session of the run, from the sending of its first job to its
last answer; computing is from the moment at which its client began a job to the one at which it ended it. The latency of a job is
the rest of the time in which it was the node's next one: starting a process, importing, asking for work, transfer. Between its
jobs a node also waits for those of other centres.</p>
{% for line in refusals %}<p class="note">{{ line }}</p>{% endfor %}
{{ facts(numbers) }}
{% if lanes %}{{ picture(lanes, "One lane a centre. White: the server had no job for it.") }}{% endif %}
{{ plain_table(table) }}
{% if nodes %}{{ plain_table(nodes) }}{% endif %}
"""


def _build(context: Context) -> dict[str, Any] | None:
    return deployment_section(context.events, context.environment, context.centres)


DEPLOYMENT = Section("deployment", "Deployment", "Deployment", _build, _TEMPLATE)


def deployment_section(
    events: Sequence[Event], environment: Mapping[str, Any], centres: Sequence[str]
) -> dict[str, Any] | None:
    """Facts, a table by centre, a picture and the refusals; None when the newest session was a simulation.

    environment: that of the server, to which the nodes' versions are compared. centres: in the scenario's order.
    """
    name = deployment(events)
    if not name:
        return None
    jobs, away = node_jobs(events), absences(events)
    by_centre: dict[str, list[NodeJob]] = {centre: [] for centre in centres}
    for job in jobs:
        by_centre.setdefault(job.centre, []).append(job)
    nodes = {str(e["centre"]): e for e in events if e["event"] == "node"}  # the newest word of each
    return {
        "numbers": _facts(name, jobs),
        "table": _table(by_centre, away),
        "nodes": _nodes_table(nodes, environment, list(by_centre)),
        "lanes": node_lanes(by_centre, away, wall_seconds(events), CENTRES_SHOWN) if jobs else None,
        "refusals": refusals(events),
    }


def _facts(name: str, jobs: Sequence[NodeJob]) -> list[tuple[str, str]]:
    done = [job for job in jobs if job.done]
    return [
        ("Deployment", name),
        ("Nodes' time spent computing", share_text(computing_share(jobs))),
        ("Jobs done", count_text(len(done))),
        ("Computing, summed over nodes", duration(sum(job.seconds for job in done))),
        ("Seconds a job (median)", _seconds([job.seconds for job in done])),
        ("Latency of a job (median)", _seconds([job.latency for job in done])),
    ]


def _table(by_centre: Mapping[str, Sequence[NodeJob]], away: Sequence[Absence]) -> dict[str, Any]:
    rows = []
    for centre, jobs in by_centre.items():
        done = [job for job in jobs if job.done]
        refused = sum(job.code in REFUSAL_CODES for job in jobs)
        gone = [absence for absence in away if absence.centre == centre]
        rows.append([
            centre, share_text(computing_share(jobs)), duration(node_seconds(jobs)) if jobs else "–", count_text(len(done)),
            count_text(refused), count_text(len(jobs) - len(done) - refused),
            _seconds([job.seconds for job in done]), _seconds([job.latency for job in done]),
            bytes_text(sum(job.bytes_down for job in jobs)), bytes_text(sum(job.bytes_up for job in jobs)),
            count_text(len(gone)), count_text(sum(absence.found_again for absence in gone)),
            duration(sum(absence.end - absence.start for absence in gone)) if gone else "–",
        ])  # fmt: skip
    header = [
        "Centre", "Computing", "Node's time", "Jobs done", "refused", "failed", "Seconds a job (median)", "Latency (median)",
        "To the centre", "From the centre", "Times lost", "found again", "Away",
    ]  # fmt: skip
    return {"caption": "", "header": header, "text": [True] + [False] * (len(header) - 1), "rows": rows}


def _nodes_table(
    nodes: Mapping[str, Event], environment: Mapping[str, Any], centres: Sequence[str]
) -> dict[str, Any] | None:
    """What the nodes said of themselves; None when they said nothing."""
    if not nodes:
        return None
    code = environment.get("code")
    digest = str(code.get("digest") if isinstance(code, Mapping) else code or "")
    ours = {"python": environment.get("python"), **(environment.get("versions") or {})}
    rows = []
    for centre in [c for c in centres if c in nodes]:
        node = nodes[centre]
        versions = node.get("versions") or {}
        other = [
            f"{name} {versions[name]}" for name in sorted(versions) if ours.get(name) not in (None, versions[name])
        ]
        theirs = str(node.get("code") or "")
        off = node.get("clock_off_s")
        rows.append([
            centre,
            "–" if off is None else f"{off:+.1f} s".replace("-", "\N{MINUS SIGN}"),
            "–" if not theirs else theirs if theirs != digest else "the server's",
            ", ".join(other) or ("the server's" if versions else "–"),
        ])  # fmt: skip
    return {
        "caption": "What the nodes said of themselves. Clock: how far ahead of the server's it is. Versions: those that differ.",
        "header": ["Centre", "Clock", "Code", "Versions"],
        "text": [True, False, True, True],
        "rows": rows,
    }


def _seconds(values: Sequence[float]) -> str:
    return f"{median(values):.3g} s" if values else "–"


# -- figure --------------------------------------------------------------------------------------------------------


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
