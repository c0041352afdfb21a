"""table.md: the main table as text."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from reports.study import Study
from reports.tables import (
    Block,
    EvaluationSet,
    Troubles,
    count_text,
    difference_text,
    evaluation_text,
    heading,
    metrics_of,
    not_percent,
    role_text,
    setting_text,
    spread_text,
    troubles_of,
    unplaced,
)


def markdown(
    found: Sequence[Block],
    study: Study,
    sets: dict[tuple[str, str], EvaluationSet],
    troubles: Troubles = MappingProxyType({}),
    refusals: Sequence[str] = (),
) -> str:
    """The main table as Markdown, one part for each test centre, padded so that it reads well in a terminal too.

    troubles: what to say under each table that has the arm, and at the end of those that no table has. refusals: what centres
    would not do, said at the end.
    """
    lines = [f"# {study.name}", ""]
    at_the_end = [line for said in (*unplaced(troubles, found), *refusals) for line in (said, "")]
    if not found:
        return "\n".join([*lines, "No classifier was tested yet.", "", *at_the_end])
    metrics = metrics_of(found, study)
    for block in found:
        lines += [f"## {setting_text(block.setting)}", ""]
        for centre in block.tested_on:
            rows = [["Arm", "Own", "Added", *map(heading, metrics.values()), f"{heading()} vs baseline"]]
            for row in block.rows:
                role = role_text(row.arm)
                name = row.arm.name + (f" ({role})" if role else "")
                measured = [spread_text(row.spread(centre, m), words) for m, words in metrics.items()]
                images = [count_text(row.n_real), count_text(row.n_synthetic)]
                rows.append([name, *images, *measured, difference_text(block.difference(row, centre))])
            lines += [evaluation_text(block, centre, study, sets), "", *_padded(rows), ""]
        lines += [line for trouble in troubles_of(block, troubles) for line in (trouble, "")]
    lines += at_the_end
    lines += [line for line in (not_percent(metrics.values()),) if line]
    lines += [
        "Own: the receiver's real training images. Added: synthetic ones, or what an upper bound or a control adds.",
        "Percent: mean (standard deviation over repeats). Against the baseline: difference in points, by repeat,",
        "mean (standard deviation), and in how many repeats it was higher. A repeat trains the classifier anew, on a new",
        "draw of the receiver's patients where fewer than all are used; each generator was trained once: its own variance",
        "is not in these numbers.",
        "",
    ]
    return "\n".join(lines)


def _padded(rows: list[list[str]]) -> list[str]:
    rows = [[entry.replace("|", "\\|") for entry in row] for row in rows]
    widths = [max(4, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]
