"""`centre.yaml`: what a hospital's administrator decides, in one file of its own. No server can change any of it.

It says who the centre is, which SuperLink it connects to, where its data and its workspace are, when and with what it
works, what it has approved, and what may leave the house. It is read anew for every job, so a change counts from the
next job on.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from data_partitions import SOURCES

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
_HOST = r"(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?)"
_ADDRESS = re.compile(_HOST + r":[0-9]{1,5}")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
# Keys of a data section that are paths, as in a scenario.
_PATHS_OF_DATA = ("path", "exclude")


class CentreFileError(ValueError):
    """A `centre.yaml` that cannot be used; one line per problem."""

    code = "bad_centre_file"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _clock_time(value: Any) -> Any:
    if isinstance(value, int):  # YAML reads 19:00 without quotes as a number of base 60
        raise ValueError('must be a time in quotes, such as "19:00"')
    match = _CLOCK.fullmatch(str(value))
    if match is None:
        raise ValueError('must be a time of 24 hours in quotes, such as "19:00"')
    return time(int(match[1]), int(match[2]))


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("is no time zone that this machine knows; write one such as Europe/Madrid, or UTC")
    return value


ClockTime = Annotated[time, BeforeValidator(_clock_time)]


class WorkingHours(_Section):
    """When jobs are done. `days` name the day on which the hours begin; they may go on over midnight."""

    days: tuple[Day, ...] = Field(DAYS, min_length=1)
    begin: ClockTime = Field(alias="from")
    until: ClockTime
    zone: Annotated[str, AfterValidator(_zone)]

    @model_validator(mode="after")
    def _some_time(self) -> WorkingHours:
        if self.begin == self.until:
            raise ValueError("from and until are the same time; leave working_hours out for the whole day")
        return self

    def contain(self, moment: datetime) -> bool:
        """Whether a job may begin at this moment (a datetime with a time zone)."""
        local = moment.astimezone(ZoneInfo(self.zone))
        now = local.time().replace(tzinfo=None)
        today, yesterday = (DAYS[day.weekday()] for day in (local, local - timedelta(days=1)))
        if self.begin < self.until:
            return today in self.days and self.begin <= now < self.until
        return (today in self.days and now >= self.begin) or (yesterday in self.days and now < self.until)

    def __str__(self) -> str:
        return f"{' '.join(self.days)}, {self.begin:%H:%M} to {self.until:%H:%M} {self.zone}"


class Resources(_Section):
    """What a job may use of this machine.

    Attributes:
        threads: a job computes with at most so many, whatever the scenario says.
        memory_gib: a job's process may allocate at most so much; none: as much as there is.
    """

    threads: int = Field(1, ge=1, le=1024)
    memory_gib: float | None = Field(None, gt=0)


def _digest(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("is no digest of a bundle; it has 64 hexadecimal digits, as the node's log shows it")
    return value


class Approval(_Section):
    """What this centre takes part in.

    Attributes:
        bundles: code that may run here. own: that of this installation, and no other; else digests of bundles, of which
            each is unpacked and run.
        studies: listed: those that `polycentre centre approve` has put into the workspace. any: whatever is asked, for
            trials without patients' data.
    """

    bundles: Literal["own"] | tuple[Annotated[str, AfterValidator(_digest)], ...] = "own"
    studies: Literal["listed", "any"] = "listed"


def _strategy(value: str) -> str:
    # Imports torch, which a process that only reads the file can do without where no strategy is named.
    from strategies import STRATEGIES

    if value not in STRATEGIES:
        possible = [name for name, strategy in STRATEGIES.items() if not strategy.pixels]
        raise ValueError(f"is not a strategy; strategies: {', '.join(possible)}")
    if STRATEGIES[value].pixels:
        raise ValueError("moves real patches, which no deployed centre does; take it out")
    return value


class Release(_Section):
    """What may leave the house.

    Attributes:
        strategies: in which this centre takes part; all that move no images of patients when left out.
        largest_message_mib: of arrays and settings, in either direction.
        epsilon_at_most: a model that saw patients leaves only with a differential privacy at least as strong.
        attacks_must_fail: a model that saw patients leaves only after these attacks on it have failed.
        predictions: whether the probability for each test image may leave, under running numbers; the metrics always do.
    """

    strategies: tuple[Annotated[str, AfterValidator(_strategy)], ...] | None = None
    largest_message_mib: float = Field(512, gt=0, le=2048)
    epsilon_at_most: float | None = Field(None, gt=0)
    attacks_must_fail: tuple[str, ...] = ()
    predictions: bool = False


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}", value):
        raise ValueError("is no name of a centre: letters, digits, - and _, at most 64")
    return value


def _address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError("is no address; write host:port without https://, such as superlink.example.org:8000")
    if not 1 <= int(value.rpartition(":")[2]) <= 65535:
        raise ValueError("has no port between 1 and 65535")
    return value


class CentreFile(_Section):
    """The settings of a node; the field names are the keys of the file. Paths are absolute once it is read.

    Attributes:
        centre: its name in scenarios.
        superlink: host:port, the only address that the node connects to.
        root_certificate: of the authority that signed the SuperLink's certificate (PEM).
        key: the node's private key (OpenSSH, ECDSA); whoever holds it is this centre.
        workspace: folder of what only this centre reads: state, logs, approvals.
        cache: folder of what can be made again; below the workspace when left out.
        port: of the node's own interface, on 127.0.0.1.
        data: this centre's data, as a scenario writes it; replaces what the scenario says. None: the scenario's.
        device: where jobs compute; auto: on a GPU where there is one.
        preload: keep a process with everything imported, from which each job is forked.
    """

    centre: Annotated[str, AfterValidator(_name)]
    superlink: Annotated[str, AfterValidator(_address)]
    root_certificate: Path
    key: Path
    workspace: Path
    cache: Path | None = None
    port: int = Field(9094, ge=1, le=65535)
    data: dict[str, Any] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    resources: Resources = Resources()
    working_hours: WorkingHours | None = None
    preload: bool = False
    approve: Approval = Approval()
    release: Release = Release()

    @staticmethod
    def read(path: Path) -> CentreFile:
        """Read and check a file. Nothing is opened but the file itself; `key` and `root_certificate` are looked at.

        Raises:
            CentreFileError: with one line per problem: key, value, what would be right.
        """
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as problem:
            raise CentreFileError(f"{path}: cannot be read ({problem}); name the centre's own file") from None
        except yaml.YAMLError as problem:
            raise CentreFileError(f"{path}: is not YAML ({' '.join(str(problem).split())}); mend it there") from None
        if not isinstance(tree, dict):
            raise CentreFileError(
                f"{path}: holds no settings; write at least centre, superlink, root_certificate, key, workspace"
            )
        base = path.absolute().parent
        problems = [*_file_problems(tree, base), *_data_problems(tree.get("data"), base)]
        try:
            file = CentreFile.model_validate(tree)
        except ValidationError as error:
            problems = [*_lines(error), *problems]
        if problems:
            raise CentreFileError("\n".join(f"{path}: {problem}" for problem in problems))
        return file._absolute(base)

    @property
    def cache_folder(self) -> Path:
        """Where what can be made again is kept."""
        return self.cache or self.workspace / "cache"

    def _absolute(self, base: Path) -> CentreFile:
        keys = ("root_certificate", "key", "workspace", *(() if self.cache is None else ("cache",)))
        paths: dict[str, Any] = {key: _from_base(base, getattr(self, key)) for key in keys}
        if self.data is not None:
            paths["data"] = _with_paths(self.data, base)
        return self.model_copy(update=paths)


def _from_base(base: Path, value: str | Path) -> Path:
    return base / Path(value).expanduser()  # an absolute one stays


def _file_problems(tree: dict[str, Any], base: Path) -> list[str]:
    """What is wrong with the files that are named."""
    found = {
        key: _from_base(base, tree[key])
        for key in ("root_certificate", "key", "workspace")
        if isinstance(tree.get(key), str)
    }
    problems = []
    certificate, key, workspace = (found.get(name) for name in ("root_certificate", "key", "workspace"))
    if certificate is not None and not certificate.is_file():
        problems.append(f"root_certificate: no file {certificate}; ask the operator of the SuperLink for it")
    if key is not None and not key.is_file():
        problems.append(f"key: no file {key}; make one (ssh-keygen -t ecdsa) and give its public half to the operator")
    elif key is not None and key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(key.stat().st_mode)
        problems.append(f"key: {key} has mode {mode:04o}, so others can read it: chmod 600 {key}")
    if workspace is not None and workspace.exists() and not workspace.is_dir():
        problems.append(f"workspace: {workspace} is no folder; name another place")
    return problems


def _with_paths(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """A data section whose relative paths start at the file's folder."""
    return {
        key: str(_from_base(base, value)) if key in _PATHS_OF_DATA and isinstance(value, str) else value
        for key, value in data.items()
    }


