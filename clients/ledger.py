"""The node's own record of what came in and what left the hospital: one line per reply, which holds the hash of the line before.

`<workspace>/ledger.jsonl` only ever grows. Whoever edits, removes or moves a line breaks the chain there, and `verify` names
the place. That lines are missing at its end, or all of them, shows in its anchor outside the workspace (`clients.anchor`); a record
that does not go on from its anchor is not continued before the administrator has acknowledged that (`acknowledge`).

A reply is recorded before it is handed over, so a reply that cannot be recorded does not leave. Refusals and failures may come
faster than lines should: then some are counted, and one line for all of them comes before the next (`clients.counted_refusals`).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from basics.atomic_files import sync_folder
from basics.private_files import open_private
from clients import ledger_line
from clients.anchor import START, Anchor
from clients.centre_file import CentreFile, RecordPlace
from clients.counted_refusals import CountedRefusals, is_burst
from clients.digests import content_digest, job_digest
from clients.ledger_line import ACKNOWLEDGED, after_last_newline, facts, line_hash, parsed
from federation.wire.job import Job, Reply, canonical_json

log = logging.getLogger("flwr")

_REMEDY = "when you know why, `polycentre centre acknowledge` lets the node go on"


class LedgerError(ValueError):
    """The record cannot be continued."""

    code = "ledger_broken"


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Attributes:
        entries: the lines that can be read, in order.
        head: hash of the last line.
        problems: one sentence per break of the chain, with the line's number, and one where the anchor holds another head.
        counted: refusals that are counted and have no line yet.
    """

    entries: list[dict[str, Any]]
    head: str
    problems: list[str]
    counted: int = 0


