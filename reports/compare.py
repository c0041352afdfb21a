"""Several runs side by side: one page with their AUROCs and with what differs between their scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basics.atomic_files import write_text
from reports.federations import trouble_lines
from reports.kinds import Kinds
from reports.quantities import duration, share_text
from reports.run_record import RunRecord
from reports.study import Study, read_study
from reports.tables import PRIMARY, Block, Setting, blocks, difference_text, role_text, setting_text, spread_text
from reports.template import HEAD, fill
from reports.timeline import status, wall_seconds, working_share

_PAGE = (
    HEAD
    + """
<body>
<header><div><h1>{{ title }}</h1>
<p class="lead">{{ runs|length }} runs. The same arm name need not mean the same settings: see what differs.</p>
</div></header>
<main>
<section id="runs"><h2>Runs</h2>{{ plain_table(runs_table) }}
{% for line in warnings %}<p class="note">{{ line }}</p>{% endfor %}</section>
<section id="results"><h2>AUROC</h2>
<p class="soft">Percent: mean (standard deviation over repeats); below it, the difference to the baseline of the
same run in points, paired by repeat, and in how many repeats the arm was better. Differences between runs are not
paired: their seeds, data or machines may differ.</p>
{% if not tables %}<p>None of these runs has results yet.</p>{% endif %}
{% for t in tables %}<h3>{{ t.title }}</h3>
<div class="wide"><table class="plain">
<thead><tr><th scope="col" class="text">Arm</th>
{% for run in runs %}<th scope="col">{{ run }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in t.rows %}<tr>
<th scope="row">{{ row.name }}{% if row.role %}<small>{{ row.role }}</small>{% endif %}</th>
{% for entry in row.entries %}<td>{{ entry.value }}
{%- if entry.difference %}<small class="line">{{ entry.difference }}</small>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}</section>
<section id="differences"><h2>What differs between the scenarios</h2>
{% if differences.rows %}{{ plain_table(differences) }}
{% else %}<p>Nothing: the resolved scenarios are equal.</p>{% endif %}</section>
</main>
<footer><div>{{ footer }}</div></footer>
</body></html>
"""
)


def compare(records: Sequence[RunRecord], path: Path | None = None) -> Path:
    """Write a page that shows the runs in the order given; returns its path.

    path: comparison.html in the folder of the first run when left out.
    """
    path = path or records[0].folder / "comparison.html"
    studies = [read_study(record.scenario_yaml, Kinds.of(record.kinds())) for record in records]
    found = [blocks(record.results(), study) for record, study in zip(records, studies, strict=True)]
    names = _names(records)
    page = fill(
        _PAGE,
        title="Runs side by side",
        runs=names,
        runs_table=_runs_table(records, studies, names),
        warnings=_warnings(records, studies, names),
        tables=_tables(found),
        differences=_differences(studies, names),
        footer="Made by polycentre. Research software, not a medical device.",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def _names(records: Sequence[RunRecord]) -> list[str]:
    """Folder names; numbered where two are equal."""
    names = [record.folder.resolve().name for record in records]
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _runs_table(records: Sequence[RunRecord], studies: Sequence[Study], names: Sequence[str]) -> dict[str, Any]:
    rows = []
    for record, study, name in zip(records, studies, names, strict=True):
        events = record.events()
        rows.append([
            name, study.name, status(events), str(study.seed), str(study.repeats), str(len(study.centres)),
            duration(wall_seconds(events)), share_text(working_share(events)),
            _digest(record)[:16] or "unknown",
        ])  # fmt: skip
    return {
        "caption": "",
        "header": [
            "Run",
            "Scenario",
            "Status",
            "Seed",
            "Repeats",
            "Centres",
            "Running time",
            "Work in centres",
            "Code",
        ],
        "text": [True, True, True, False, False, False, False, False, True],
        "rows": rows,
    }


def _warnings(records: Sequence[RunRecord], studies: Sequence[Study], names: Sequence[str]) -> list[str]:
    lines = [
        f"{name} is not complete ({status(record.events())}): its means may rest on fewer repeats."
        for record, name in zip(records, names, strict=True)
        if status(record.events()) != "completed"
    ]
    if len({_digest(record) for record in records}) > 1:
        lines.append("These runs were made by different versions of the code.")
    for record, study, name in zip(records, studies, names, strict=True):
        lines += [f"{name}: {line}" for line in trouble_lines(record.federations(), study).values()]
    return lines


def _digest(record: RunRecord) -> str:
    code = record.environment.get("code")
    return str(code.get("digest") if isinstance(code, dict) else code or "")


def _tables(found: Sequence[Sequence[Block]]) -> list[dict[str, Any]]:
    by_setting: list[dict[tuple[Setting, str], Block]] = [
        {(block.setting, centre): block for block in of_run for centre in block.tested_on} for of_run in found
    ]
    tables = []
    for key in dict.fromkeys(key for of_run in by_setting for key in of_run):
        setting, centre = key
        own = [of_run.get(key) for of_run in by_setting]
        arms = {row.arm.name: row.arm for block in own if block for row in block.rows}
        rows = []
        for name, arm in arms.items():
            entries = []
            for block in own:
                row = next((r for r in block.rows if r.arm.name == name), None) if block else None
                gain = difference_text(block.difference(row, centre)) if block and row else ""
                entries.append({
                    "value": spread_text(row.spread(centre, PRIMARY)) if row else "–",
                    "difference": f"{gain} better" if gain and gain != "–" else "",
                })  # fmt: skip
            rows.append({"name": name, "role": role_text(arm), "entries": entries})
        where = "" if centre == setting.receiver else f", tested at {centre} (out of domain)"
        tables.append({"title": setting_text(setting) + where, "rows": rows})
    return tables


def _differences(studies: Sequence[Study], names: Sequence[str]) -> dict[str, Any]:
    flat = [_flat(study.settings) for study in studies]
    keys = sorted({key for settings in flat for key in settings})
    rows = [
        [key, *(settings.get(key, "–") for settings in flat)] for key in keys if len({s.get(key) for s in flat}) > 1
    ]
    return {"caption": "", "header": ["Key", *names], "text": [True] * (1 + len(names)), "rows": rows}


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """{"study.use": "mix", ...}"""
    if isinstance(value, dict) and value:
        return {k: v for key, entry in value.items() for k, v in _flat(entry, f"{prefix}.{key}".lstrip(".")).items()}
    return {prefix: str(value)}
