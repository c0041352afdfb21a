"""`centre.yaml`: the one file with everything that a hospital's administrator decides. No server can change any of it.

It says which centre this is, which SuperLink it connects to, where its data and its workspace are, when it works and with
what, what it has approved, and what may leave the hospital. Every job reads it again, so a change takes effect with the next
job.

Longer than most files, because one file of a hospital is one schema here.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from basics.bounded_text import SETTINGS, TextProblem, load_yaml, read_text
from basics.file_hash import sha256_of
from basics.plugins import Identity, PluginError, only
from basics.private_files import OTHERS_WRITE, too_open
from basics.words import one_line
from clients.anchor import DEV_LOG
from clients.member_keys import checked_public_key
from clients.working_hours import WorkingHours
from federation.wire.names import is_plain_name

_HOST = r"(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?)"
_ADDRESS = re.compile(_HOST + r":[0-9]{1,5}")
# Keys of a data section that are paths, as in a scenario.
_PATHS_OF_DATA = ("path", "exclude")
NO_DATA = (
    "data: is missing; write where this hospital's images and tables are, such as data: {source: folder, path: /data, lesions: "
    "lesions.csv}. No study is let choose paths and columns here"
)


class CentreFileError(ValueError):
    """A `centre.yaml` that cannot be used; one line per problem."""

    code = "bad_centre_file"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Resources(_Section):
    """What a job may use of this machine.

    Attributes:
        threads: the most that a job computes with, whatever the scenario says.
        memory_gib: the most that a job's process may allocate; none: no limit.
    """

    threads: int = Field(1, ge=1, le=1024)
    memory_gib: float | None = Field(None, gt=0)


def _digest(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("is not the digest of a bundle; write its 64 hexadecimal digits, as the node's log shows them")
    return value


def _files_digest(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(
            "is not the digest of a plug-in; write its 64 hexadecimal digits, as `polycentre centre plugins` shows them"
        )
    return value


class Listed(_Section):
    """A plug-in whose code may run here, in this version and with these files.

    Attributes:
        name: of its distribution.
        digest: of its files, as `polycentre centre plugins` shows it.
    """

    name: str
    version: str
    digest: Annotated[str, AfterValidator(_files_digest)]

    @property
    def identity(self) -> Identity:
        """As plug-ins are compared."""
        return Identity(self.name, self.version, self.digest)


def _each_once(listed: tuple[Listed, ...]) -> tuple[Listed, ...]:
    names = [one.identity.key for one in listed]
    twice = next((one.name for one in listed if names.count(one.identity.key) > 1), None)
    if twice is not None:
        raise ValueError(f"lists {twice!r} twice; keep the lines of the plug-in that is to run here")
    return listed


Plugins = Annotated[tuple[Listed, ...], AfterValidator(_each_once)]


class Approval(_Section):
    """What this centre takes part in.

    Attributes:
        bundles: code that may run here. own: only that of this installation; otherwise digests of bundles, each of which
            may be unpacked and run.
        studies: listed: those that `polycentre centre approve` has put into the workspace. any: every study, for trials
            without patients' data.
    """

    bundles: Literal["own"] | tuple[Annotated[str, AfterValidator(_digest)], ...] = "own"
    studies: Literal["listed", "any"] = "listed"


def _range(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] <= value[1]:
        raise ValueError("is not a range; write the smallest value first, such as [0.000001, 0.01]")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_range)]


class Minimums(_Section):
    """What a job must keep to before anything that it computes leaves. Patients are counted after the study's split, never crops.

    Attributes:
        training_patients: from whom a model learns that leaves.
        sum_patients: of each sum: of each half, or of each class.
        test_patients: of each class on which a model is measured, also for validation.
        batch_size: images of a training step.
        steps: of training between what came in and what leaves.
        learning_rate, betas, smoothing: the smallest and the largest value that a study may set.
        width: channels of a model's narrowest layer.
        near_copies: share of a generator's images that may be near copies of training images; see `metrics.near_copies`.
    """

    training_patients: int = Field(50, ge=1)
    sum_patients: int = Field(20, ge=1)
    test_patients: int = Field(20, ge=1)
    batch_size: int = Field(16, ge=1)
    steps: int = Field(50, ge=1)
    learning_rate: Range = (1e-6, 1e-2)
    betas: Range = (0.0, 0.9999)
    smoothing: Range = (0.7, 1.2)
    width: int = Field(4, ge=1)
    near_copies: float = Field(0.05, ge=0, le=1)


# Of a trial without patients, whose scenarios are as small as can be.
TRIAL_MINIMUMS = Minimums(
    training_patients=2, sum_patients=2, test_patients=1, batch_size=2, steps=1, learning_rate=(1e-8, 1.0), betas=(0.0, 1.0),
    smoothing=(0.0, 2.0), width=1, near_copies=1.0,
)  # fmt: skip


def _strategy(value: str) -> str:
    # Imports torch, which a process that only reads the file can do without where no strategy is named.
    from strategies import STRATEGIES

    if value not in STRATEGIES:
        possible = [name for name, strategy in STRATEGIES.builtin.items() if not strategy.pixels]
        raise ValueError(
            f"is not a strategy; strategies: {', '.join(possible)}, and those of the plug-ins that `plugins` lists"
        )
    if STRATEGIES[value].pixels:
        raise ValueError("moves real patches, which a deployed centre never does; remove it")
    return value


class Release(_Section):
    """What may leave the hospital.

    Attributes:
        strategies: those in which this centre takes part. The others let the operator see what a few steps on patients did to
            weights, which no privacy setting of this version hides.
        largest_message_mib: arrays and settings together, in either direction.
        epsilon_at_most: a model that saw patients leaves only if its differential privacy is at least this strong.
        attacks_must_fail: a model that saw patients leaves only after these attacks on it have failed.
        predictions: whether the probability of each test image may leave, under a running number; metrics always may.
        plain_updates: whether what this centre alone has learned may leave in every round, and not only in a secure sum.
    """

    strategies: tuple[Annotated[str, AfterValidator(_strategy)], ...] = ("local", "one_shot")
    largest_message_mib: float = Field(512, gt=0, le=2048)
    epsilon_at_most: float | None = Field(None, gt=0)
    attacks_must_fail: tuple[str, ...] = ()
    predictions: bool = False
    plain_updates: bool = False

    @property
    def largest_message(self) -> int:
        """`largest_message_mib` in bytes."""
        return int(self.largest_message_mib * 2**20)


def _syslog(value: bool | str) -> bool | str:
    if isinstance(value, str) and not (value.startswith("/") or _ADDRESS.fullmatch(value)):
        raise ValueError("is not a syslog; write true for /dev/log, the path of a socket, or host:port")
    return value


class Log(_Section):
    """Where the end of this centre's record is kept besides the record; see `clients.anchor`.

    Attributes:
        anchor: file outside the workspace; when left out, beside this file, with its name and .anchor.
        syslog: where each entry's number and hash are sent: true for /dev/log, the path of a socket, or host:port (UDP).
    """

    anchor: Path | None = None
    syslog: Annotated[bool | str, AfterValidator(_syslog)] = False

    @property
    def syslog_address(self) -> str:
        """Empty: none."""
        return self.syslog if isinstance(self.syslog, str) else DEV_LOG if self.syslog else ""


def trial_release(**more: Any) -> Release:
    """What leaves in a trial without patients: all that moves no images of patients; of plug-ins, of those that are known now."""
    from strategies import STRATEGIES

    names = tuple(name for name in STRATEGIES if not STRATEGIES[name].pixels)
    return Release(strategies=names, plain_updates=True, **more)


def _name(value: str) -> str:
    if not is_plain_name(value):
        raise ValueError("cannot be the name of a centre; use letters, digits, - and _, at most 64")
    return value


def _members(value: dict[str, str]) -> dict[str, str]:
    return {_name(centre): checked_public_key(key) for centre, key in value.items()}


def _address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError("is not an address; write host:port without https://, such as superlink.example.org:8000")
    if not 1 <= int(value.rpartition(":")[2]) <= 65535:
        raise ValueError("has no port between 1 and 65535")
    return value


class RecordPlace(BaseModel):
    """Of a centre's file only where its record is. Checking the rest imports torch, which an idle node does without.

    Attributes: see `CentreFile`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    centre: str
    workspace: Path
    log: Log = Log()

    @staticmethod
    def read(path: Path) -> RecordPlace:
        """Read a file, whose paths become absolute.

        Raises:
            CentreFileError: it does not say where the record is.
        """
        try:
            read = RecordPlace.model_validate(load_yaml(read_text(path, SETTINGS), SETTINGS))
        except (OSError, UnicodeDecodeError, TextProblem, ValidationError) as problem:
            raise CentreFileError(f"{path}: cannot be read ({one_line(problem)}); correct it") from None
        path = path.absolute()
        log = read.log.model_copy(update={"anchor": _anchor(path, read.log.anchor)})
        return read.model_copy(update={"workspace": _from_base(path.parent, read.workspace), "log": log})


