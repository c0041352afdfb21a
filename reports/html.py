"""The report of one run: table.md and report.html, from the run folder alone."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basics.atomic_files import write_text
from reports.quantities import duration, share_text
from reports.refusals import real_failures, refusals
from reports.run_record import RunRecord
from reports.section import read_context
from reports.sections import SECTIONS
from reports.study import Study
from reports.table_md import markdown
from reports.template import HEAD, fill
from reports.timeline import Event, deployment, sessions, status, wall_seconds, working_share

_PAGE = (
    HEAD
    + """
<body>
<header><div>
<h1>{{ study.name }}</h1>
{% if study.description %}<p class="lead">{{ study.description }}</p>{% endif %}
<div class="status {{ status.kind }}" role="status">
<p><strong>{{ status.title }}</strong></p>
{% for line in status.refusals %}<p><strong>Refused:</strong> {{ line }}</p>{% endfor %}
{% for line in status.lines %}<p>{{ line }}</p>{% endfor %}
{% if status.command %}<p>To go on: <code>{{ status.command }}</code></p>{% endif %}
</div>
{{ facts(header) }}
<nav aria-label="Sections">
{% for section, _ in sections %}<a href="#{{ section.anchor }}">{{ section.name }}</a>
{% endfor %}</nav>
</div></header>
<main>
{% for section, body in sections %}
<section id="{{ section.anchor }}"><h2>{{ section.title }}</h2>
{{ body }}
</section>
{% endfor %}
</main>
<footer><div>{{ footer }}</div></footer>
</body></html>
"""
)


def build_report(record: RunRecord) -> Path:
    """Write table.md and report.html from what is recorded so far; returns the path of report.html."""
    context = read_context(record)
    study, events, environment = context.study, context.events, context.environment
    table = markdown(context.blocks, study, context.sets, context.troubles, refusals(events))
    write_text(record.folder / "table.md", table)
    built = [(section, section.build(context)) for section in SECTIONS]
    page = fill(
        _PAGE,
        title=f"{study.name} (polycentre report)",
        study=study,
        status=_status(record.folder, environment, events),
        header=_header(study, environment, events),
        sections=[(section, fill(section.template, **content)) for section, content in built if content is not None],
        footer=f"Made by polycentre from the run folder {record.folder.name} on {_date(time.time())}.",
    )
    path = record.folder / "report.html"
    write_text(path, page)
    return path


# -- head ----------------------------------------------------------------------------------------------------------


def _status(folder: Path, environment: dict[str, Any], events: Sequence[Event]) -> dict[str, Any]:
    kind = status(events)
    where = f" --deployment {deployment(events)}" if deployment(events) else ""
    if cluster := environment.get("ray_cluster"):
        where = f" --ray {cluster['address']}"
    resume = f"polycentre run {folder / 'scenario.yaml'}{where} --out {folder} --resume"
    if kind == "completed":
        return {"kind": kind, "title": "Complete: every unit of work finished.", "refusals": refusals(events), "lines": [],
                "command": ""}  # fmt: skip
    lines = [
        f"{e.get('label') or e.get('kind')} at {e.get('centre')}: {e.get('text') or e.get('code')}"
        for e in real_failures(events)
    ]
    if kind == "failed":
        said = [str(e["text"]) for e in sessions(events)[-1].events if e["event"] == "run_finished" and e.get("text")]
        lines = list(dict.fromkeys(lines + said))
        title = "Failed: the tables below lack what did not finish."
    else:
        title = "Incomplete: this run was interrupted, or is still going on. The tables below may lack units."
    return {"kind": kind, "title": title, "refusals": refusals(events), "lines": lines, "command": resume}


def _header(study: Study, environment: dict[str, Any], events: Sequence[Event]) -> list[tuple[str, str]]:
    code = environment.get("code")
    digest = code.get("digest") if isinstance(code, dict) else code
    machine = [environment.get("cpu"), f"{environment['cpus']} CPUs" if environment.get("cpus") else None]
    machine.append(f"{environment['memory_gib']} GiB" if environment.get("memory_gib") else None)
    if cluster := environment.get("ray_cluster"):
        machine.append(
            f"on a Ray cluster of {len(cluster['nodes'])} nodes with {sum(n['cpus'] for n in cluster['nodes']):g} CPUs"
        )
    found = sessions(events)
    return [
        ("Started", _date(found[0].start) if found else "not yet"),
        ("Seed", str(study.seed)),
        ("Repeats", str(study.repeats)),
        ("Centres", str(len(study.centres))),
        ("Running time", duration(wall_seconds(events)) + (f" in {len(found)} sessions" if len(found) > 1 else "")),
        ("Work in the centres", share_text(working_share(events))),
        ("Code", str(digest)[:16] if digest else "unknown"),
        ("Machine", ", ".join(str(m) for m in machine if m) or "unknown"),
    ]


def _date(t: float) -> str:
    return datetime.datetime.fromtimestamp(t, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
