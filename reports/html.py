"""The report of one run: table.md and report.html, from the run folder alone."""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from basics.atomic_files import write_text
from reports.convergence_section import convergence_section
from reports.deployment_section import deployment_section
from reports.federations import trouble_lines
from reports.figures import arm_colours
from reports.findings import caution, findings
from reports.image_section import image_pairs
from reports.learning_curves import classifier_curves, generator_curves
from reports.message_section import message_section
from reports.partition_section import partition_tables
from reports.quantities import duration, listed, share_text
from reports.refusals import real_failures, refusals
from reports.result_section import result_block
from reports.run_record import RunRecord
from reports.selection import selection_table
from reports.simulated_section import simulated_section
from reports.study import Study, read_study
from reports.survey import cards, survey_tables
from reports.tables import (
    METRICS,
    EvaluationSet,
    blocks,
    evaluation_sets,
    markdown,
    metrics_of,
    unplaced,
)
from reports.template import CSS, PAGE
from reports.time_figures import time_line
from reports.timeline import (
    Event,
    current_units,
    deployment,
    sessions,
    start_up_seconds,
    status,
    wall_seconds,
    work,
    working_share,
)

# Autoescape: names, notes and errors come from scenarios and centres.
_PAGES = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def render(template: str, **context: Any) -> str:
    """Fill a template of `reports.template`; everything that is not a picture or CSS is escaped."""
    return _PAGES.from_string(template).render(css=Markup(CSS), **context)


def build_report(record: RunRecord) -> Path:
    """Write table.md and report.html from what is recorded so far; returns the path of report.html."""
    study = read_study(record.scenario_yaml)
    found = blocks(record.results(), study)
    predictions = record.predictions()
    sets = evaluation_sets(predictions)
    events, environment = record.events(), record.environment
    current = current_units(events)
    units = [info for info in record.units() if info["unit"] in current]
    colours = arm_colours(list(study.arms), study.baseline.name if study.baseline else None)
    judged = {(i, centre): findings(b, centre, predictions) for i, b in enumerate(found) for centre in b.tested_on}
    synthetic, real = image_pairs(record.folder, study)
    data_cards = cards(units)
    federations = record.federations()
    troubles = trouble_lines(federations, study)

    write_text(record.folder / "table.md", markdown(found, study, sets, troubles, refusals(events)))
    context = {
        "title": f"{study.name} (polycentre report)",
        "study": study,
        "status": _status(record.folder, environment, events),
        "header": _header(study, environment, events),
        "metrics": [METRICS[m] for m in metrics_of(found)],
        "baseline": study.baseline.name if study.baseline else None,
        "blocks": [
            result_block(b, study, sets, colours, {c: judged[i, c] for c in b.tested_on}, troubles)
            for i, b in enumerate(found)
        ],
        "caution": caution([f for (i, c), fs in judged.items() if c == found[i].setting.receiver for f in fs]),
        "unplaced_troubles": unplaced(troubles, found),
        "survey": survey_tables(data_cards, study),
        "partition": partition_tables(record.partition(), study),
        "notes": [f"{e['centre']}: {e['text']}" if e.get("centre") else str(e.get("text")) for e in _notes(events)],
        "samples": synthetic,
        "real_samples": real,
        "generator_curves": generator_curves(units),
        "classifier_curves": classifier_curves(units, study, colours),
        "selection": selection_table(units, study),
        "convergence": convergence_section(record.convergence(), study, data_cards),
        "simulated": simulated_section(record.virtual_time(), federations, troubles, study),
        "deployment": deployment_section(events, environment, list(study.centres)),
        "time_line": time_line(events),
        "time_facts": _time_facts(events),
        "messages": message_section(events, record.expected(), list(study.centres)),
        "limits": _limits(study, sets),
        "scenario_yaml": record.scenario_yaml,
        "environment": json.dumps(environment, indent=1, ensure_ascii=False),
        "footer": f"Made by polycentre from the run folder {record.folder.name} on {_date(time.time())}.",
    }
    anchors = {
        "findings": "Findings",
        "results": "Results" if found else "",
        "selection": "Chosen generators" if context["selection"] else "",
        "centres": "Centres",
        "samples": "Images" if synthetic or real else "",
        "curves": "Learning curves" if context["generator_curves"] or context["classifier_curves"] else "",
        "convergence": "Convergence" if context["convergence"] else "",
        "simulated": "Simulated time" if context["simulated"] else "",
        "deployment": "Deployment" if context["deployment"] else "",
        "time": "Who worked when",
        "messages": "Messages" if context["messages"] else "",
        "limits": "Limits",
        "scenario": "Scenario",
    }
    page = render(PAGE, sections=[(anchor, name) for anchor, name in anchors.items() if name], **context)
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
    machine += [
        f"{environment['memory_gib']} GiB" if environment.get("memory_gib") else None,
        environment.get("device"),
    ]
    if cluster := environment.get("ray_cluster"):
        machine.append(
            f"on a Ray cluster of {len(cluster['nodes'])} nodes with {sum(n['cpus'] for n in cluster['nodes']):g} CPUs"
        )
    found = sessions(events)
    facts = [
        ("Started", _date(found[0].start) if found else "not yet"),
        ("Seed", str(study.seed)),
        ("Repeats", str(study.repeats)),
        ("Centres", str(len(study.centres))),
        ("Running time", duration(wall_seconds(events)) + (f" in {len(found)} sessions" if len(found) > 1 else "")),
        ("Work in the centres", share_text(working_share(events))),
        ("Code", str(digest)[:16] if digest else "unknown"),
        ("Machine", ", ".join(str(m) for m in machine if m) or "unknown"),
    ]
    return facts


