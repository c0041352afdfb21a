"""The survey as tables: what each centre says about its own data, as it said it (small cells suppressed there)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reports.study import Study

Card = dict[str, Any]
_SPLITS = {"train": "training", "val": "validation", "test": "test"}


def cards(units: Iterable[dict[str, Any]]) -> dict[tuple[str, str], Card]:
    """(task, centre) -> data card, from the results of the survey's units: {"tasks": {task: {"card": ...}}}."""
    found = {}
    for info in units:
        if info.get("kind") == "survey":
            for task, entry in ((info.get("result") or {}).get("tasks") or {}).items():
                found[task, str(info.get("centre"))] = entry["card"]
    return found


def survey_tables(found: dict[tuple[str, str], Card], study: Study) -> list[dict[str, Any]]:
    """Two tables a task, a row for each centre in the scenario's order: how much it holds, and what that is like."""
    tables = []
    for task in dict.fromkeys(task for task, _ in found):
        own = {centre: card for (t, centre), card in found.items() if t == task}
        order = [c for c in study.centres if c in own] + sorted(set(own) - set(study.centres))
        tables += [_amounts(task, {c: own[c] for c in order}, study), _kinds({c: own[c] for c in order})]
    return tables


def _amounts(task: str, own: dict[str, Card], study: Study) -> dict[str, Any]:
    positive = study.positive.get(task, "positive")
    header = [
        "Centre",
        "Roles",
        "Patients",
        *(f"{_SPLITS[s]}, {n}" for s in _SPLITS for n in (positive, f"not {positive}")),
    ]
    rows = [
        [
            centre,
            ", ".join((study.centres.get(centre) or {}).get("roles") or []),
            _words(card.get("patients")),
            *(_words((card.get("boxes") or {}).get(s, {}).get(n)) for s in _SPLITS for n in ("positive", "negative")),
        ]
        for centre, card in own.items()
    ]
    return {
        "caption": f"Task {task}: patients, and lesions or regions by split (by patient) and class.",
        "header": header,
        "text": [True, True] + [False] * 7,
        "rows": rows,
    }


def _kinds(own: dict[str, Card]) -> dict[str, Any]:
    keys = [k for k in dict.fromkeys(k for card in own.values() for k in card) if k not in ("patients", "boxes")]
    return {
        "caption": "What they are like.",
        "header": ["Centre", *(key.replace("_", " ") for key in keys)],
        "text": [True] * (1 + len(keys)),
        "rows": [[centre, *(_words(card.get(key)) for key in keys)] for centre, card in own.items()],
    }


def _words(value: Any) -> str:
    """A number, a text, or a small table of counts ("a 12, b <5")."""
    if value is None or value == {} or value == []:
        return "–"
    if isinstance(value, dict):
        # No line break between a key and its number.
        return ", ".join(f"{key or 'none'}\N{NO-BREAK SPACE}{_words(entry)}" for key, entry in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
