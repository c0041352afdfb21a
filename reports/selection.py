"""Which generators were chosen, in arms that select among several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reports.study import Study


def selection_table(units: Sequence[dict[str, Any]], study: Study) -> dict[str, Any] | None:
    """A row for each arm, receiver, task and generator, the most chosen first; None when no cell selected anything.

    units: finished units; those of kind "learn" may carry result.selected, {generator: share of the synthetic images,
    0 to 1}. A generator that a cell does not name had share 0 there. Counted over cells: classifiers, sizes, repeats.
    """
    cells: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for info in units:
        result = info.get("result") or {}
        cell, selected = result.get("cell"), result.get("selected")
        if info.get("kind") == "learn" and cell and selected is not None:
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
