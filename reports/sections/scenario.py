"""The section "Scenario": the resolved scenario and the machine, as recorded."""

from __future__ import annotations

import json
from typing import Any

from reports.section import Context, Section

_TEMPLATE = """
<details><summary>Resolved scenario (seed {{ seed }})</summary><pre>{{ scenario_yaml }}</pre></details>
<details><summary>Environment</summary><pre>{{ environment }}</pre></details>
"""


def _build(context: Context) -> dict[str, Any]:
    return {
        "seed": context.study.seed,
        "scenario_yaml": context.record.scenario_yaml,
        "environment": json.dumps(context.environment, indent=1, ensure_ascii=False),
    }


SCENARIO = Section("scenario", "Scenario", "The scenario and the machine", _build, _TEMPLATE)
