"""The section "Findings": a sentence about each arm, and what a reader must know before believing it."""

from __future__ import annotations

from typing import Any

from reports.findings import BADGES, caution
from reports.section import Context, Section
from reports.tables import block_title, role_text, unplaced

_TEMPLATE = """
{% if not blocks %}<p>No classifier was tested yet, so there is nothing to find.</p>{% endif %}
{% for b in blocks %}
<h3>{{ b.title }}</h3>
{% if b.findings %}<ul class="findings">
{% for f in b.findings %}<li><span class="badge {{ f.css }}">{{ f.verdict }}</span>
<span>{{ f.sentence }}{% if f.role %} <span class="soft">({{ f.role }})</span>{% endif %}</span></li>
{% endfor %}</ul>
{% else %}<p>{{ b.no_findings }}</p>{% endif %}
{% endfor %}
{% if caution %}<p class="note">{{ caution }}</p>{% endif %}
{% for line in troubles %}<p class="note">{{ line }}</p>{% endfor %}
"""


def _build(context: Context) -> dict[str, Any]:
    at_home = [context.judged[i, block.setting.receiver] for i, block in enumerate(context.blocks)]
    return {
        "blocks": [
            {
                "title": block_title(block),
                "findings": [
                    {"verdict": f.verdict, "css": BADGES[f.verdict], "sentence": f.sentence, "role": role_text(f.arm)}
                    for f in found
                ],
                "no_findings": "Only the baseline was tested."
                if block.baseline
                else "No baseline (an arm in which nothing is shared) was tested, so nothing can be compared.",
            }
            for block, found in zip(context.blocks, at_home, strict=True)
        ],
        "caution": caution([finding for found in at_home for finding in found]),
        "troubles": unplaced(context.troubles, context.blocks),
    }


FINDINGS = Section("findings", "Findings", "Findings", _build, _TEMPLATE)
