"""Plug-ins: models, classifiers, data sources, metrics and strategies of other installed packages, found by entry point.

Names, versions and digests are read from what is installed, and no code of a plug-in runs for that. An entry point is
imported when its name is first asked for, and not before. In a process below a hospital's node nothing is imported but what the
centre's own file lists, with the version and the digest that it lists (`only`).

Longer than most files, because what is listed, compared and loaded has to be the same thing.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from basics.plugin_files import CACHE, files_of_module, has_code, run_from_source
from basics.words import one_line

T = TypeVar("T")

# Entry points are of the group polycentre.<key>; the value is what one of its names is called.
GROUPS = {
    "models": "model", "classifiers": "classifier", "sources": "source", "metrics": "metric", "strategies": "strategy",
}  # fmt: skip
_PREFIX = "polycentre."
# Set in every process that a hospital's node starts. There nothing is allowed until the centre's file has been read.
CENTRE_FILE_VARIABLE = "POLYCENTRE_CENTRE_FILE"


class PluginError(ValueError):
    """A plug-in that cannot be used: one line that names its distribution and what to do."""

    code = "bad_plugin"


@dataclass(frozen=True)
class Identity:
    """Which plug-in: its distribution, the version, and the digest of its files."""

    name: str
    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name!r} {self.version} (digest {self.digest[:16]})"

    @property
    def key(self) -> str:
        """The name as installers compare it: my_plugin, My-Plugin and my.plugin are one."""
        return canonical(self.name)


@dataclass(frozen=True)
class Plugin:
    """An installed distribution with entry points of this project.

    Attributes:
        offers: (group, name, where it is: "module:object") of each entry point.
        modules: its top-level modules and packages.
        files: further files of its own, below the folder that it was installed into.
    """

    name: str
    version: str
    offers: tuple[tuple[str, str, str], ...]
    modules: tuple[str, ...]
    folder: Path
    files: tuple[str, ...]

    @property
    def identity(self) -> Identity:
        """With the digest of the files as they are now."""
        return Identity(self.name, self.version, self.digest())

    @property
    def identity_by_times(self) -> Identity:
        """With the digest that this process read last, unless a file has another size or time of change since.

        For a simulation's many jobs. An edit can hide from it, so nothing that guards a hospital may ask for it.
        """
        try:
            stats = [(name, path, path.stat()) for name, path in sorted(self._files().items())]
        except OSError as problem:
            raise self._fault(problem) from None
        return _read_before(self, tuple((name, path, stat.st_size, stat.st_mtime_ns) for name, path, stat in stats))

    def digest(self) -> str:
        """SHA-256 over entry points, and over names and bytes of the files that an import would find; 64 hex digits.

        Of an editable installation these are the files of the checkout.

        Raises:
            PluginError: there is no code where an entry point says, or what an import would find cannot be told or read.
        """
        digest = hashlib.sha256()
        for offer in self.offers:
            digest.update("\0".join(offer).encode() + b"\0")
        for name, path in sorted(self._files().items()):
            try:
                content = path.read_bytes()
            except OSError as problem:
                raise self._fault(problem) from None
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()

    def _fault(self, problem: Exception) -> PluginError:
        return PluginError(f"plug-in {self.name!r} {self.version} {problem}")

    def _files(self) -> dict[str, Path]:
        try:
            return self._own_files()
        except (OSError, ValueError) as problem:
            raise self._fault(problem) from None

    def _own_files(self) -> dict[str, Path]:
        found = {name: self.folder / name for name in self.files if (self.folder / name).is_file()}
        needed = {_top(value) for _, _, value in self.offers}
        for module in self.modules:
            files = files_of_module(module)
            if module in needed and not has_code(files):
                raise ValueError(f"has entry points in {module!r}, and no code is found there; install it again")
            found |= files
        return found


def _top(value: str) -> str:
    """The top-level module of an entry point."""
    return re.split(r"[.:\s\[]", value, maxsplit=1)[0]


@lru_cache(maxsize=64)
def _read_before(plugin: Plugin, files: tuple[tuple[str, Path, int, int], ...]) -> Identity:
    return plugin.identity


def canonical(name: str) -> str:
    """The name of a distribution as installers compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


# -- what is installed -------------------------------------------------------------------------------------------------


def installed() -> tuple[Plugin, ...]:
    """Every installed plug-in, by name. Looks again when a folder of Python's path has changed."""
    return _installed(tuple((entry, _changed_at(entry)) for entry in sys.path))


