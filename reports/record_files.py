"""The tables and lists of a run folder: their columns, what makes a row unique, and how they are written and read.

`RunRecord` is what others use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from basics.atomic_files import write_text
from basics.csv_table import read_cell, to_csv


class RecordError(ValueError):
    """A folder that does not hold a run, holds one already, or is given what it cannot hold."""


@dataclass(frozen=True)
class CsvTable:
    """A CSV file: the same bytes for the same rows, whatever their order.

    Attributes:
        numbers: the columns that hold numbers and sort by them; the others are text.
        key: no two rows agree in all of these columns; without them, rows may repeat.
        choices: column -> the values it may hold.
    """

    file: str
    columns: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def write(self, folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the file.

        Raises:
            RecordError: two rows with the same key, or a value that is not one of the choices.
            ValueError: a row with other columns.
        """
        rows = list(rows)
        _refuse_unknown(rows, self.choices, self.file)
        _refuse_doubles(rows, self.key, self.file)
        write_text(folder / self.file, to_csv(rows, self.columns, self.numbers))

    def read(self, folder: Path) -> pd.DataFrame:
        """The table; without rows when there is no file."""
        path = folder / self.file
        if not path.exists():
            return pd.DataFrame({n: pd.Series(dtype=float if n in self.numbers else object) for n in self.columns})
        # Everything as text first: pandas would take a centre called "NA" or "None" for a missing value.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for name in table.columns:
            if name in self.numbers:
                column = pd.to_numeric(table[name], errors="coerce")
                if not (column.isna() & (table[name] != "")).any():  # a size given in words ("100 images") stays text
                    table[name] = column
                    continue
            read = {cell: read_cell(cell) for cell in table[name].unique()}
            table[name] = table[name].map(read)
        return table


@dataclass(frozen=True)
class Entries:
    """A list of JSON objects with the same keys.

    Attributes:
        keys: every entry has these, and is written in their order.
        key: no two entries agree in all of these.
        optional: keys that an entry may lack.
        choices: key -> the values it may hold.
        in_order: whether the order of the entries means something; otherwise they are sorted by `key`, so that the same
            entries give the same bytes.
    """

    what: str
    keys: tuple[str, ...]
    key: tuple[str, ...]
    optional: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    in_order: bool = False

    def checked(self, entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The entries as they are written.

        Raises:
            RecordError: other keys, two entries with the same key, or a value that is not one of the choices.
        """
        entries = list(entries)
        for entry in entries:
            missing, unknown = set(self.keys) - set(entry), set(entry) - set(self.keys) - set(self.optional)
            if missing or unknown:
                raise RecordError(
                    f"{self.what}: an entry lacks the keys {sorted(missing)} and has the unknown keys {sorted(unknown)}"
                )
        _refuse_unknown(entries, self.choices, self.what)
        _refuse_doubles(entries, self.key, self.what)
        if not self.in_order:
            entries.sort(key=lambda entry: tuple(str(entry[name]) for name in self.key))
        return [{key: entry[key] for key in (*self.keys, *self.optional) if key in entry} for entry in entries]


PARTITION = CsvTable("partition.csv", ("centre", "task", "split", "class", "patients", "images", "digest"))
RESULTS = CsvTable(
    "results.csv",
    ("arm", "strategy", "task", "classifier", "real_fraction", "repeat", "tested_on", "metric", "value", "receiver", "n_real",
     "n_synthetic"),
    numbers=("real_fraction", "repeat", "value", "n_real", "n_synthetic"),
    # Two values for one of these would count a repeat twice.
    key=("arm", "task", "classifier", "real_fraction", "repeat", "receiver", "tested_on", "metric"),
)  # fmt: skip
# A row for each image and class, of two classes for the second alone. label: 1 where the image shows the class, else 0.
PREDICTIONS = CsvTable(
    "predictions.csv",
    ("arm", "task", "classifier", "real_fraction", "repeat", "receiver", "tested_on", "case", "patient", "class", "label",
     "probability"),
    numbers=("real_fraction", "repeat", "case", "patient", "label", "probability"),
)  # fmt: skip
# images_seen: real images that the centre's discriminator has seen until then. floor: distance of one half of the real
# reference to the other. central: one model on pooled data, at the centre where it was trained.
CONVERGENCE = CsvTable(
    "convergence.csv",
    ("arm", "task", "series", "centre", "round", "images_seen", "virtual_s", "metric", "value", "floor"),
    numbers=("round", "images_seen", "virtual_s", "value", "floor"),
    key=("arm", "task", "series", "centre", "round", "metric"),
    choices={"series": ("federation", "alone", "central")},
)
OUTCOMES = ("used", "stale", "late", "lost", "outage", "refused")
# number: of the round, or count of updates when the job was sent. A time that never came is empty.
VIRTUAL_TIME = CsvTable(
    "virtual_time.csv",
    (
        "arm",
        "task",
        "strategy",
        "centre",
        "number",
        "kind",
        "sent_s",
        "started_s",
        "finished_s",
        "outcome",
        "staleness",
    ),
    numbers=("number", "sent_s", "started_s", "finished_s", "staleness"),
    choices={"outcome": OUTCOMES},
)
FEDERATIONS = Entries(
    "federations.json",
    ("arm", "task", "strategy", "rounds_or_updates", "jobs", "used", "lost", "late", "stale", "gone", "state_lost", "transport",
     "notes", "failed"),
    key=("arm", "task"),
)  # fmt: skip
EXPECTED = Entries(
    "expected.json", ("centre", "kind", "messages", "bytes_down", "bytes_up", "steps"), key=("centre", "kind")
)
PHASES = ("survey", "share", "learn", "test")
KINDS = Entries(
    "kinds.json, kinds",
    ("kind", "title", "phase", "rounds", "pixels"),
    key=("kind",),
    choices={"phase": PHASES},
    in_order=True,
)
STRATEGIES = Entries(
    "kinds.json, strategies", ("strategy", "title", "pixels"), key=("strategy",), optional=("shares",), in_order=True
)
METRICS = Entries(
    "kinds.json, metrics",
    ("metric", "title", "unit", "higher_is_better"),
    key=("metric",),
    choices={"unit": ("share", "number")},
    in_order=True,
)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON in which numpy values are numbers and lists, and paths are strings."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, in one rename."""
    write_text(path, to_json(value, indent=1) + "\n")


def read_json(path: Path, otherwise: Any) -> Any:
    """What the file holds; `otherwise` when there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise


def _refuse_unknown(rows: Iterable[Mapping[str, Any]], choices: Mapping[str, tuple[str, ...]], file: str) -> None:
    for name, known in choices.items():
        for row in rows:
            if row.get(name) not in known:
                raise RecordError(f"{file}: {name} is {row.get(name)!r}; it must be one of {', '.join(known)}")


def _refuse_doubles(rows: Iterable[Mapping[str, Any]], names: tuple[str, ...], file: str) -> None:
    seen = set()
    for row in rows if names else ():
        key = tuple(str(row.get(name)) for name in names)
        if key in seen:
            raise RecordError(f"{file}: two rows for {dict(zip(names, key, strict=True))}; each may have one")
        seen.add(key)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON; give numbers, strings, lists and dicts")
