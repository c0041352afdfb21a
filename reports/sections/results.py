"""The section "Results": for each setting a figure that compares the arms, and the main table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metrics.classification import OF
from reports.findings import BADGES, Finding
from reports.kinds import MetricWords
from reports.pictures import GREY, INK, STYLE, WIDTH_IN, Picture, picture
from reports.section import Context, Section
from reports.study import Arm, Study
from reports.tables import (
    PRIMARY,
    Block,
    EvaluationSet,
    block_title,
    classes_of,
    count_text,
    difference_text,
    evaluation_text,
    heading,
    mean_and_sd,
    metrics_of,
    not_percent,
    points,
    role_text,
    spread_text,
    troubles_of,
)

# Column groups of one table; further test centres go into a table below, so that a page holds it.
_GROUPS = 2

_TEMPLATE = """
{%- macro result_table(t, metrics) -%}
<div class="wide"><table class="full">
<caption>{{ t.captions|join("\n") }}</caption>
<thead>
<tr class="group"><td></td><th scope="colgroup" colspan="2">Training images</th>
{% for g in t.groups %}<th scope="colgroup" class="first" colspan="{{ metrics|length + 1 }}">at {{ g }}</th>
{% endfor %}</tr>
<tr><th scope="col" class="text">Arm</th><th scope="col">own</th><th scope="col">added</th>
{% for g in t.groups %}
{% for m in metrics %}<th scope="col"{% if loop.first %} class="first"{% endif %}>{{ m }}</th>
{% endfor %}<th scope="col">vs baseline</th>
{% endfor %}</tr>
</thead>
<tbody>
{% for row in t.rows %}<tr class="{{ row.css }}">
<th scope="row"><span class="mark" style="background:{{ row.colour }}"></span>{{ row.name }}
{% for line in row.lines %}<small>{{ line }}</small>{% endfor %}</th>
<td>{{ row.n_real }}</td><td>{{ row.n_synthetic }}</td>
{% for g in row.groups %}
{% for entry in g.entries %}<td{% if loop.first %} class="first"{% endif %}>{{ entry.mean }}
{%- if entry.sd %}<small class="line">({{ entry.sd }})</small>{% endif %}</td>
{% endfor %}
<td class="{{ g.css }}">
{% if g.difference %}<strong>{{ g.difference }}</strong>{% if g.sd %} <small>({{ g.sd }})</small>{% endif %}
<small class="line">{{ g.better }}</small>{% if g.interval %}<small class="line">{{ g.interval }}</small>{% endif %}
{% endif %}</td>
{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{%- endmacro -%}

<p class="soft">Percent: mean (standard deviation over repeats). {{ not_percent }}
“vs baseline” is the difference in AUROC in percentage
points, paired by repeat{% if baseline %}, against <strong>{{ baseline }}</strong>{% endif %}; below it, in how many
repeats the arm was better, and in brackets the 95 % interval over test patients. Green or red only where that
reads “helped” or “hurt” by the rule under <a href="#limits">Limits</a>.
Of the training images, “own” are the receiver's real ones; “added” are synthetic, or what an upper bound (real images
of another centre) or a control (own images again) adds in their place.</p>
{% for b in blocks %}
<h3>{{ b.title }}</h3>
{{ picture(b.picture, "Each dot is one repeat, the bar their mean, the dashed line the mean of the baseline. "
                      ~ "The axis does not start at zero.") }}
{% for t in b.tables %}{{ result_table(t, metrics) }}{% endfor %}
{% for t in b.by_class %}{{ plain_table(t) }}{% endfor %}
{% for line in b.troubles %}<p class="note">{{ line }}</p>{% endfor %}
{% endfor %}
"""


def _build(context: Context) -> dict[str, Any] | None:
    if not context.blocks:
        return None
    study, metrics = context.study, metrics_of(context.blocks, context.study)
    return {
        "metrics": [heading(words) for words in metrics.values()],
        "not_percent": not_percent(metrics.values()),
        "baseline": study.baseline.name if study.baseline else None,
        "blocks": [
            {
                "title": block_title(block),
                "picture": comparison(block, context.colours),
                "tables": [
                    _result_table(block, block.tested_on[start : start + _GROUPS], metrics, study, context.sets,
                                  context.colours, {c: context.judged[i, c] for c in block.tested_on})
                    for start in range(0, len(block.tested_on), _GROUPS)
                ],
                "by_class": [_by_class(block, centre, study) for centre in block.tested_on if classes_of(block, PRIMARY)],
                "troubles": troubles_of(block, context.troubles),
            }
            for i, block in enumerate(context.blocks)
        ],
    }  # fmt: skip


RESULTS = Section("results", "Results", "Results", _build, _TEMPLATE)


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
                    f"{row.arm.name} at {centre} {spread_text(row.spread(centre, PRIMARY))}"
                    + (f" ({gain} better)" if gain else "")
                )
            where = "its own test images" if centre == block.setting.receiver else "out of domain"
            axes.set_title(f"{heading()} at {centre}, {where} (%)")
            axes.set_ylim(len(rows) - 0.45, -0.55)
            axes.set_yticks(range(len(rows)), [row.arm.name for row in rows])
            axes.tick_params(axis="y", length=0)
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.grid(axis="x")
            axes.set_axisbelow(True)
            axes.spines["left"].set_visible(False)
        figure.tight_layout(w_pad=2)
        return picture(figure, f"Dots: {heading()} of each repeat by arm; bar: mean. In percent: " + "; ".join(words))


def _result_table(
    block: Block,
    centres: Sequence[str],
    metrics: Mapping[str, MetricWords],
    study: Study,
    sets: dict[tuple[str, str], EvaluationSet],
    colours: dict[str, str],
    judged: dict[str, list[Finding]],
) -> dict[str, Any]:
    repeats = max((s.n for row in block.rows for c in centres for m in metrics if (s := row.spread(c, m)).n), default=0)
    rows = []
    for row in block.rows:
        groups = []
        for centre in centres:
            texts = [mean_and_sd(row.spread(centre, m), words) for m, words in metrics.items()]
            entries = [{"mean": mean, "sd": sd} for mean, sd in texts]
            finding = next((f for f in judged[centre] if f.arm.name == row.arm.name), None)
            groups.append({"entries": entries, **_difference_entry(finding)})
        n = max((row.spread(c, m).n for c in centres for m in metrics), default=0)
        lines = [row.arm.title, role_text(row.arm), f"{n} of {repeats} repeats" if n < repeats else ""]
        rows.append(
            {
                "name": row.arm.name,
                "lines": [line for line in lines if line],
                "css": _row_class(row.arm),
                "colour": colours.get(row.arm.name, INK),
                "n_real": count_text(row.n_real),
                "n_synthetic": count_text(row.n_synthetic),
                "groups": groups,
            }
        )
    names = [c + (", its own test images" if c == block.setting.receiver else ", out of domain") for c in centres]
    return {
        "captions": [evaluation_text(block, c, study, sets) for c in centres],
        "groups": names,
        "rows": rows,
    }


def _by_class(block: Block, centre: str, study: Study) -> dict[str, Any]:
    """AUROC of each class against all others, a row for each arm."""
    found = classes_of(block, PRIMARY)
    classes = [name for name in study.classes.get(block.setting.task, ()) if name in found] or found
    return {
        "caption": f"{heading()} at {centre} of each class against all others. –: the test set holds no image of it.",
        "header": ["Arm", *classes],
        "text": [True] + [False] * len(classes),
        "rows": [
            [row.arm.name, *(spread_text(row.spread(centre, PRIMARY + OF + name)) for name in classes)]
            for row in block.rows
        ],
    }


def _difference_entry(finding: Finding | None) -> dict[str, str]:
    if finding is None or finding.difference.spread.n == 0:
        return {"difference": "", "sd": "", "better": "", "interval": "", "css": ""}
    s = finding.difference.spread
    over = finding.interval
    return {
        "difference": points(s.mean),
        "sd": f"{100 * s.sd:.1f}" if s.n > 1 else "",
        "better": f"{finding.difference.better}/{s.n} better",
        "interval": f"[{points(over[0])}, {points(over[1])}]" if over else "",
        "css": BADGES[finding.verdict] if finding.verdict in ("helped", "hurt") else "",
    }


def _row_class(arm: Arm) -> str:
    return {"baseline": "baseline", "control": "control", "upper bound": "upper", "candidate": ""}[arm.role]