def _changed_at(entry: str) -> int:
    try:
        return os.stat(entry or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _installed(path: tuple[tuple[str, int], ...]) -> tuple[Plugin, ...]:
    found: dict[str, Plugin | None] = {}
    for distribution in importlib.metadata.distributions():
        text = distribution.read_text("entry_points.txt")
        name = distribution.metadata["Name"] if text and f"[{_PREFIX}" in text else None
        if name and canonical(name) not in found:  # Python, too, imports the first of two
            found[canonical(name)] = _read(name, distribution)
    return tuple(plugin for _, plugin in sorted(found.items()) if plugin is not None)


def _read(name: str, distribution: importlib.metadata.Distribution) -> Plugin | None:
    offers = sorted(
        (point.group.removeprefix(_PREFIX), point.name, point.value)
        for point in distribution.entry_points
        if point.group.startswith(_PREFIX) and point.group.removeprefix(_PREFIX) in GROUPS
    )
    if not offers:
        return None
    # What installers write for themselves differs from one installation to the next (of an editable one
    # that is everything), and `..` leads to scripts.
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    editable = bool(origin.get("dir_info", {}).get("editable"))
    recorded = () if editable else distribution.files or ()
    files = [
        file.as_posix() for file in recorded
        if not re.search(r"\.(dist|egg)-info$", file.parts[0]) and not {"..", CACHE} & set(file.parts)
    ]  # fmt: skip
    tops = {_top(value) for _, _, value in offers}
    tops |= {file.partition("/")[0].removesuffix(".py") for file in files if file.endswith(".py")}
    tops |= set((distribution.read_text("top_level.txt") or "").split())
    folder = Path(str(distribution.locate_file("")))
    return Plugin(name, distribution.version, tuple(offers), tuple(sorted(tops)), folder, tuple(sorted(files)))


def offering(group: str, name: str) -> list[Plugin]:
    """Installed plug-ins that offer a name, whether or not they may be used here."""
    return [plugin for plugin in installed() if any(offer[:2] == (group, name) for offer in plugin.offers)]


# -- what may be used --------------------------------------------------------------------------------------------------


class Gate:
    """What a centre's file lists, each plug-in once. Files are read once, when a plug-in is first asked for."""

    def __init__(self, listed: Iterable[Identity]):
        self._listed = {identity.key: identity for identity in listed}
        self._found: dict[str, Identity] = {}

    def lists(self, key: str) -> bool:
        """Whether the file names such a plug-in, in whatever version."""
        return key in self._listed

    def identity(self, plugin: Plugin) -> Identity:
        """A plug-in as it was when this gate first looked.

        Raises:
            PluginError: its files cannot be told.
        """
        key = canonical(plugin.name)
        if key not in self._found:
            self._found[key] = plugin.identity
        return self._found[key]

    def lets_through(self, plugin: Plugin) -> bool:
        """Whether a plug-in is listed, with this version and these files."""
        listed = self._listed.get(canonical(plugin.name))
        if listed is None or listed.version != plugin.version:
            return False
        try:
            return self.identity(plugin).digest == listed.digest
        except PluginError:
            return False


_gate: ContextVar[Gate | None] = ContextVar("gate")


@contextmanager
def only(listed: Iterable[Identity]) -> Iterator[None]:
    """Within this, no other plug-in is known, and a listed one only while its version and its files are those listed."""
    token = _gate.set(Gate(listed))
    try:
        yield
    finally:
        _gate.reset(token)


def gate() -> Gate | None:
    """What decides here which plug-ins may run; None: whatever is installed may."""
    return _gate.get(Gate(()) if os.environ.get(CENTRE_FILE_VARIABLE) else None)


def _allowed(plugin: Plugin) -> bool:
    here = gate()
    return here is None or here.lets_through(plugin)


# -- tables ------------------------------------------------------------------------------------------------------------


class Table(Mapping[str, T], Generic[T]):
    """What a scenario may name in one place: the project's own entries, then those of plug-ins.

    Going through the names imports nothing; asking for the entry of a plug-in imports that one. Production code goes through
    `builtin`, never through all values.

    Args:
        group: key of `GROUPS`.
        builtin: the project's own.
        checked: (name, what an entry point gave) to the entry; raises ValueError with what it should be.
    """

    def __init__(self, group: str, builtin: Mapping[str, T], checked: Callable[[str, Any], T]):
        self.group, self.builtin, self.loaded = group, dict(builtin), dict[str, T]()
        self._checked = checked

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or (isinstance(name, str) and bool(self._offering(name)))

    def __iter__(self) -> Iterator[str]:
        yield from self.builtin
        names = {
            offer[1] for plugin in installed() if _allowed(plugin) for offer in plugin.offers if offer[0] == self.group
        }
        yield from sorted(names - set(self.builtin))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> T:
        """The entry.

        Raises:
            KeyError: nobody offers the name here.
            PluginError: two plug-ins do; or it cannot be imported, or is not what such an entry must be.
        """
        if name in self.builtin:
            return self.builtin[name]
        plugin = self.plugin_of(name)
        if plugin is None:
            raise KeyError(name)
        if name not in self.loaded:
            self.loaded[name] = self._load(plugin, name)
        return self.loaded[name]

    def plugin_of(self, name: str) -> Plugin | None:
        """The plug-in that a name comes from; None for one of the project's own, or of nobody.

        Raises:
            PluginError: two plug-ins offer it.
        """
        found = [] if name in self.builtin else self._offering(name)
        if len(found) > 1:
            raise PluginError(clash(self.group, name, [plugin.name for plugin in found]))
        return found[0] if found else None

    def unknown(self, name: object) -> str:
        """What to say of a name that is not in the table."""
        word, listed = GROUPS[self.group], offering(self.group, name) if isinstance(name, str) else []
        if listed:
            return f"{word} {name!r} is of plug-in {listed[0].name!r} {listed[0].version}, which this centre's centre.yaml does not list"
        words = "strategies" if word == "strategy" else f"{word}s"
        return f"no {word} {name!r}; known {words}: {', '.join(self)}; {self.hint}"

    @property
    def hint(self) -> str:
        """Where else a name could come from."""
        return f"others come with plug-ins, and none that is installed has it (entry points {_PREFIX}{self.group})"

    def _offering(self, name: str) -> list[Plugin]:
        return [plugin for plugin in offering(self.group, name) if _allowed(plugin)]

    def _load(self, plugin: Plugin, name: str) -> T:
        value = next(offer[2] for offer in plugin.offers if offer[:2] == (self.group, name))
        where = f"plug-in {plugin.name!r} {plugin.version}: entry point {_PREFIX}{self.group} {name} = {value}"
        # Of all, for this one may import what is another's and is asked for later.
        run_from_source(module for one in installed() for module in one.modules)
        try:
            module, _, path = value.partition(":")
            found: Any = importlib.import_module(module.strip())
            for part in path.split("[")[0].strip().split(".") if path else ():
                found = getattr(found, part)
        except (Exception, SystemExit) as problem:  # whatever a foreign module raises while it is imported
            raise PluginError(
                f"{where} cannot be imported ({type(problem).__name__}: {one_line(problem)}); correct or uninstall it"
            ) from problem
        try:
            return self._checked(name, found)
        except ValueError as problem:
            raise PluginError(f"{where} {problem}") from None


def clash(group: str, name: str, distributions: Iterable[str]) -> str:
    """What to say of a name that several distributions offer."""
    return f"{GROUPS[group]} {name!r} is offered by {' and by '.join(map(repr, distributions))}; uninstall one, or rename its entry point"


def subclass_of(base: type[Any], named: Callable[[Any], object] | None = None) -> Callable[[str, Any], Any]:
    """The check of a table of classes.

    Args:
        named: the name that a class gives itself, where it does; the entry point must have the same.
    """

    def checked(name: str, found: Any) -> Any:
        if not isinstance(found, type) or not issubclass(found, base):
            raise ValueError(f"must be a subclass of {base.__module__}.{base.__name__}, and is {found!r}")
        _same_name(name, named(found) if named else name)
        return found

    return checked


def instance_of(kind: type[Any], named: Callable[[Any], object] | None = None) -> Callable[[str, Any], Any]:
    """The check of a table of objects; see `subclass_of`."""

    def checked(name: str, found: Any) -> Any:
        if not isinstance(found, kind):
            raise ValueError(f"must be a {kind.__module__}.{kind.__name__}, and is {found!r}")
        _same_name(name, named(found) if named else name)
        return found

    return checked


def _same_name(name: str, own: object) -> None:
    if own != name:
        raise ValueError(f"calls itself {own!r}; give both the same name")