class CentreFile(_Section):
    """The settings of a node; the field names are the keys of the file. Reading makes all paths absolute.

    Attributes:
        centre: its name in scenarios.
        superlink: host:port, the only address that the node connects to.
        root_certificate: of the authority that signed the SuperLink's certificate (PEM).
        key: the node's private key (OpenSSH, ECDSA); whoever holds it is this centre.
        workspace: folder for what only this centre reads: state, logs, approvals.
        cache: folder for what can be made again; by default below the workspace.
        port: of the node's own interface, on 127.0.0.1.
        data: this centre's data, written as in a scenario, whose own section it replaces: studies name tasks, the hospital names
            paths and columns. None, only where any study is done: keeps the scenario's.
        device: where jobs compute; auto: on a GPU if there is one.
        preload: keep a process that has imported everything, and fork each job from it.
        plugins: those whose code may run here; no other is imported.
        weights: files of weights with which training may begin, each found by its SHA-256 that a study names. No study names a path.
        members: public keys of the centres of its studies, by name, each as its hospital gave it; see `clients.member_keys`.
        log: where the end of the record is kept besides the record.
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
    plugins: Plugins = ()
    weights: tuple[Path, ...] = ()
    members: Annotated[dict[str, str], AfterValidator(_members)] = {}
    approve: Approval = Approval()
    release: Release = Release()
    minimums: Minimums = Minimums()
    log: Log = Log()

    @staticmethod
    def read(path: Path, *, complete: bool = True) -> CentreFile:
        """Read and check a file. Opens only the file itself; for `key` and `root_certificate` it checks that they exist.

        Args:
            complete: whether `data` must be there where studies are approved one by one.

        Raises:
            CentreFileError: one line per problem: key, value, and what to write instead.
        """
        try:
            tree = load_yaml(read_text(path, SETTINGS), SETTINGS)
        except (OSError, UnicodeDecodeError) as problem:
            raise CentreFileError(f"{path}: cannot be read ({problem}); name the centre's own file") from None
        except TextProblem as problem:
            raise CentreFileError(f"{path}: is not YAML ({one_line(problem)}); correct it there") from None
        if not isinstance(tree, dict):
            raise CentreFileError(
                f"{path}: has no settings; write at least centre, superlink, root_certificate, key, workspace"
            )
        base = path.absolute().parent
        with only(_listed(tree.get("plugins"))):  # `data` and `release` may name what one of them offers
            problems = [*_file_problems(tree, path.absolute()), *_data_problems(tree.get("data"), base)]
            try:
                file = CentreFile.model_validate(tree)
                problems += [NO_DATA] if complete and file.lacks_data else []
            except ValidationError as error:
                problems = [*_lines(error), *problems]
        if problems:
            raise CentreFileError("\n".join(f"{path}: {problem}" for problem in problems))
        return file._absolute(path.absolute())

    @property
    def lacks_data(self) -> bool:
        """Whether a study that is approved here could say which columns of which tables it wants."""
        return self.data is None and self.approve.studies == "listed"

    @property
    def cache_folder(self) -> Path:
        """Where what can be made again is kept."""
        return self.cache or self.workspace / "cache"

    def weights_of(self, sha256: str) -> Path | None:
        """The file of weights with this hash; None without one."""
        for file in self.weights:
            with contextlib.suppress(OSError):
                if sha256_of(file) == sha256:
                    return file
        return None

    @property
    def allowed(self) -> list[Identity]:
        """The plug-ins whose code may run here."""
        return [one.identity for one in self.plugins]

    def _absolute(self, path: Path) -> CentreFile:
        base = path.parent
        keys = ("root_certificate", "key", "workspace", *(() if self.cache is None else ("cache",)))
        paths: dict[str, Any] = {key: _from_base(base, getattr(self, key)) for key in keys}
        if self.data is not None:
            paths["data"] = _with_paths(self.data, base)
        paths["weights"] = tuple(_from_base(base, file) for file in self.weights)
        paths["log"] = self.log.model_copy(update={"anchor": _anchor(path, self.log.anchor)})
        return self.model_copy(update=paths)


def _listed(value: Any) -> list[Identity]:
    """The plug-ins that a file lists, before all of it is read; none where that part has a mistake, which the schema reports."""
    if not value:
        return []
    try:
        found = TypeAdapter(Plugins).validate_python(value)
    except ValidationError:
        return []
    return [one.identity for one in found]


def _from_base(base: Path, value: str | Path) -> Path:
    return base / Path(value).expanduser()  # an absolute one stays


def _anchor(path: Path, named: str | Path | None) -> Path:
    """The anchor of a centre.yaml."""
    return path.with_suffix(".anchor") if named is None else _from_base(path.parent, named)


def _file_problems(tree: dict[str, Any], path: Path) -> list[str]:
    """What is wrong with the file itself and with those that the settings name."""
    base = path.parent
    found = {
        key: _from_base(base, tree[key])
        for key in ("root_certificate", "key", "workspace")
        if isinstance(tree.get(key), str)
    }
    problems = [*_open_modes(path)]
    listed = tree.get("weights")
    for named in listed if isinstance(listed, list) else ():
        if isinstance(named, str) and not _from_base(base, named).is_file():
            problems.append(f"weights: no file {_from_base(base, named)}; name a file of weights, or remove it")
    certificate, key, workspace = (found.get(name) for name in ("root_certificate", "key", "workspace"))
    if certificate is not None and not certificate.is_file():
        problems.append(f"root_certificate: no file {certificate}; ask the operator of the SuperLink for it")
    if key is not None and not key.is_file():
        problems.append(
            f"key: no file {key}; create one (ssh-keygen -t ecdsa) and give the public half to the operator"
        )
    elif key is not None and (opened := too_open(key, f"chmod 600 {key}")):
        problems.append(f"key: {opened}")
    if workspace is not None and workspace.exists() and not workspace.is_dir():
        problems.append(f"workspace: {workspace} is not a folder; name another place")
    elif workspace is not None:
        if opened := next(
            filter(None, (too_open(at, f"chmod -R go-rwx {workspace}") for at in _private(workspace))), ""
        ):
            problems.append(f"workspace: {opened}")
        log = tree.get("log")
        named = log.get("anchor") if isinstance(log, dict) else None
        anchor = _anchor(path, named if isinstance(named, str) else None)
        if anchor.resolve().is_relative_to(workspace.resolve()):
            problems.append(
                f"log.anchor: {anchor} is in the workspace, where it would be lost with the record; name a file outside"
            )
        if opened := too_open(anchor, f"chmod 600 {anchor}"):
            problems.append(f"log.anchor: {opened}")
    return problems


def _open_modes(path: Path) -> Iterator[str]:
    """Whether others may write to a centre.yaml, or put another in its place."""
    if opened := too_open(path, f"chmod go-w {path}", OTHERS_WRITE):
        yield opened
    folder = path.parent
    # In a sticky folder, such as /tmp, only the owner of a file can replace it.
    if not folder.stat().st_mode & stat.S_ISVTX and (opened := too_open(folder, f"chmod go-w {folder}", OTHERS_WRITE)):
        yield opened


def _private(workspace: Path) -> Iterator[Path]:
    """What of a workspace must not be open to others: itself, and what decides or is evidence."""
    yield workspace
    for name in (
        "secret",
        "ledger.jsonl",
        "ledger.refusals",
        "ledger.torn",
        "node.log",
        "predictions",
        "pools",
        "samples",
    ):
        yield workspace / name
    for name in ("approved", "states", "studies"):
        yield workspace / name
        yield from sorted((workspace / name).glob("*"))


def _with_paths(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """A data section with its relative paths resolved from the file's folder."""
    return {
        key: str(_from_base(base, value)) if key in _PATHS_OF_DATA and isinstance(value, str) else value
        for key, value in data.items()
    }


