"""The section "Centres": what each centre says about its own data, as it says it (counts are rounded there, and small ones suppressed).

The survey is a row per centre. What was dealt out is a row per centre, split and class for up to `MANY` centres; beyond that a
row per split and class, with the range over centres.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd

from reports.section import Card, Context, Section
from reports.study import Study
from reports.timeline import Event

MANY = 20
# Names of two classes in records of earlier versions, in the order of the table.
_EARLIER = ("positive", "negative")
_SPLITS = {"train": "training", "val": "validation", "test": "test"}

_TEMPLATE = """
{% if tables %}{% for t in tables %}{{ plain_table(t) }}{% endfor %}
<p class="soft">Counts are rounded to 5, and 0 to 4 are shown as &lt;5. Splits are by patient.</p>
{% else %}<p>The record holds no survey.</p>{% endif %}
{% if notes %}<h3>Notes</h3><ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
"""


def _build(context: Context) -> dict[str, Any]:
    survey = survey_tables(context.cards, context.study)
    dealt = partition_tables(context.record.partition(), context.study)
    return {"tables": survey + dealt if survey else [], "notes": _notes(context.events)}


CENTRES = Section("centres", "Centres", "What the centres hold", _build, _TEMPLATE)


def _notes(events: Sequence[Event]) -> list[str]:
    """Each note once: a resumed run repeats those of its survey."""
    texts = [
        f"{e['centre']}: {e['text']}" if e.get("centre") else str(e.get("text")) for e in events if e["event"] == "note"
    ]
    return list(dict.fromkeys(texts))


# -- survey --------------------------------------------------------------------------------------------------------


def survey_tables(found: dict[tuple[str, str], Card], study: Study) -> list[dict[str, Any]]:
    """Two tables a task, a row for each centre in the scenario's order: how much it holds, and what that is like."""
    tables = []
    for task in dict.fromkeys(task for task, _ in found):
        own = {centre: card for (t, centre), card in found.items() if t == task}
        order = [c for c in study.centres if c in own] + sorted(set(own) - set(study.centres))
        tables += [_amounts(task, {c: own[c] for c in order}, study), _likeness({c: own[c] for c in order})]
    return tables


def _amounts(task: str, own: dict[str, Card], study: Study) -> dict[str, Any]:
    classes = study.classes.get(task, ())[::-1]
    caption = f"Task {task}: patients, and lesions or regions by split (by patient) and class."
    known = {
        centre: [centre, ", ".join((study.centres.get(centre) or {}).get("roles") or []), _words(card.get("patients"))]
        for centre, card in own.items()
    }

    def count(centre: str, split: str, name: str) -> str:
        boxes = (own[centre].get("boxes") or {}).get(split, {})
        earlier = _EARLIER[classes.index(name)] if len(classes) == 2 else name
        return _words(boxes.get(name, boxes.get(earlier)))

    if len(classes) <= 2:
        header = ["Centre", "Roles", "Patients", *(f"{_SPLITS[s]}, {n}" for s in _SPLITS for n in classes)]
        rows = [[*known[centre], *(count(centre, s, n) for s in _SPLITS for n in classes)] for centre in own]
        return {"caption": caption, "header": header, "text": [True, True] + [False] * (len(header) - 2), "rows": rows}
    header = ["Centre", "Roles", "Patients", "Class", *_SPLITS.values()]
    rows = [
        [*(known[centre] if name == classes[-1] else ["", "", ""]), name, *(count(centre, s, name) for s in _SPLITS)]
        for centre in own for name in reversed(classes)
    ]  # fmt: skip
    return {
        "caption": caption,
        "header": header,
        "text": [True, True, False, True] + [False] * len(_SPLITS),
        "rows": rows,
    }


def _likeness(own: dict[str, Card]) -> dict[str, Any]:
    keys = [
        k for k in dict.fromkeys(k for card in own.values() for k in card) if k not in ("patients", "boxes", "classes")
    ]
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


# -- partition -----------------------------------------------------------------------------------------------------


def partition_tables(rows: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """One table a task. rows: `RunRecord.partition()`; counts are rounded, small ones "<5"."""
    tables = []
    for task in dict.fromkeys(rows["task"]):
        own = rows[rows["task"] == task]
        centres = [c for c in study.centres if c in set(own["centre"])]
        own = own[own["centre"].isin(centres)]
        classes = study.classes.get(task, ())[::-1]
        if len(classes) == 2:
            own = own.replace({"class": dict(zip(_EARLIER, classes, strict=True))})
        if len(centres) <= MANY:
            tables.append(_each_centre(task, own, centres, classes))
        else:
            tables.append(_over_centres(task, own, len(centres), classes))
    return tables


def _each_centre(task: str, own: pd.DataFrame, centres: list[str], classes: Sequence[str]) -> dict[str, Any]:
    rows = [
        [centre, _SPLITS[split], name, *(str(value) or "–" for value in found[["patients", "images"]].iloc[0])]
        for centre in centres
        for split in _SPLITS
        for name in classes
        if len(found := _of_class(own[own["centre"] == centre], split, name))
    ]
    return {
        "caption": f"Task {task}, as dealt out: patients and images (lesions or regions, before they are cut into crops). "
        "Counts are rounded to 5.",
        "header": ["Centre", "Split", "Class", "Patients", "Images"],
        "text": [True, True, True, False, False],
        "rows": rows,
    }


def _over_centres(task: str, own: pd.DataFrame, centres: int, classes: Sequence[str]) -> dict[str, Any]:
    rows = []
    for split in _SPLITS:
        for name in classes:
            found = _of_class(own, split, name)
            counts = sorted(int(value) for value in found["images"] if str(value).isdigit())
            spread = [counts[0], f"{statistics.median(counts):g}", counts[-1]] if counts else ["–"] * 3
            rows.append([_SPLITS[split], name, len(found), len(found) - len(counts), *map(str, spread)])
    return {
        "caption": f"Task {task}, as dealt out to {centres} centres: images of those that give a number. Every centre's row is in "
        "partition.csv.",
        "header": ["Split", "Class", "Centres", "of them with fewer than 5", "Fewest", "Median", "Most"],
        "text": [True, True] + [False] * 5,
        "rows": rows,
    }  # fmt: skip


def _of_class(own: pd.DataFrame, split: str, name: str) -> pd.DataFrame:
    return own[(own["split"] == split) & (own["class"] == name)]
