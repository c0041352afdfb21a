"""The findings and the main table, laid out for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from reports.figures import comparison
from reports.findings import Finding
from reports.pictures import INK
from reports.study import Arm, Study
from reports.tables import (
    Block,
    EvaluationSet,
    Troubles,
    count_text,
    evaluation_text,
    metrics_of,
    points,
    role_text,
    setting_text,
    troubles_of,
)

# Column groups of one table; further test centres go into a table below, so that a page holds it.
_GROUPS = 2
_BADGES = {"helped": "helped", "hurt": "hurt", "unclear": "unclear", "too few repeats": "few", "not measured": "none"}


def result_block(
    block: Block,
    study: Study,
    sets: dict[tuple[str, str], EvaluationSet],
    colours: dict[str, str],
    judged: dict[str, list[Finding]],
    troubles: Troubles,
) -> dict[str, Any]:
    n_real = block.baseline.n_real if block.baseline else math.nan
    return {
        "title": f"At {setting_text(block.setting)}" + (f" ({count_text(n_real)})" if not math.isnan(n_real) else ""),
        "findings": [
            {"verdict": f.verdict, "css": _BADGES[f.verdict], "sentence": f.sentence, "role": role_text(f.arm)}
            for f in judged[block.setting.receiver]
        ],
        "no_findings": "Only the baseline was tested."
        if block.baseline
        else "No baseline (an arm of strategy local) was tested, so nothing can be compared.",
        "picture": comparison(block, colours),
        "tables": [
            _result_table(block, block.tested_on[i : i + _GROUPS], study, sets, colours, judged)
            for i in range(0, len(block.tested_on), _GROUPS)
        ],
        "troubles": troubles_of(block, troubles),
    }


def _result_table(
    block: Block,
    centres: Sequence[str],
    study: Study,
    sets: dict[tuple[str, str], EvaluationSet],
    colours: dict[str, str],
    judged: dict[str, list[Finding]],
) -> dict[str, Any]:
    metrics = metrics_of([block])
    repeats = max((s.n for row in block.rows for c in centres for m in metrics if (s := row.spread(c, m)).n), default=0)
    rows = []
    for row in block.rows:
        groups = []
        for centre in centres:
            spreads = [row.spread(centre, m) for m in metrics]
            cells = [
                {
                    "mean": f"{100 * s.mean:.1f}" if s.n else "–",
                    "sd": f"{100 * s.sd:.1f}" if s.n > 1 else "",
                }
                for s in spreads
            ]
            finding = next((f for f in judged[centre] if f.arm.name == row.arm.name), None)
            groups.append({"cells": cells, **_difference_cell(finding)})
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


def _difference_cell(finding: Finding | None) -> dict[str, str]:
    if finding is None or finding.difference.spread.n == 0:
        return {"difference": "", "sd": "", "better": "", "interval": "", "css": ""}
    s = finding.difference.spread
    over = finding.interval
    return {
        "difference": points(s.mean),
        "sd": f"{100 * s.sd:.1f}" if s.n > 1 else "",
        "better": f"{finding.difference.better}/{s.n} better",
        "interval": f"[{points(over[0])}, {points(over[1])}]" if over else "",
        "css": _BADGES[finding.verdict] if finding.verdict in ("helped", "hurt") else "",
    }


def _row_class(arm: Arm) -> str:
    return {"baseline": "baseline", "control": "control", "upper bound": "upper", "candidate": ""}[arm.role]
