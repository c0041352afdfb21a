"""The section "Deployment": what each centre's node did with its time, what it runs, and what it refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from federation.wire.errors import REFUSAL_CODES
from reports.node_figure import node_lanes
from reports.quantities import bytes_text, duration, share_text
from reports.refusals import refusals
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
    wall_seconds,
)

# Of more centres than this the picture shows those with the most node time.
CENTRES_SHOWN = 40


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
        "facts": _facts(name, jobs),
        "table": _table(by_centre, away),
        "nodes": _nodes_table(nodes, environment, list(by_centre)),
        "picture": node_lanes(by_centre, away, wall_seconds(events), CENTRES_SHOWN) if jobs else None,
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