class Ledger:
    """The record of one centre.

    Args:
        workspace: of the centre.
        anchor: of this record; without one, lines missing at its end do not show.
    """

    def __init__(self, workspace: Path, anchor: Anchor | None = None):
        self.path = workspace / "ledger.jsonl"
        self.anchor = anchor or Anchor()
        self._refusals = CountedRefusals(workspace / "ledger.refusals")

    @staticmethod
    def of(file: CentreFile) -> Ledger:
        """The record of a centre, with the anchor that its settings name."""
        return Ledger(file.workspace, Anchor(file.log.anchor, file.log.syslog_address, file.centre))

    @staticmethod
    def of_path(path: Path) -> tuple[str, Ledger]:
        """(name of a centre, its record), with no more of its file read than that needs.

        Raises:
            CentreFileError: see `RecordPlace.read`.
        """
        place = RecordPlace.read(path)
        return place.centre, Ledger(place.workspace, Anchor(place.log.anchor, place.log.syslog_address, place.centre))

    def record(self, job: Job | None, reply: Reply, centre: str, received: str | None = None) -> dict[str, Any] | None:
        """Append the line of a reply; returns its content, or None where the reply was counted.

        Args:
            job: None for a message that was not a job.
            centre: this one, whichever centre the job was addressed to.
            received: SHA-256 of what came in; that of the job when left out.

        Raises:
            LedgerError: the last line was not written by this record, or the record does not go on from its anchor.
            OSError: it cannot be written.
        """
        asked = job or Job("", "", "", "unreadable", {})
        return self._append(
            facts(
                asked.kind, reply.code, received=job_digest(asked) if received is None else received,
                sha256=content_digest(reply), study=asked.study, scenario=asked.scenario, unit=asked.unit, centre=centre,
                strategy=asked.strategy, bytes_down=asked.nbytes, bytes_up=reply.nbytes,
            ),
            may_be_counted=not reply.ok,
        )  # fmt: skip

    def record_other(self, kind: str, code: str, centre: str, *, received: str, sha256: str, bytes_up: int) -> None:
        """Append the line of what leaves and is not a reply of this project.

        Raises:
            LedgerError, OSError: see `record`.
        """
        line = facts(kind, code, centre=centre, received=received, sha256=sha256, bytes_up=bytes_up)
        self._append(line, may_be_counted=code != "ok")

    def check(self) -> None:
        """Whether the record can be continued.

        Raises:
            LedgerError: see `record`.
            OSError: it cannot be read.
        """
        if not self.path.exists():  # and it is not for a question to make it
            self._check(None)
            return
        with self._locked() as file:
            self._check(self._last(file))

    def acknowledge(self, centre: str) -> str:
        """Go on although the record does not match its anchor: a line says what was found, and the anchor holds that line.

        Returns:
            What was found; empty where they match, and nothing was written.

        Raises:
            LedgerError: the last line was not written by this record.
            OSError: it cannot be written.
        """
        with self._locked() as file:
            last = self._last(file)
            found = self.anchor.gap(last)
            try:
                self._refusals.line()
            except ValueError as problem:
                found = "; ".join(filter(None, [found, str(problem)]))
                self._refusals.clear()
            if found:
                torn = self._set_aside_torn(file)
                if torn is not None:
                    last = self._write(file, last, torn)
                self._write(file, last, facts(ACKNOWLEDGED, ACKNOWLEDGED, centre=centre, note=found))
            return found

    def verify(self) -> Verified:
        """Read all lines, check the chain, and compare its head with the anchor."""
        if not self.path.exists():
            return self._verified(b"")
        with open(self.path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # so that no line is read without its anchor
            return self._verified(file.read())

    def _verified(self, content: bytes) -> Verified:
        entries: list[dict[str, Any]] = []
        problems: list[str] = []
        previous, count = START, 0
        lines = content.split(b"\n")
        if lines.pop():
            problems.append(f"line {len(lines) + 1} is incomplete: the power or the disk failed while it was written")
        for number, line in enumerate(lines, 1):
            entry = parsed(line)
            if entry is None:
                problems.append(f"line {number} was not written by this record: it was edited")
                previous = ""
                continue
            if line_hash(entry) != entry["hash"]:
                problems.append(f"line {number} (entry {entry['n']}) was edited: its hash does not match its content")
            elif previous and (entry["previous"] != previous or entry["n"] != count + 1):
                problems.append(
                    f"line {number} (entry {entry['n']}) does not follow the line before: lines were removed, moved or replaced"
                )
            previous, count = entry["hash"], entry["n"]
            entries.append(entry)
        counted = None
        try:
            self._check(entries[-1] if entries else None)
            counted = self._refusals.line()
        except ValueError as problem:
            problems.append(str(problem))
        return Verified(entries, previous if entries else START, problems, counted["replies"] if counted else 0)

    # -- appending -----------------------------------------------------------------------------------------------

    def _append(self, line: Mapping[str, Any], *, may_be_counted: bool) -> dict[str, Any] | None:
        with self._locked() as file:
            last = self._last(file)
            self._check(last)
            self.anchor.follow(last)
            torn = self._set_aside_torn(file)
            if torn is not None:
                last = self._write(file, last, torn)
            if may_be_counted and is_burst(file):
                self._refusals.add(line)
                return None
            if (counted := self._refusals.line()) is not None:
                last = self._write(file, last, counted)
                self._refusals.clear()  # in this order: a crash in between counts them twice rather than not at all
            return self._write(file, last, line)

    def _check(self, last: Mapping[str, Any] | None) -> None:
        if gap := self.anchor.gap(last):
            raise LedgerError(f"{gap}; {_REMEDY}")
        try:
            self._refusals.line()
        except ValueError as problem:
            raise LedgerError(f"{problem}; {_REMEDY}") from None

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        """The file, locked: two processes of a node may answer at once."""
        # Readable by its owner only: what was asked of this centre is confidential.
        descriptor = open_private(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        with open(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _set_aside_torn(self, file: IO[bytes]) -> dict[str, Any] | None:
        """Move an incomplete last line into a file of its own; returns what the record says about it."""
        size = file.seek(0, os.SEEK_END)
        end = after_last_newline(file, size)
        if end == size:
            return None
        file.seek(end)
        torn = file.read(size - end)
        with open(
            open_private(self.path.with_name("ledger.torn"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab"
        ) as aside:
            aside.write(torn + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        file.truncate(end)
        return facts("torn_line", "torn_line", sha256=hashlib.sha256(torn).hexdigest())

    def _last(self, file: IO[bytes]) -> dict[str, Any] | None:
        """The last complete line; None in a file without one."""
        end = after_last_newline(file, file.seek(0, os.SEEK_END))
        if end == 0:
            return None
        start = after_last_newline(file, end - 1)
        file.seek(start)
        entry = parsed(file.read(end - 1 - start))
        if entry is None or line_hash(entry) != entry["hash"]:
            raise LedgerError(
                f"the last line of {self.path} was altered; examine it, move the file away and keep it, and begin a new one "
                "with `polycentre centre acknowledge`"
            )
        return entry

    def _write(self, file: IO[bytes], last: Mapping[str, Any] | None, line: Mapping[str, Any]) -> dict[str, Any]:
        entry = {
            "n": last["n"] + 1 if last else 1,
            "time": ledger_line.now().isoformat(timespec="seconds"),
            **line,
            "previous": last["hash"] if last else START,
        }
        entry["hash"] = line_hash(entry)
        content = canonical_json(entry).encode() + b"\n"
        if file.write(content) != len(content):
            raise OSError(f"{self.path}: a line could not be written completely")
        os.fsync(file.fileno())
        if last is None:
            sync_folder(self.path.parent)
        self.anchor.hold(entry["n"], entry["hash"])  # after the line, never before: see `clients.anchor`
        return entry


def recorded(ledger: Ledger, centre: str, job: Job | None, reply: Reply, received: str | None = None) -> Reply:
    """The reply, after it was written into the record of a centre; if that fails, a refusal to send instead.

    Args:
        job: None for a message that was not a job.
        received: see `Ledger.record`.
    """
    try:
        ledger.record(job, reply, centre, received)
        return reply
    except (LedgerError, OSError) as problem:
        log.error("%s", problem)
        code = LedgerError.code if isinstance(problem, LedgerError) else "no_workspace"
    return Reply("", "", "", "", code=code) if job is None else Reply.error(job, code)
