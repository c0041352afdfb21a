"""The files that an import would find, and an import that runs these and no compiled copy of them."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

CACHE = "__pycache__"
_CODE = (".py", ".pyc", *EXTENSION_SUFFIXES)


def files_of_module(module: str) -> dict[str, Path]:
    """All files of a top-level module or package, by name, and nothing is imported for it; empty where it is not installed.

    Of a folder without `__init__.py`, which several distributions may share, these are the files of all of them.

    Raises:
        ValueError: below a package there is a link to a folder, which an import would follow to anywhere.
        OSError: a folder cannot be read.
    """
    spec = importlib.util.find_spec(module)  # of a name without a dot: it imports nothing
    if spec is None:
        return {}
    if spec.submodule_search_locations is None:
        origin = Path(spec.origin or "")
        return {origin.name: origin} if origin.is_file() else {}
    found: dict[str, Path] = {}
    for place in spec.submodule_search_locations:
        for path in _below(Path(place)) if os.path.isdir(place) else ():
            found.setdefault(f"{module}/{path.relative_to(place).as_posix()}", path)  # an import, too, takes the first
    return found


def has_code(files: Iterable[str]) -> bool:
    """Whether an import could run any of these files."""
    return any(name.endswith(_CODE) for name in files)


def _below(folder: Path) -> Iterable[Path]:
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if name != CACHE]
        for name in folders:
            if (Path(place) / name).is_symlink():
                raise ValueError(
                    f"has a link in the place of a folder, {Path(place) / name}; put the folder itself there"
                )
        yield from (path for name in names if (path := Path(place) / name).is_file())


def _raise(problem: OSError) -> None:
    raise problem


def run_from_source(modules: Iterable[str]) -> None:
    """From now on, import these top-level modules, and all below them, from their source files.

    Python would otherwise run what it finds in `__pycache__`, which need not be of the source beside it.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.modules.update(modules)


class _FromSource(MetaPathFinder):
    def __init__(self) -> None:
        self.modules: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parts = fullname.split(".")
        if parts[0] not in self.modules:
            return None
        if CACHE in parts:
            raise ImportError(f"{fullname} is in a folder of compiled copies, of which nothing is imported")
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Compiled(spec.loader.name, spec.loader.path)
        return spec


class _Compiled(SourceFileLoader):
    """Compiles the source each time, and neither reads nor writes a compiled copy."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


_finder = _FromSource()
