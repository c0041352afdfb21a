"""The run folder: the only writer and the only reader of it.

Everything is plain JSON, CSV, PNG or safetensors, and every file but the appended log appears by a rename, so a run
killed at any moment leaves whole files only:

    scenario.yaml       the resolved scenario; written last by `create`, so a folder with it is a run folder
    environment.json    versions, processor, device, digest of the code
    precision.json      in which precision each centre computes each model; with it another run gives the same bytes
    events.jsonl        what happened, when, and the bytes it moved; one line an event, appended
    units/<id>.json     a finished unit of work: what it is and what it found (+ <id>.safetensors, its arrays)
    partition.csv       which centre holds how much, by split and class; counts of 1 to 4 suppressed
    results.csv         tidy: one row per cell, test centre and metric
    predictions.csv     the probabilities behind it
    convergence.csv     distance to real images over a federation's rounds, beside training alone and on pooled data
    virtual_time.csv    one row per job of a simulated centre, in simulated seconds
    federations.json    one entry per federation: its jobs, who was lost, what the transport rounded
    expected.json       messages, bytes and steps as predicted before the run
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

from basics.atomic_files import write_bytes, write_text
from basics.csv_table import to_csv
from reports.samples import save_grid

RESULT_COLUMNS = (
    "arm", "strategy", "task", "classifier", "real_fraction", "repeat", "tested_on", "metric", "value", "receiver",
    "n_real", "n_synthetic",
)  # fmt: skip
PREDICTION_COLUMNS = (
    "arm", "task", "classifier", "real_fraction", "repeat", "receiver", "tested_on", "case", "patient", "label",
    "probability",
)  # fmt: skip
# images_seen: real images that the centre's discriminator has seen until then. floor: distance of one half of the real
# reference to the other. central: one model on pooled data, at the centre where it was trained.
CONVERGENCE_COLUMNS = (
    "arm", "task", "series", "centre", "round", "images_seen", "virtual_s", "metric", "value", "floor",
)  # fmt: skip
# number: of the round, or count of updates when the job was sent.
VIRTUAL_TIME_COLUMNS = (
    "arm", "task", "strategy", "centre", "number", "kind", "sent_s", "started_s", "finished_s", "outcome", "staleness",
)  # fmt: skip
SERIES = ("federation", "alone", "central")
OUTCOMES = ("used", "stale", "late", "lost", "outage", "refused")
FEDERATION_KEYS = (
    "arm", "task", "strategy", "rounds_or_updates", "jobs", "used", "lost", "late", "stale", "gone", "state_lost",
    "transport", "notes",
)  # fmt: skip
EXPECTED_KEYS = ("centre", "kind", "messages", "bytes_down", "bytes_up", "steps")
PARTITION_COLUMNS = ("centre", "task", "split", "class", "patients", "images", "digest")
_RESULT_NUMBERS = ("real_fraction", "repeat", "value", "n_real", "n_synthetic")
_PREDICTION_NUMBERS = ("real_fraction", "repeat", "case", "patient", "label", "probability")
_CONVERGENCE_NUMBERS = ("round", "images_seen", "virtual_s", "value", "floor")
_VIRTUAL_TIME_NUMBERS = ("number", "sent_s", "started_s", "finished_s", "staleness")
# What a result is the value of: two values for one of these would count a repeat twice.
_RESULT_KEY = ("arm", "task", "classifier", "real_fraction", "repeat", "receiver", "tested_on", "metric")
_CONVERGENCE_KEY = ("arm", "task", "series", "centre", "round", "metric")

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
        self._known: list[dict[str, Any]] = []  # events of the first `_read_to` bytes
        self._read_to = 0

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

    def write_precision(self, precision: Mapping[str, Mapping[str, str]]) -> None:
        """Write precision.json: {centre: {model: "fp32" | "bf16"}}."""
        write_text(self.folder / "precision.json", json.dumps(precision, indent=1, sort_keys=True) + "\n")

    def precision(self) -> dict[str, dict[str, str]]:
        """precision.json; empty before the survey.

        Raises:
            RecordError: somebody wrote something else into it.
        """
        path = self.folder / "precision.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            known = all(value in ("fp32", "bf16") for models in found.values() for value in models.values())
        except (ValueError, AttributeError):
            known = False
        if not known:
            raise RecordError(f"{path} does not name fp32 or bf16 for each centre and model; restore it, or remove it")
        return found

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
        """All events in the order in which they were written; a line cut short by a kill is left out.

        Asked again, only what was appended since is read: progress asks four times a second.
        """
        if not self._events.exists():
            return []
        with open(self._events, "rb") as file:
            file.seek(self._read_to)
            *whole, rest = file.read().split(b"\n")
        for line in whole:
            self._read_to += len(line) + 1
            self._known += _entries(line)
        return [*self._known, *_entries(rest)]

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
            # After a power cut they may be missing or cut off: their hash says so, and the unit counts as not finished.
            write_bytes(self._arrays_path(unit), content, durable=False)
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

    def partition(self) -> pd.DataFrame:
        """partition.csv, every cell as text; no rows before the survey."""
        return _read_csv(self.folder / "partition.csv", PARTITION_COLUMNS, ())

    def write_results(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write results.csv: the same bytes for the same rows, whatever their order."""
        rows = list(rows)
        _refuse_doubles(rows, _RESULT_KEY, "results", "a cell is tested once")
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

    # -- federations ----------------------------------------------------------------------------------------------

    def write_convergence(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write convergence.csv: one row per measured round, participating centre, series and metric.

        Raises:
            RecordError: a series that is none of `SERIES`, or two values for one round, centre, series and metric.
        """
        rows = list(rows)
        _refuse_unknown(rows, "series", SERIES)
        _refuse_doubles(rows, _CONVERGENCE_KEY, "values", "a round is measured once")
        write_text(self.folder / "convergence.csv", to_csv(rows, CONVERGENCE_COLUMNS, _CONVERGENCE_NUMBERS))

    def convergence(self) -> pd.DataFrame:
        """convergence.csv; no rows when no federation was measured."""
        return _read_csv(self.folder / "convergence.csv", CONVERGENCE_COLUMNS, _CONVERGENCE_NUMBERS)

    def write_virtual_time(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write virtual_time.csv: one row per job, None for a time that never came.

        Raises:
            RecordError: an outcome that is none of `OUTCOMES`.
        """
        rows = list(rows)
        _refuse_unknown(rows, "outcome", OUTCOMES)
        write_text(self.folder / "virtual_time.csv", to_csv(rows, VIRTUAL_TIME_COLUMNS, _VIRTUAL_TIME_NUMBERS))

    def virtual_time(self) -> pd.DataFrame:
        """virtual_time.csv; no rows when no centre was simulated in time."""
        return _read_csv(self.folder / "virtual_time.csv", VIRTUAL_TIME_COLUMNS, _VIRTUAL_TIME_NUMBERS)

    def write_federations(self, federations: Iterable[Mapping[str, Any]]) -> None:
        """Write federations.json, one entry with the keys `FEDERATION_KEYS` per arm and task.

        gone: [{"centre", "from_s"}]; state_lost: [{"centre", "number"}]; transport: {"how", "relative_error"}, or None
        when arrays travelled as they are; notes: [text].

        Raises:
            RecordError: other keys, or two entries for one arm and task.
        """
        rows = _sorted_entries(federations, FEDERATION_KEYS, ("arm", "task"), "federations.json")
        write_text(self.folder / "federations.json", _json(rows, indent=1) + "\n")

    def federations(self) -> list[dict[str, Any]]:
        """federations.json; empty when no arm federates."""
        return _read_list(self.folder / "federations.json")

    def write_expected(self, expected: Iterable[Mapping[str, Any]]) -> None:
        """Write expected.json, one entry with the keys `EXPECTED_KEYS` per centre and kind of job.

        Bytes are those of arrays, without the small JSON bodies. A number that nobody can know before the run is None.

        Raises:
            RecordError: other keys, or two entries for one centre and kind.
        """
        rows = _sorted_entries(expected, EXPECTED_KEYS, ("centre", "kind"), "expected.json")
        write_text(self.folder / "expected.json", _json(rows, indent=1) + "\n")

    def expected(self) -> list[dict[str, Any]]:
        """expected.json; empty when nothing was predicted."""
        return _read_list(self.folder / "expected.json")

    # -- what else is shown ---------------------------------------------------------------------------------------

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


def _entries(line: bytes) -> list[dict[str, Any]]:
    """The event in a line, if there is a whole one."""
    try:
        entry = json.loads(line)
    except ValueError:  # cut short, or (UnicodeDecodeError) cut within a character
        return []
    return [entry] if isinstance(entry, dict) and "event" in entry and "t" in entry else []


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


def _read_list(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _refuse_doubles(rows: Iterable[Mapping[str, Any]], names: tuple[str, ...], what: str, why: str) -> None:
    seen = set()
    for row in rows:
        key = tuple(str(row.get(name)) for name in names)
        if key in seen:
            raise RecordError(f"two {what} for {dict(zip(names, key, strict=True))}; {why}")
        seen.add(key)


def _refuse_unknown(rows: Iterable[Mapping[str, Any]], name: str, known: tuple[str, ...]) -> None:
    for row in rows:
        if row.get(name) not in known:
            raise RecordError(f"{name} is {row.get(name)!r}; it is one of {', '.join(known)}")


def _sorted_entries(
    entries: Iterable[Mapping[str, Any]], keys: tuple[str, ...], by: tuple[str, ...], file: str
) -> list[dict[str, Any]]:
    """The entries in the order of `by`, their keys in the order of `keys`: the same bytes whoever wrote them when."""
    entries = list(entries)
    for entry in entries:
        if set(entry) != set(keys):
            missing, unknown = sorted(set(keys) - set(entry)), sorted(set(entry) - set(keys))
            raise RecordError(f"{file}: an entry lacks the keys {missing} and has the unknown keys {unknown}")
    _refuse_doubles(entries, by, "entries", f"{file} has one for each")
    ordered = sorted(entries, key=lambda entry: tuple(str(entry[name]) for name in by))
    return [{key: entry[key] for key in keys} for entry in ordered]


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