def _notes(events: Sequence[Event]) -> list[Event]:
    """Each note once: a resumed run repeats those of its survey."""
    notes = {(e.get("centre"), e.get("text")): e for e in events if e["event"] == "note"}
    return list(notes.values())


# -- time ------------------------------------------------------------------------------------------------


def _time_facts(events: Sequence[Event]) -> list[tuple[str, str]]:
    done = [w for w in work(events) if not w.failed]
    cpu = sum(w.end - w.start for w in done)
    start_up = start_up_seconds(events)
    return [
        ("Running time", duration(wall_seconds(events))),
        ("Share in which a centre worked", share_text(working_share(events))),
        ("Until the first centre worked", duration(start_up) if not math.isnan(start_up) else "–"),
        ("Units of work", str(len(done))),
        ("Work, summed over lanes", duration(cpu)),
        ("Sessions", str(len(sessions(events)))),
    ]


# -- words ---------------------------------------------------------------------------------------------------------


def _limits(study: Study, sets: dict[tuple[str, str], EvaluationSet]) -> list[str]:
    phantoms = [n for n, c in study.centres.items() if (c.get("data") or {}).get("source") == "phantom"]
    small = [f"{centre} ({s.patients} patients)" for (_, centre), s in sets.items() if s.patients < 100]
    lines = [
        "“Helped” and “hurt” are said only where at least three repeats agree, by more than their standard deviation, "
        "and where the 95 % interval over at least ten test patients leaves out zero (where the predictions stayed at the centres "
        "there is no such interval, and the repeats alone decide). Many arms and settings "
        "are compared, and no correction is made for that: a single “helped” among many rows may be chance.",
        "A repeat trains the classifier anew, on a new draw of the receiver's patients where fewer than all are "
        "used. Splits and generators are the same "
        "in all repeats; another split or another training of the generator may give another answer.",
        "AUROC and AUPRC do not depend on a threshold; accuracy, balanced accuracy and F1 use 0.5. AUPRC of a "
        "classifier that knows nothing is the prevalence of the positive class, which differs between test sets.",
        "A control explains a result, it is no candidate: more of the receiver's own images, for instance, tell a gain "
        "by new information from a gain by more images. An upper bound moves real images, which the other arms avoid.",
        "Whether a generator gives away patients it was trained on is not measured on this page.",
    ]
    if small:
        named = ", ".join(dict.fromkeys(small))
        lines.insert(0, f"Small test sets: {named}. Differences of a few points are within chance there.")
    if phantoms:
        lines.insert(
            0,
            f"Computed phantoms, not patients: {listed(phantoms)}. The numbers show that the machinery works, not "
            "what would happen in a hospital.",
        )
    return lines


def _date(t: float) -> str:
    return datetime.datetime.fromtimestamp(t, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
