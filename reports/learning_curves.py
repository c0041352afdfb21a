"""Learning curves of generators and classifiers, from the histories in their units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.figures import curves
from reports.pictures import Picture
from reports.study import Study


def generator_curves(units: Sequence[dict[str, Any]]) -> Picture | None:
    panels = {}
    for info in units:
        history = (info.get("result") or {}).get("history") if info.get("kind") == "train_generator" else None
        if history and history.get("step"):
            lines = {
                name: [(history["step"], values)]
                for name, values in history.items()
                if name != "step" and _is_curve(values, len(history["step"]))
            }
            if lines:
                panels[f"{info.get('label') or info['unit']}"] = lines
    if not panels:
        return None
    alt = "Training losses of " + "; ".join(f"{title}: {', '.join(lines)}" for title, lines in panels.items())
    return curves(dict(sorted(panels.items())), x_label="step", alt=alt)


def classifier_curves(units: Sequence[dict[str, Any]], study: Study, colours: dict[str, str]) -> Picture | None:
    panels: dict[str, dict[str, list[Any]]] = {}
    for info in units:
        result = info.get("result") or {}
        cell, history = result.get("cell"), result.get("history")
        if info.get("kind") != "learn" or not cell or not history or not history.get("val_auprc"):
            continue
        size = cell.get("real_images") or cell.get("real_fraction")
        title = f"{cell['receiver']}, {cell['task']}, {cell['classifier']}, " + (
            f"{size} images" if size and size > 1 else f"{100 * (size or 1):g} %"
        )
        panels.setdefault(title, {}).setdefault(cell["arm"], []).append((history["step"], history["val_auprc"]))
    if not panels:
        return None
    order = list(study.arms)
    panels = {
        title: dict(sorted(lines.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))
        for title, lines in sorted(panels.items())
    }
    alt = "AUPRC on validation images over training steps for " + "; ".join(
        f"{title}: {', '.join(lines)}" for title, lines in panels.items()
    )
    return curves(panels, x_label="step", alt=alt, colours=colours)


def _is_curve(values: Any, n: int) -> bool:
    return isinstance(values, list) and len(values) == n and any(isinstance(v, int | float) for v in values)
