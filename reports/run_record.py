"""The run folder: the only writer and the only reader of it.

Everything is plain JSON, CSV, PNG or safetensors, and every file but the appended log appears by a rename, so a run
killed at any moment leaves whole files only:

    scenario.yaml       the resolved scenario; written last by `create`, so a folder with it is a run folder
    environment.json    versions, processor, device, digest of the code
    events.jsonl        what happened, when, and the bytes it moved; one line an event, appended
    units/<id>.json     a finished unit of work: what it is and what it found (+ <id>.safetensors, its arrays)
    partition.csv       which centre holds how much, by split and class; counts of 1 to 4 suppressed
    results.csv         tidy: one row per cell, test centre and metric
    predictions.csv     the probabilities behind it
    privacy.json        what left each centre, and with which guarantee
    samples/<name>.png  synthetic images
    centres/<name>/     what stays in that hospital; in simulation all centres are this machine
    table.md, report.html   made by `build` from the above, at any time
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from reports.atomic import write_bytes, write_text
from reports.csv_table import to_csv
from reports.samples import save_grid

RESULT_COLUMNS = (
    "arm", "strategy", "task", "classifier", "real_fraction", "repeat", "tested_on", "metric", "value", "receiver",
    "n_real", "n_synthetic",
)  # fmt: skip
PREDICTION_COLUMNS = (
    "arm", "task", "classifier", "real_fraction", "repeat", "receiver", "tested_on", "case", "patient", "label",
    "probability",
)  # fmt: skip
PARTITION_COLUMNS = ("centre", "task", "split", "class", "patients", "images", "digest")
_RESULT_NUMBERS = ("real_fraction", "repeat", "value", "n_real", "n_synthetic")
_PREDICTION_NUMBERS = ("real_fraction", "repeat", "case", "patient", "label", "probability")
# What a result is the value of: two values for one of these would count a repeat twice.
_RESULT_KEY = ("arm", "task", "classifier", "real_fraction", "repeat", "receiver", "tested_on", "metric")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,119}")


class RecordError(ValueError):
    """A run folder that is not one, exists already, or is asked to hold what it cannot."""


class RunRecord:
    """One run folder. Several processes may read it while one writes."""

    def __init__(self, folder: Path):
        """For `create` and `open`; use those."""
        self.folder = folder
        self._events = folder / "events.jsonl"
        self._appending = False

    # -- the folder -----------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: str | Path, scenario_yaml: str, environment: Mapping[str, Any]) -> RunRecord:
        """Start a record. `folder` may exist unless it holds a run already."""
        folder = Path(folder)
        if (folder / "scenario.yaml").exists():
            raise RecordError(
                f"{folder} holds a run already; resume it with --resume, or choose another folder with --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "units").mkdir(exist_ok=True)
        record = cls(folder)
        record.write_environment(environment)
        record.write_scenario(scenario_yaml)
        return record

    @classmethod
    def open(cls, folder: str | Path) -> RunRecord:
        """Open a record for reading or to go on with it."""
        folder = Path(folder)
        if not (folder / "scenario.yaml").is_file():
            raise RecordError(
                f"{folder} is not a run folder: it has no scenario.yaml; a run folder is what --out named"
            )
        return cls(folder)

    def write_scenario(self, scenario_yaml: str) -> None:
        """The resolved scenario; written again when a run is resumed with changed settings."""
        write_text(self.folder / "scenario.yaml", scenario_yaml)

    @property
    def scenario_yaml(self) -> str:
        """The resolved scenario, as written."""
        return (self.folder / "scenario.yaml").read_text(encoding="utf-8")

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Versions, processor, device, digest of the code; written again when a run is resumed elsewhere."""
        write_text(self.folder / "environment.json", _json(environment, indent=1) + "\n")

    @property
    def environment(self) -> dict[str, Any]:
        """What `write_environment` was given; empty when the run died before it."""
        path = self.folder / "environment.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def local(self, centre: str) -> Path:
        """The folder of what stays at a centre. Only a simulation, where all centres are one machine, may read it."""
        path = self.folder / "centres" / _checked(centre, "centre")
        path.mkdir(parents=True, exist_ok=True)
        return path

    # -- events ---------------------------------------------------------------------------------------------------

    def event(self, event: str, **fields: Any) -> None:
        """Append one line {"t": unix seconds, "event": event, ...}, in one write."""
        line = _json({"t": round(time.time(), 6), "event": event, **fields}) + "\n"
        handle = os.open(self._events, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if not self._appending:
                # The process before this one may have died within a line: do not continue that line.
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    line = "\n" + line
                self._appending = True
            os.write(handle, line.encode("utf-8"))
        finally:
            os.close(handle)

    def events(self) -> list[dict[str, Any]]:
        """All events in the order in which they were written; a line cut short by a kill is left out."""
        if not self._events.exists():
            return []
        events = []
        for line in self._events.read_bytes().split(b"\n"):
            try:
                entry = json.loads(line)
            except ValueError:  # cut short, or (UnicodeDecodeError) cut within a character
                continue
            if isinstance(entry, dict) and "event" in entry and "t" in entry:
                events.append(entry)
        return events

    # -- units ----------------------------------------------------------------------------------------------------

    def write_unit(self, unit: str, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Record a finished unit of work.

        info: JSON; numpy values become numbers and lists, NaN stays NaN. `info["unit"]`, if given, is `unit`.
        arrays: kept in their dtype and shape. They are written first and named with their hash in the JSON file, whose
        appearance makes the unit exist: a kill between the two leaves arrays that nothing refers to.
        """
        _checked(unit, "unit")
        if "arrays" in info or info.get("unit", unit) != unit:
            raise RecordError(
                f"unit {unit!r}: info has an entry 'arrays' or the id of another unit, {info.get('unit')!r}"
            )
        (self.folder / "units").mkdir(exist_ok=True)
        stored: dict[str, Any] = {"unit": unit, **info, "arrays": None}
        if arrays is not None:
            content = save_arrays({name: np.asarray(array, order="C") for name, array in arrays.items()})
            write_bytes(self._arrays_path(unit), content)
            stored["arrays"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        write_text(self._info_path(unit), _json(stored) + "\n")

    def read_unit(self, unit: str) -> tuple[dict[str, Any], dict[str, np.ndarray] | None] | None:
        """(info, arrays) of a finished unit; None when it is not finished or its arrays are not those it names."""
        read = self._read(_checked(unit, "unit"))
        if read is None:
            return None
        info, content = read
        return info, None if content is None else load_arrays(content)

    def has_unit(self, unit: str) -> bool:
        """Whether `read_unit` would return it."""
        return self._read(_checked(unit, "unit")) is not None

    def forget_unit(self, unit: str) -> None:
        """Remove a unit whose product is gone elsewhere, so that a resumed run computes it again."""
        self._info_path(_checked(unit, "unit")).unlink(missing_ok=True)
        self._arrays_path(unit).unlink(missing_ok=True)

    def units(self) -> list[dict[str, Any]]:
        """The infos of all finished units, by id."""
        paths = sorted((self.folder / "units").glob("[!.]*.json"))
        return [read[0] for path in paths if (read := self._read(path.name.removesuffix(".json"))) is not None]

    def _read(self, unit: str) -> tuple[dict[str, Any], bytes | None] | None:
        try:
            info = json.loads(self._info_path(unit).read_bytes())
            named = info.pop("arrays")
            if named is None:
                return info, None
            content = self._arrays_path(unit).read_bytes()
        except FileNotFoundError:
            return None
        return (info, content) if hashlib.sha256(content).hexdigest() == named["sha256"] else None

    def _info_path(self, unit: str) -> Path:
        return self.folder / "units" / f"{unit}.json"

    def _arrays_path(self, unit: str) -> Path:
        return self.folder / "units" / f"{unit}.safetensors"

    # -- results --------------------------------------------------------------------------------------------------

    def write_partition(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write partition.csv: what each centre holds, as it said it (counts of 1 to 4 suppressed there)."""
        write_text(self.folder / "partition.csv", to_csv(rows, PARTITION_COLUMNS))

    def write_results(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write results.csv: the same bytes for the same rows, whatever their order."""
        rows = list(rows)
        seen = set()
        for row in rows:
            key = tuple(str(row.get(name)) for name in _RESULT_KEY)
            if key in seen:
                raise RecordError(f"two results for {dict(zip(_RESULT_KEY, key, strict=True))}; a cell is tested once")
            seen.add(key)
        write_text(self.folder / "results.csv", to_csv(rows, RESULT_COLUMNS, _RESULT_NUMBERS))

    def results(self) -> pd.DataFrame:
        """results.csv; no rows when nothing was tested yet."""
        return _read_csv(self.folder / "results.csv", RESULT_COLUMNS, _RESULT_NUMBERS)

    def write_predictions(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write predictions.csv; `case` and `patient` are running numbers within a test set."""
        write_text(self.folder / "predictions.csv", to_csv(rows, PREDICTION_COLUMNS, _PREDICTION_NUMBERS))

    def predictions(self) -> pd.DataFrame:
        """predictions.csv; no rows when it stayed at the centres."""
        return _read_csv(self.folder / "predictions.csv", PREDICTION_COLUMNS, _PREDICTION_NUMBERS)

    def write_privacy(self, privacy: Mapping[str, Any]) -> None:
        """Write privacy.json: what left each centre, and with which guarantee."""
        write_text(self.folder / "privacy.json", _json(privacy, indent=1) + "\n")

    def write_samples(self, name: str, images: np.ndarray) -> Path:
        """Write synthetic images, uint8 (n, c, h, w), as the grid samples/<name>.png."""
        path = self.folder / "samples" / f"{_checked(name, 'samples')}.png"
        save_grid(path, images)
        return path

    def build(self) -> Path:
        """Write table.md and report.html from what is recorded so far; returns the path of report.html."""
        from reports.html import build_report  # here, so that a server that only records does not load matplotlib

        return build_report(self)


def _read_csv(path: Path, columns: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame({name: pd.Series(dtype=float if name in numbers else object) for name in columns})
    # Every cell as text first: pandas would take a centre called "NA" or "None" for a missing value.
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in numbers:
        column = pd.to_numeric(table[name], errors="coerce")
        if not (column.isna() & (table[name] != "")).any():  # a size given in words ("100 images") stays text
            table[name] = column
    return table


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise RecordError(f"{what} name {name!r} cannot name a file; use letters, digits, '_', '-' and '.'")
    return name


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON; give numbers, strings, lists and dicts")
