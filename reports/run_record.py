"""The run folder: the only writer and the only reader of it.

Longer than most files, because it is one class: all that a run folder holds.

Everything is plain JSON, CSV, PNG or safetensors, and every file but the appended log appears by a rename, so a run
killed at any moment leaves whole files only:

    scenario.yaml       the resolved scenario; written last by `create`, so a folder with it is a run folder
    environment.json    versions, processor, device, digest of the code
    precision.json      in which precision each centre computes each model; with it another run gives the same bytes
    events.jsonl        what happened, when, and the bytes it moved; one line an event, appended
    units/<id>.json     a finished unit of work: what it is and what it found (+ <id>.safetensors, its arrays)
    partition.csv       which centre holds how much, by split and class; counts of 1 to 4 suppressed
    kinds.json          the kinds of jobs and the strategies of this study, in words
    results.csv         tidy: one row per cell, test centre and metric
    predictions.csv     the probabilities behind it
    convergence.csv     distance to real images over the rounds of a federation, beside training alone and on pooled data
    virtual_time.csv    one row per job of a simulated centre, in simulated seconds
    federations.json    one entry per federation: its jobs, who was lost, what the transport rounded
    expected.json       messages, bytes and steps as predicted before the run
    privacy.json        what left each centre, and with which guarantee
    samples/<name>.png  synthetic images
    centres/<name>/     what stays in that hospital; in simulation all centres are this machine
    table.md, report.html   made by `reports.html.build_report` from the above, at any time
"""

from __future__ import annotations

import hashlib
import json
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
from reports import record_files as files
from reports.event_log import EventLog
from reports.record_files import RecordError, read_json, to_json, write_json
from reports.samples import save_grid
from reports.study import read_study

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,119}")


