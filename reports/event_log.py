"""A log of JSON lines that survives a kill at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.record_files import to_json


class EventLog:
    """Appends in one write each, so that the lines of two processes do not mix; reads what is whole."""

    def __init__(self, path: Path):
        self._path = path
        self._appending = False
        self._known: list[dict[str, Any]] = []  # events of the first `_read_to` bytes
        self._read_to = 0

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one line."""
        line = to_json(event) + "\n"
        handle = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
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

    def read(self) -> list[dict[str, Any]]:
        """All events in the order in which they were written; a line cut short by a kill is left out.

        Called again, it reads only what was appended since: the display of progress does so four times a second.
        """
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._read_to)
            *whole, rest = file.read().split(b"\n")
        for line in whole:
            self._read_to += len(line) + 1
            self._known += _events(line)
        return [*self._known, *_events(rest)]


def _events(line: bytes) -> list[dict[str, Any]]:
    """The event in a line, if it is whole."""
    try:
        entry = json.loads(line)
    except ValueError:  # cut short, or (UnicodeDecodeError) cut within a character
        return []
    return [entry] if isinstance(entry, dict) and "event" in entry and "t" in entry else []