def _data_problems(data: Any, base: Path) -> list[str]:
    """What is wrong with a data section, as far as that can be said without the data."""
    if not isinstance(data, dict):
        return []  # none, or named by the schema
    known = [name for name in SOURCES if name != "dealt"]
    if data.get("source") not in known:
        return [f"data.source: {data.get('source')!r} is no source of data; sources: {', '.join(known)}"]
    source: Any = SOURCES[data["source"]]
    try:
        TypeAdapter(source).validate_python(_with_paths(data, base))
    except ValidationError as error:
        return _lines(error, ("data",), source)
    return []


def _lines(error: ValidationError, above: Sequence[str] = (), schema: Any = CentreFile) -> list[str]:
    lines = []
    for found in error.errors(include_url=False):
        if found["type"] == "literal_error" and isinstance(found["input"], list):
            continue  # the other member of a union was meant, whose problems follow
        # Tags of a union's members stand in the path, too, and are no keys of the file.
        parts = [
            str(part) for part in found["loc"] if not re.search(r"[\[\]()]", str(part)) and part != "literal['own']"
        ]
        key = ".".join([*above, *parts])
        text = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key; known keys: {', '.join(_keys(schema, parts[:-1]))}")
        elif found["type"] == "missing":
            lines.append(f"{key}: is missing; write it")
        else:
            shown = "" if isinstance(found["input"], dict | list) else f"{found['input']!r} "
            lines.append(f"{key}: {shown}{text[0].lower() + text[1:]}")
    return list(dict.fromkeys(lines))


def _keys(schema: Any, parts: Sequence[str]) -> list[str]:
    """The keys of the section at a path."""
    sections = {"resources": Resources, "working_hours": WorkingHours, "approve": Approval, "release": Release}
    owner = sections.get(parts[-1], schema) if parts else schema
    return [field.alias or name for name, field in owner.model_fields.items()]
