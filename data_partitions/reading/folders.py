"""The files of an archive, without what operating systems leave beside them: one rule for all sources.

Passed over, in any folder below the one that is asked about: names that start with a dot (`._a.dcm` of macOS,
`.DS_Store`, `.git`), `__MACOSX`, `Thumbs.db`, `desktop.ini` and the like. Links to folders are not followed.
"""

from __future__ import annotations

import os
import posixpath
from fnmatch import fnmatch
from pathlib import Path

LITTER = frozenset({
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin", "system volume information",
    "lost+found",
})  # fmt: skip


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is no part of any archive."""
    return name.startswith(".") or name.lower() in LITTER


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """Files at any depth whose names fit `pattern`, in any case of its letters, in the order of their paths.

    Pipes, devices and links that lead nowhere are none.
    """
    return sorted(
        Path(root, name)
        for root, _, names in _walk(folder)
        for name in names
        if not is_litter(name) and _fits(name, pattern) and os.path.isfile(os.path.join(root, name))
    )


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The same in the folder itself alone; none where it does not exist."""
    return [file for file in _listed(folder) if file.is_file() and _fits(file.name, pattern)]


def folders_in(folder: Path) -> list[Path]:
    return [place for place in _listed(folder) if place.is_dir()]


def plain_path(name: str) -> str:
    """A path below a folder as a table writes it, in our way: "./a\\b.png" and "a/c/../b.png" are "a/b.png"."""
    return posixpath.normpath(name.replace("\\", "/")) if name else ""


def litter_below(folder: Path) -> list[str]:
    """Paths below the folder of what is passed over; of a folder that is, its own alone."""
    return sorted(
        Path(root, name).relative_to(folder).as_posix()
        for root, folders, names in _walk(folder)
        for name in (*folders, *names)
        if is_litter(name)
    )


def _walk(folder: Path):
    for root, folders, names in os.walk(folder):
        yield root, list(folders), names
        folders[:] = [name for name in folders if not is_litter(name)]


def _listed(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if not is_litter(place.name)) if folder.is_dir() else []


def _fits(name: str, pattern: str) -> bool:
    return fnmatch(name.lower(), pattern.lower())
