"""Writing a file so that a reader, or a run that was killed, sees all of it or none of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def write_bytes(path: Path, content: bytes, *, durable: bool = True, mode: int = 0o666) -> None:
    """Write `content` under a temporary name beside `path` and rename it onto `path`.

    durable: whether it is on the disk afterwards, under its name; not needed where a reader has another way to see that a file is whole.
    mode: of the file, less what the umask takes away.

    The name of the temporary file holds the process and the thread, so two writers of one file do not mix their bytes;
    it starts with a dot, so no pattern of this package takes a left-over one for a finished file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                # A rename may reach the disk before the bytes do: after a power cut the file would exist and be empty.
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk: a new file, or a rename, is there when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` in UTF-8, with line ends as they are in `content` on every system."""
    write_bytes(path, content.encode("utf-8"))