class RunRecord:
    """One run folder. Several processes may read it while one writes."""

    def __init__(self, folder: Path):
        """Use `create` or `open` instead."""
        self.folder = folder
        self._log = EventLog(folder / "events.jsonl")

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
        """Open a record, to read it or to go on with it."""
        folder = Path(folder)
        if not (folder / "scenario.yaml").is_file():
            raise RecordError(
                f"{folder} is not a run folder: it has no scenario.yaml; give the folder that --out named"
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
        write_json(self.folder / "environment.json", environment)

    @property
    def environment(self) -> dict[str, Any]:
        """What `write_environment` was given; empty when the run died before it."""
        return read_json(self.folder / "environment.json", {})

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
        self._log.append({"t": round(time.time(), 6), "event": event, **fields})

    def events(self) -> list[dict[str, Any]]:
        """All events in the order in which they were written; a line cut short by a kill is left out."""
        return self._log.read()

    # -- units ----------------------------------------------------------------------------------------------------

    def write_unit(
        self,
        unit: str,
        info: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        durable: bool = False,
    ) -> None:
        """Record a finished unit of work.

        info: JSON; numpy values become numbers and lists, NaN stays NaN. `info["unit"]`, if given, is `unit`.
        arrays: kept in their dtype and shape. They are written first and named with their hash in the JSON file, whose
        appearance makes the unit exist: a kill between the two leaves arrays that nothing refers to.
        durable: whether info and arrays must be on the disk at once. Otherwise a power cut, not a kill, may lose the units of the last
        seconds or cut them off: they count as not finished and are computed again. Waiting for the disk takes 10 ms a unit.
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
            # Unless durable, they may be missing or cut off after a power cut: their hash says so, and the unit counts as not
            # finished.
            write_bytes(self._arrays_path(unit), content, durable=durable)
            stored["arrays"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        write_bytes(self._info_path(unit), (to_json(stored) + "\n").encode(), durable=durable)

    def read_unit(self, unit: str) -> tuple[dict[str, Any], dict[str, np.ndarray] | None] | None:
        """(info, arrays) of a finished unit; None when it is not finished or its arrays are not those it names."""
        read = self._read(_checked(unit, "unit"))
        if read is None:
            return None
        info, content = read
        return info, None if content is None else load_arrays(content)

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
            content, sha256 = self._arrays_path(unit).read_bytes(), named["sha256"]
        except (
            FileNotFoundError,
            ValueError,
            KeyError,
            AttributeError,
            TypeError,
        ):  # all but the first: cut off by a power cut
            return None
        return (info, content) if hashlib.sha256(content).hexdigest() == sha256 else None

    def _info_path(self, unit: str) -> Path:
        return self.folder / "units" / f"{unit}.json"

    def _arrays_path(self, unit: str) -> Path:
        return self.folder / "units" / f"{unit}.safetensors"

    # -- tables ---------------------------------------------------------------------------------------------------

    def write_partition(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write partition.csv: what each centre holds, as the centre says it (it suppresses counts of 1 to 4)."""
        files.PARTITION.write(self.folder, rows)

    def partition(self) -> pd.DataFrame:
        """partition.csv, all columns as text; without rows before the survey."""
        return files.PARTITION.read(self.folder)

    def write_results(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write results.csv."""
        files.RESULTS.write(self.folder, rows)

    def results(self) -> pd.DataFrame:
        """results.csv; without rows before the first test."""
        return files.RESULTS.read(self.folder)

    def write_predictions(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write predictions.csv; `case` and `patient` are running numbers within a test set."""
        files.PREDICTIONS.write(self.folder, rows)

    def predictions(self) -> pd.DataFrame:
        """predictions.csv; without rows when it stayed at the centres."""
        table = files.PREDICTIONS.read(self.folder)
        if "class" not in table:  # of an earlier version, which knew the second of two classes only
            classes = read_study(self.scenario_yaml).classes
            table["class"] = [classes.get(task, ("",))[-1] for task in table["task"]]
        return table

    def write_convergence(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write convergence.csv: one row per measured round, participating centre, series and metric."""
        files.CONVERGENCE.write(self.folder, rows)

    def convergence(self) -> pd.DataFrame:
        """convergence.csv; without rows when no federation was measured."""
        return files.CONVERGENCE.read(self.folder)

    def write_virtual_time(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write virtual_time.csv: one row per job, None for a time that never came."""
        files.VIRTUAL_TIME.write(self.folder, rows)

    def virtual_time(self) -> pd.DataFrame:
        """virtual_time.csv; without rows when no centre was simulated in time."""
        return files.VIRTUAL_TIME.read(self.folder)

    # -- JSON -----------------------------------------------------------------------------------------------------

    def write_federations(self, federations: Iterable[Mapping[str, Any]]) -> None:
        """Write federations.json, one entry per arm and task; its keys are in `record_files.FEDERATIONS`.

        gone: [{"centre", "from_s"}]; state_lost: [{"centre", "number"}]; transport: {"how", "relative_error"}, or None
        when arrays travelled as they are; notes: [text]; failed: why nothing came of it, or "".
        """
        write_json(self.folder / "federations.json", files.FEDERATIONS.checked(federations))

    def federations(self) -> list[dict[str, Any]]:
        """federations.json; empty when there is no federation."""
        return read_json(self.folder / "federations.json", [])

    def write_expected(self, expected: Iterable[Mapping[str, Any]]) -> None:
        """Write expected.json, one entry per centre and kind of job; its keys are in `record_files.EXPECTED`.

        Bytes are those of arrays, without the small JSON bodies. A number that is not known before the run is None.
        """
        write_json(self.folder / "expected.json", files.EXPECTED.checked(expected))

    def expected(self) -> list[dict[str, Any]]:
        """expected.json; empty when nothing was predicted."""
        return read_json(self.folder / "expected.json", [])

    def write_kinds(self, kinds: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        """Write kinds.json: what the report needs to know of kinds of jobs and of strategies, so that it names none itself.

        kinds: {"kinds": in the order of the study, "strategies": in any}. A kind has "kind"; "title", its words for people;
        "phase", one of `record_files.PHASES`; "rounds", whether its replies are averaged and then forgotten, so that a
        resumed session does not meet them again; and "pixels", whether it carries real patches. A strategy has
        "strategy", "title" and "pixels", whether real images move; and "shares", false where nothing at all is shared,
        which otherwise follows from the keys of its arm. "metrics", which may be left out, has what plug-ins measured: "metric",
        "title", "unit" and "higher_is_better" as of `metrics.Metric`.
        """
        entries = {
            "kinds": files.KINDS.checked(kinds["kinds"]),
            "strategies": files.STRATEGIES.checked(kinds["strategies"]),
        }
        if metrics := files.METRICS.checked(kinds.get("metrics", ())):
            entries["metrics"] = metrics
        write_json(self.folder / "kinds.json", entries)

    def kinds(self) -> dict[str, list[dict[str, Any]]]:
        """kinds.json; two empty lists in the record of an older run."""
        return read_json(self.folder / "kinds.json", {"kinds": [], "strategies": []})

    def write_privacy(self, privacy: Mapping[str, Any]) -> None:
        """Write privacy.json: what left each centre, and with which guarantee."""
        write_json(self.folder / "privacy.json", privacy)

    def write_samples(self, name: str, images: np.ndarray) -> Path:
        """Write synthetic images, uint8 or uint16 (n, c, h, w), as the grid samples/<name>.png."""
        path = self.folder / "samples" / f"{_checked(name, 'samples')}.png"
        save_grid(path, images)
        return path


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise RecordError(f"{what} name {name!r} cannot name a file; use letters, digits, '_', '-' and '.'")
    return name
