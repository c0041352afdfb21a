"""The node's own record of what left the hospital: one line per reply, which holds the hash of the line before.

`<workspace>/ledger.jsonl` only ever grows. Whoever edits, removes or moves a line breaks the chain there, and `verify` names
the place. The file itself cannot show that lines are missing at its end: to notice that, write down the hash of the last line
elsewhere (`polycentre centre log` prints it).

A reply is recorded before it is handed over, so a reply that cannot be recorded does not leave.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from federation.wire.job import Job, Reply, canonical_json

log = logging.getLogger("flwr")

START = "0" * 64
_KEYS = frozenset({
    "n", "time", "study", "scenario", "unit", "centre", "kind", "strategy", "code", "bytes_down", "bytes_up", "sha256",
    "epsilon", "previous", "hash",
})  # fmt: skip


class LedgerError(ValueError):
    """The record cannot be continued."""

    code = "ledger_broken"


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Attributes:
        entries: the lines that can be read, in order.
        head: hash of the last line.
        problems: one sentence per break of the chain, with the line's number.
    """

    entries: list[dict[str, Any]]
    head: str
    problems: list[str]


class Ledger:
    """The record of one centre.

    Args:
        workspace: of the centre.
    """

    def __init__(self, workspace: Path):
        self.path = workspace / "ledger.jsonl"

    def record(self, job: Job, reply: Reply, centre: str) -> dict[str, Any]:
        """Append the line of a reply; returns its content.

        Args:
            centre: this one, whichever centre the job was addressed to.

        Raises:
            LedgerError: the last line was not written by this record.
            OSError: it cannot be written.
        """
        return self._append(
            {
                "study": job.study, "scenario": job.scenario, "unit": job.unit, "centre": centre, "kind": job.kind,
                "strategy": job.strategy, "code": reply.code, "bytes_down": job.nbytes, "bytes_up": reply.nbytes,
                "sha256": content_digest(reply), "epsilon": None,
            }
        )  # fmt: skip

    def verify(self) -> Verified:
        """Read all lines and check the chain."""
        entries: list[dict[str, Any]] = []
        problems: list[str] = []
        previous, count = START, 0
        content = self.path.read_bytes() if self.path.exists() else b""
        lines = content.split(b"\n")
        if lines.pop():
            problems.append(f"line {len(lines) + 1} is incomplete: the power or the disk failed while it was written")
        for number, line in enumerate(lines, 1):
            entry = _parsed(line)
            if entry is None:
                problems.append(f"line {number} was not written by this record: it was edited")
                previous = ""
                continue
            if _hash(entry) != entry["hash"]:
                problems.append(f"line {number} (entry {entry['n']}) was edited: its hash does not match its content")
            elif previous and (entry["previous"] != previous or entry["n"] != count + 1):
                problems.append(
                    f"line {number} (entry {entry['n']}) does not follow the line before: lines were removed, moved or replaced"
                )
            previous, count = entry["hash"], entry["n"]
            entries.append(entry)
        return Verified(entries, previous if entries else START, problems)

    # -- appending -----------------------------------------------------------------------------------------------

    def _append(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        with self._locked() as file:
            torn = self._set_aside_torn(file)
            last = self._last(file)
            if torn is not None:
                last = self._write(file, last, torn)
            return self._write(file, last, facts)

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        """The file, locked: two processes of a node may answer at once."""
        # Readable by its owner only: what was asked of this centre is confidential.
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _set_aside_torn(self, file: IO[bytes]) -> dict[str, Any] | None:
        """Move an incomplete last line into a file of its own; returns what the record says about it."""
        size = file.seek(0, os.SEEK_END)
        end = _after_last_newline(file, size)
        if end == size:
            return None
        file.seek(end)
        torn = file.read(size - end)
        with open(self.path.with_name("ledger.torn"), "ab") as aside:
            aside.write(torn + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        file.truncate(end)
        digest = hashlib.sha256(torn).hexdigest()
        return {
            "study": "", "scenario": "", "unit": "", "centre": "", "kind": "torn_line", "strategy": "", "code": "torn_line",
            "bytes_down": 0, "bytes_up": 0, "sha256": digest, "epsilon": None,
        }  # fmt: skip

    def _last(self, file: IO[bytes]) -> dict[str, Any] | None:
        """The last complete line; None in an empty file."""
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return None
        start = _after_last_newline(file, size - 1)
        file.seek(start)
        entry = _parsed(file.read(size - 1 - start))
        if entry is None or _hash(entry) != entry["hash"]:
            raise LedgerError(
                f"the last line of {self.path} was altered; examine it, keep the file, and start a new one"
            )
        return entry

    def _write(self, file: IO[bytes], last: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> dict[str, Any]:
        entry = {
            "n": last["n"] + 1 if last else 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
            "previous": last["hash"] if last else START,
        }
        entry["hash"] = _hash(entry)
        line = canonical_json(entry).encode() + b"\n"
        if file.write(line) != len(line):
            raise OSError(f"{self.path}: a line could not be written completely")
        os.fsync(file.fileno())
        return entry


def recorded(workspace: Path, centre: str, job: Job | None, reply: Reply) -> Reply:
    """The reply, after it was written into the record of a centre; if that fails, a refusal to send instead.

    Args:
        job: None for a message that was not a job.
    """
    try:
        Ledger(workspace).record(job or Job("", "", "", "unreadable", {}), reply, centre)
        return reply
    except (LedgerError, OSError) as problem:
        log.error("%s", problem)
        code = LedgerError.code if isinstance(problem, LedgerError) else "no_workspace"
    return Reply("", "", "", "", code=code) if job is None else Reply.error(job, code)


def content_digest(reply: Reply) -> str:
    """SHA-256 of what leaves with a reply: its result (or its code and numbers), and its arrays by name."""
    digest = hashlib.sha256(canonical_json({"code": reply.code, "numbers": reply.numbers, "body": reply.body}).encode())
    for name, array in sorted(reply.arrays.items()):
        whole = np.ascontiguousarray(array)
        digest.update(f"\0{name}\0{whole.dtype.str}\0{list(whole.shape)}\0".encode())
        digest.update(whole.reshape(-1).view(np.uint8).data if whole.size else b"")
    return digest.hexdigest()


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json({k: v for k, v in entry.items() if k != "hash"}).encode()).hexdigest()


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's content, if this record would write it in the same way."""
    try:
        entry = json.loads(line)
        good = isinstance(entry, dict) and set(entry) == _KEYS and canonical_json(entry).encode() == line
        return entry if good and isinstance(entry["n"], int) and isinstance(entry["hash"], str) else None
    except (ValueError, RecursionError):
        return None


def _after_last_newline(file: IO[bytes], end: int, block: int = 4096) -> int:
    """Position after the last newline before `end`; 0 if there is none."""
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
