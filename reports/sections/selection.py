"""The section "Chosen generators": which ones, in arms that select among several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reports.section import Context, Section
from reports.study import Study

_TEMPLATE = """
<p class="soft">Over the cells of an arm (classifiers, sizes of the training set, repeats): in how many of them a
generator was chosen, and its mean share of the synthetic images, 0 where it was not.</p>
{{ plain_table(table) }}
"""


def _build(context: Context) -> dict[str, Any] | None:
    table = selection_table(context.units, context.study)
    return {"table": table} if table else None


SELECTION = Section("selection", "Chosen generators", "Which generators were chosen", _build, _TEMPLATE)


def selection_table(units: Sequence[dict[str, Any]], study: Study) -> dict[str, Any] | None:
    """A row for each arm, receiver, task and generator, the most chosen first; None when nothing was selected.

    units: finished units; that of a cell may carry result.selected, {generator: share of the synthetic images, 0 to 1}.
    A generator that a cell does not name had share 0 there. Counted over cells: classifiers, sizes, repeats.
    """
    cells: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for info in units:
        result = info.get("result") or {}
        cell, selected = result.get("cell"), result.get("selected")
        if cell and selected is not None:
            cells.setdefault((cell["arm"], cell["receiver"], cell["task"]), []).append(selected)
    if not cells:
        return None
    order = {name: i for i, name in enumerate(study.arms)}
    rows = []
    for (arm, receiver, task), own in sorted(cells.items(), key=lambda kv: (order.get(kv[0][0], len(order)), *kv[0])):
        shares = {
            name: [float(cell.get(name) or 0.0) for cell in own] for name in sorted({n for cell in own for n in cell})
        }
        for name, values in sorted(shares.items(), key=lambda item: (-np.mean(item[1]), item[0])):
            chosen = sum(value > 0 for value in values)
            rows.append([arm, receiver, task, name, f"{chosen} of {len(own)}", f"{100 * np.mean(values):.0f} %"])
        if not shares:
            rows.append([arm, receiver, task, "none", f"0 of {len(own)}", "–"])
    return {
        "caption": "",
        "header": ["Arm", "Receiver", "Task", "Generator", "Chosen in cells", "Mean share"],
        "text": [True, True, True, True, False, False],
        "rows": rows,
    }
