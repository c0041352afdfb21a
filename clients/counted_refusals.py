"""Replies without content that come too fast for a line each: counted in `ledger.refusals` until the next line is written.

`BURST` of them within `BURST_S` seconds get a line of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from basics.atomic_files import write_bytes
from clients import ledger_line
from clients.anchor import START
from clients.ledger_line import COUNTED, LONGEST_LINE, facts, parsed
from federation.wire.job import canonical_json

BURST, BURST_S = 20, 60


def is_burst(file: IO[bytes]) -> bool:
    """Whether the last lines are all of refusals, and all of this minute."""
    start = max(0, file.seek(0, os.SEEK_END) - BURST * LONGEST_LINE)
    file.seek(start)
    latest = [parsed(line) for line in file.read().splitlines()[-BURST:]]
    # Not those of the future either: a clock that was set back must not silence the record.
    now = ledger_line.now()
    since = {(now - timedelta(seconds=age)).isoformat(timespec="seconds") for age in range(BURST_S)}
    return len(latest) == BURST and all(
        entry is not None and entry["code"] != "ok" and entry["time"] in since for entry in latest
    )


class CountedRefusals:
    """Those of one record, which keeps two processes from counting at once.

    Args:
        path: of the file, which is there only while there are some.
    """

    def __init__(self, path: Path):
        self._path = path

    def add(self, refusal: Mapping[str, Any]) -> None:
        """Count a line that is not written; the hashes of all of them are hashed one after the other.

        Raises:
            ValueError, OSError: see `line`.
        """
        before = self.line() or facts(COUNTED, COUNTED, received=START, sha256=START, centre=refusal["centre"]) | {
            "replies": 0
        }
        chained = {
            key: hashlib.sha256((before[key] + refusal[key]).encode()).hexdigest() for key in ("received", "sha256")
        }
        added = {key: before[key] + refusal[key] for key in ("replies", "bytes_down", "bytes_up")}
        write_bytes(self._path, canonical_json({**before, **chained, **added}).encode() + b"\n", mode=0o600)

    def line(self) -> dict[str, Any] | None:
        """The line that stands for all that are counted; None where there are none.

        Raises:
            ValueError: the file was altered.
            OSError: it cannot be read.
        """
        try:
            found = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            found = None
        usual = facts(COUNTED, COUNTED)
        if not isinstance(found, dict) or {k: type(v) for k, v in found.items()} != {
            k: type(v) for k, v in usual.items()
        }:
            raise ValueError(f"{self._path} was altered")
        return found

    def clear(self) -> None:
        """Count from nothing again."""
        self._path.unlink()
