"""The section "Simulated time": how fast each federation went on the virtual clock, and who held it up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.kinds import Kinds
from reports.quantities import duration, share_text
from reports.record_files import OUTCOMES
from reports.section import Context, Section
from reports.sections.simulated_time.figure import lane_chart
from reports.sections.simulated_time.jobs import CentreTime, Simulation, centre_times, most_affected, simulations
from reports.study import Study
from reports.tables import Troubles, count_text

# Of more centres than this, chart and table show those that were affected most.
CENTRES_SHOWN = 20

_TEMPLATE = """
<p class="soft">Speeds, delays and outages are declared in the scenario, and a virtual clock orders the replies by them:
these seconds did not pass, and they do not depend on this machine.</p>
{{ plain_table(summary) }}
{% for part in parts %}
<h3>{{ part.title }}</h3>
{% if part.trouble %}<p class="note">{{ part.trouble }}</p>{% endif %}
{% if part.left_out %}<p class="soft">{{ part.left_out }}</p>{% endif %}
{{ picture(part.picture, "One lane a centre: bars are computing, marks are jobs that were not used.") }}
{{ plain_table(part.table) }}
{% endfor %}
"""


def _build(context: Context) -> dict[str, Any] | None:
    rows = context.record.virtual_time()
    return simulated_section(rows, context.federations, context.troubles, context.study, context.kinds)


SIMULATED_TIME = Section("simulated", "Simulated time", "Simulated time", _build, _TEMPLATE)


def simulated_section(
    table: pd.DataFrame, federations: Sequence[dict[str, Any]], troubles: Troubles, study: Study, kinds: Kinds
) -> dict[str, Any] | None:
    """A summary of all federations, and a chart and a table for each; None when nothing was simulated in time.

    table: virtual_time.csv. federations: the entries of federations.json; troubles: their lines.
    """
    found = simulations(table, study)
    if not found:
        return None
    entries = {(f["arm"], f["task"]): f for f in federations}
    several = len({s.task for s in found}) > 1
    times = [centre_times(s, list(study.centres)) for s in found]
    parts = []
    for simulation, own in zip(found, times, strict=True):
        entry = entries.get((simulation.arm, simulation.task))
        shown = most_affected(own, CENTRES_SHOWN)
        parts.append({
            "title": _name(simulation, several),
            "trouble": troubles.get((simulation.arm, simulation.task), ""),
            "left_out": _left_out(shown, own),
            "picture": lane_chart(simulation, shown, entry, len(own)),
            "table": _centres_table(shown, own),
        })  # fmt: skip
    return {"summary": _summary_table(found, times, entries, study, kinds), "parts": parts}


def _name(simulation: Simulation, several_tasks: bool) -> str:
    return simulation.arm + (f", {simulation.task}" if several_tasks else "")


def _left_out(shown: Sequence[CentreTime], own: Sequence[CentreTime]) -> str:
    if len(shown) == len(own):
        return ""
    return (
        f"Shown are the {len(shown)} of {count_text(len(own))} centres with the most jobs that were not used, of equals the "
        "slowest. The last rows of the table are over all centres."
    )


def _summary_table(
    found: Sequence[Simulation],
    times: Sequence[Sequence[CentreTime]],
    entries: dict[tuple[str, str], dict[str, Any]],
    study: Study,
    kinds: Kinds,
) -> dict[str, Any]:
    several_tasks = len({s.task for s in found}) > 1
    outcomes = [o for o in OUTCOMES if any(job.outcome == o for s in found for job in s.jobs)]
    rows = []
    for simulation, own in zip(found, times, strict=True):
        entry = entries.get((simulation.arm, simulation.task))
        steps = None if entry is None else entry["rounds_or_updates"]
        rate = steps / simulation.seconds if steps is not None and simulation.seconds > 0 else math.nan
        word = study.arm(simulation.arm).step
        rows.append([
            _name(simulation, several_tasks),
            kinds.strategy_title(simulation.strategy),
            duration(simulation.seconds),
            "–" if steps is None else f"{count_text(steps)} {word}{'' if steps == 1 else 's'}",
            "–" if math.isnan(rate) else f"{rate:.3g}",
            _spread([t.share for t in own], share_text),
            count_text(len(simulation.jobs)),
            *(count_text(sum(t.outcomes[o] for t in own)) for o in outcomes),
        ])  # fmt: skip
    return {
        "caption": "On the virtual clock. Computing: share of the simulated time, smallest / median / largest of the centres.",
        "header": [
            "Federation",
            "Strategy",
            "Simulated time",
            "Steps",
            "per simulated second",
            "Computing",
            "Jobs",
            *outcomes,
        ],
        "text": [True, True] + [False] * (5 + len(outcomes)),
        "rows": rows,
    }


def _centres_table(shown: Sequence[CentreTime], own: Sequence[CentreTime]) -> dict[str, Any]:
    outcomes = [o for o in OUTCOMES if any(t.outcomes[o] for t in own)]
    stale = any(not math.isnan(t.staleness) for t in own)
    rows = [
        [
            t.centre, share_text(t.share), _seconds(t.median_s), count_text(t.jobs),
            *(count_text(t.outcomes[o]) for o in outcomes), *([_number(t.staleness)] if stale else []),
        ]
        for t in shown
    ]  # fmt: skip
    if len(own) > len(shown):
        for name, choose in (("all: smallest", np.nanmin), ("all: median", np.nanmedian), ("all: largest", np.nanmax)):
            rows.append([
                name, share_text(_over(choose, [t.share for t in own])), _seconds(_over(choose, [t.median_s for t in own])),
                *(count_text(_over(choose, [float(n) for n in counts])) for counts in (
                    [t.jobs for t in own], *([t.outcomes[o] for t in own] for o in outcomes)
                )),
                *([_number(_over(choose, [t.staleness for t in own]))] if stale else []),
            ])  # fmt: skip
    return {
        "caption": "",
        "header": [
            "Centre",
            "Computing",
            "Seconds a job (median)",
            "Jobs",
            *outcomes,
            *(["Mean staleness"] if stale else []),
        ],
        "text": [True] + [False] * (3 + len(outcomes) + stale),
        "rows": rows,
    }


def _over(choose: Any, values: Sequence[float]) -> float:
    return math.nan if all(math.isnan(v) for v in values) else float(choose(values))


def _spread(values: Sequence[float], words: Any) -> str:
    """ "20 % / 50 % / 90 %"; one number for a single centre."""
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return "–"
    return (
        words(known[0])
        if len(known) == 1
        else " / ".join(map(words, (min(known), float(np.median(known)), max(known))))
    )


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g} s"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"
