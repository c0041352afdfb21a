"""Files and folders that nobody but their owner may open: made so, and checked."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# For the start of a process all of whose files are private.
UMASK = 0o077
OTHERS = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private_folder(folder: Path) -> None:
    """Make a folder of mode 0700, and what is missing above it; one that is there keeps its mode."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def open_private(path: Path, flags: int) -> int:
    """`os.open`, where a new file gets mode 0600; returns the descriptor."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def too_open(path: Path, remedy: str, bits: int = OTHERS) -> str:
    """One line about a path whose mode lets others in; empty where it lets nobody in, or is not there.

    Args:
        remedy: the command that corrects it.
        bits: those of the mode that must not be set.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ""
    if not mode & bits:
        return ""
    can = "read" if mode & bits & 0o044 else "write" if mode & bits & 0o022 else "enter"
    return f"{path} has mode {mode:04o}, so others can {can} it: {remedy}"