def _data_problems(data: Any, base: Path) -> list[str]:
    """What is wrong with a data section, as far as one can tell without the data."""
    if not isinstance(data, dict):
        return []  # absent, or the schema reports it
    # Imports the readers of every archive, with pandas and pydicom, which a node without this section never needs.
    from data_partitions import SOURCES

    name = data.get("source")
    if name == "dealt" or (name not in SOURCES.builtin and name not in SOURCES):
        known = ", ".join(one for one in SOURCES if one != "dealt")
        return [f"data.source: {name!r} is not a source of data; sources: {known}"]
    try:
        source: Any = SOURCES[data["source"]]
    except PluginError as problem:
        return [f"data.source: {problem}"]
    try:
        TypeAdapter(source).validate_python(_with_paths(data, base))
    except ValidationError as error:
        return _lines(error, ("data",), source)
    return []


def _lines(error: ValidationError, above: Sequence[str] = (), schema: Any = CentreFile) -> list[str]:
    lines = []
    for found in error.errors(include_url=False):
        if found["type"] == "literal_error" and isinstance(found["input"], list):
            continue  # the user meant the other member of the union, whose problems follow
        # The path also holds tags of a union's members, which are not keys of the file.
        parts = [
            str(part) for part in found["loc"] if not re.search(r"[\[\]()]", str(part)) and part != "literal['own']"
        ]
        key = ".".join([*above, *parts])
        text = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key; known keys: {', '.join(_keys(schema, parts[:-1]))}")
        elif found["type"] == "missing":
            lines.append(f"{key}: is missing; add it")
        else:
            shown = "" if isinstance(found["input"], dict | list) else f"{found['input']!r} "
            lines.append(f"{key}: {shown}{text[0].lower() + text[1:]}")
    return list(dict.fromkeys(lines))


def _keys(schema: Any, parts: Sequence[str]) -> list[str]:
    """The keys of the section at a path."""
    sections = {
        "resources": Resources, "working_hours": WorkingHours, "approve": Approval, "release": Release, "plugins": Listed, "log": Log,
        "minimums": Minimums,
    }  # fmt: skip
    owner: Any = next((sections[part] for part in reversed(parts) if part in sections), schema)
    return [field.alias or name for name, field in owner.model_fields.items()]
