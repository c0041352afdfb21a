"""partition.csv as tables: what each centre holds by split and class, in patients and images, as the centre said it.

A row per centre, split and class for up to MANY centres; beyond that a row per split and class, with the range over centres.
"""

from __future__ import annotations

import statistics
from typing import Any

import pandas as pd

from reports.study import Study

MANY = 20
_SPLITS = {"train": "training", "val": "validation", "test": "test"}


def partition_tables(rows: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """One table a task. rows: `RunRecord.partition()`; small counts are "<5", held-back ones "5 or more" or ""."""
    tables = []
    for task in dict.fromkeys(rows["task"]):
        own = rows[rows["task"] == task]
        centres = [c for c in study.centres if c in set(own["centre"])]
        own = own[own["centre"].isin(centres)]
        classes = {"positive": study.positive.get(task, "positive")}
        classes["negative"] = f"not {classes['positive']}"
        if len(centres) <= MANY:
            tables.append(_each(task, own, centres, classes))
        else:
            tables.append(_together(task, own, len(centres), classes))
    return tables


def _each(task: str, own: pd.DataFrame, centres: list[str], classes: dict[str, str]) -> dict[str, Any]:
    rows = [
        [centre, _SPLITS[split], word, *(str(value) or "–" for value in found[["patients", "images"]].iloc[0])]
        for centre in centres
        for split in _SPLITS
        for name, word in classes.items()
        if len(found := _cells(own[own["centre"] == centre], split, name))
    ]
    return {
        "caption": f"Task {task}, as dealt out: patients and images (lesions or regions, before they are cut into crops). "
        "What a centre holds none of is left out.",
        "header": ["Centre", "Split", "Class", "Patients", "Images"],
        "text": [True, True, True, False, False],
        "rows": rows,
    }


def _together(task: str, own: pd.DataFrame, centres: int, classes: dict[str, str]) -> dict[str, Any]:
    rows = []
    for split in _SPLITS:
        for name, word in classes.items():
            found = _cells(own, split, name)
            told = sorted(int(value) for value in found["images"] if str(value).isdigit())
            spread = [told[0], f"{statistics.median(told):g}", told[-1]] if told else ["–"] * 3
            rows.append([_SPLITS[split], word, len(found), len(found) - len(told), *map(str, spread)])
    return {
        "caption": f"Task {task}, as dealt out to {centres} centres: images of those that say a number. Every centre's row is in "
        "partition.csv.",
        "header": ["Split", "Class", "Centres with any", "of them with fewer than 5", "Fewest", "Median", "Most"],
        "text": [True, True] + [False] * 5,
        "rows": rows,
    }  # fmt: skip


def _cells(own: pd.DataFrame, split: str, name: str) -> pd.DataFrame:
    return own[(own["split"] == split) & (own["class"] == name)]
