"""`node.log`: the texts of a centre's errors, which stay here.

An entry begins with its time at the start of a line. What follows in it may come from a job, so no other line begins so: control
characters are escaped, and further lines of an entry (a traceback) begin with a bar. An entry has at most `LONGEST` characters. The
file has at most `LARGEST` bytes and becomes `node.log.1` then, in place of the older one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path

from basics.private_files import open_private

log = logging.getLogger("flwr")

LONGEST = 16_384
LARGEST = 4 * 2**20
CONTINUED = "    | "


def write(workspace: Path, text: str) -> None:
    """Append an entry; where that fails, it goes to the console, and the job still gets its answer."""
    try:
        _append(workspace / "node.log", entry(text).encode())
    except OSError as problem:
        log.error("node.log cannot be written (%s): %s", problem, shown(text[:LONGEST]))


def entry(text: str) -> str:
    """The lines of an entry, which starts now."""
    text = text.rstrip()
    if len(text) > LONGEST:
        # Of a traceback the beginning says where it was and the end says what.
        half = LONGEST // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    first, *more = map(shown, text.split("\n"))
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return "".join([f"{began} {first}\n", *(f"{CONTINUED}{line}\n" for line in more)])


def shown(text: str) -> str:
    """A text with everything escaped that does not print: line breaks, control characters, half surrogate pairs."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _append(path: Path, content: bytes) -> None:
    while True:
        with open(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            if not _is_at(path, out.fileno()):
                continue  # another process has moved it away in between
            if 0 < os.fstat(out.fileno()).st_size > LARGEST - len(content):
                os.replace(path, path.with_name(f"{path.name}.1"))
                continue
            out.write(content)
            return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
