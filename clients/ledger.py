"""The node's own record of what came in and what left the hospital: one line per reply, which holds the hash of the line before.

`<workspace>/ledger.jsonl` only ever grows. Whoever edits, removes or moves a line breaks the chain there, and `verify` names
the place. That lines are missing at its end, or all of them, shows in its anchor outside the workspace (`clients.anchor`); a record
that does not go on from its anchor is not continued before the administrator has acknowledged that (`acknowledge`).

A reply is recorded before it is handed over, so a reply that cannot be recorded does not leave. Whatever a job says, a line has at
most `LONGEST_LINE` bytes. Of replies without content (refusals and failures) `BURST` within `BURST_S` seconds get a line of their
own. Further ones are counted in `ledger.refusals`, and one line for all of them comes before the next line.
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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from basics.atomic_files import sync_folder, write_bytes
from basics.private_files import open_private
from basics.words import one_line
from clients.anchor import START, Anchor
from clients.centre_file import CentreFile, RecordPlace
from clients.digests import content_digest, job_digest
from federation.wire.job import Job, Reply, canonical_json

log = logging.getLogger("flwr")

BURST, BURST_S = 20, 60
LONGEST_TEXT = 64
LONGEST_LINE = 8192
COUNTED, ACKNOWLEDGED, FLOWER_ERROR = "refusals_counted", "acknowledged", "flower_error"
_REMEDY = "when you know why, `polycentre centre acknowledge` lets the node go on"
# Of lines that older versions wrote.
_FIRST_KEYS = frozenset({
    "n", "time", "study", "scenario", "unit", "centre", "kind", "strategy", "code", "bytes_down", "bytes_up", "sha256",
    "epsilon", "previous", "hash",
})  # fmt: skip
_KEYS = _FIRST_KEYS | {"received", "replies", "note"}


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
        self._counted = workspace / "ledger.refusals"

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
            _facts(
                asked.kind, reply.code, received=job_digest(asked) if received is None else received,
                sha256=content_digest(reply), study=asked.study, scenario=asked.scenario, unit=asked.unit, centre=centre,
                strategy=asked.strategy, bytes_down=asked.nbytes, bytes_up=reply.nbytes,
            ),
            may_be_counted=not reply.ok,
        )  # fmt: skip

    def record_other(
        self, kind: str, code: str, centre: str, received: str, sent: bytes | str, bytes_up: int = 0
    ) -> None:
        """Append the line of what leaves and is not a reply of this project.

        Args:
            sent: what leaves, or its SHA-256.

        Raises:
            LedgerError, OSError: see `record`.
        """
        digest, size = (sent, bytes_up) if isinstance(sent, str) else (hashlib.sha256(sent).hexdigest(), len(sent))
        facts = _facts(kind, code, centre=centre, received=received, sha256=digest, bytes_up=size)
        self._append(facts, may_be_counted=code != "ok")

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
                self._read_counted()
            except LedgerError as problem:
                found = "; ".join(filter(None, [found, str(problem)]))
                self._counted.unlink()
            if found:
                torn = self._set_aside_torn(file)
                if torn is not None:
                    last = self._write(file, last, torn)
                self._write(file, last, _facts(ACKNOWLEDGED, ACKNOWLEDGED, centre=centre, note=found))
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
        gap = self.anchor.gap(entries[-1] if entries else None)
        if gap:
            problems.append(f"{gap}; {_REMEDY}")
        try:
            counted = self._read_counted()
        except LedgerError as problem:
            problems.append(str(problem))
            counted = None
        return Verified(entries, previous if entries else START, problems, counted["replies"] if counted else 0)

    # -- appending -----------------------------------------------------------------------------------------------

    def _append(self, facts: Mapping[str, Any], *, may_be_counted: bool) -> dict[str, Any] | None:
        with self._locked() as file:
            last = self._last(file)
            self._check(last)
            self.anchor.follow(last)
            torn = self._set_aside_torn(file)
            if torn is not None:
                last = self._write(file, last, torn)
            counted = self._read_counted()
            if may_be_counted and self._is_burst(file):
                self._count(facts, counted)
                return None
            if counted is not None:
                last = self._write(file, last, counted)
                self._counted.unlink()  # in this order: a crash in between counts them twice rather than not at all
            return self._write(file, last, facts)

    def _check(self, last: Mapping[str, Any] | None) -> None:
        gap = self.anchor.gap(last)
        if gap:
            raise LedgerError(f"{gap}; {_REMEDY}")

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
        end = _after_last_newline(file, size)
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
        return _facts("torn_line", "torn_line", sha256=hashlib.sha256(torn).hexdigest())

    def _last(self, file: IO[bytes]) -> dict[str, Any] | None:
        """The last complete line; None in a file without one."""
        end = _after_last_newline(file, file.seek(0, os.SEEK_END))
        if end == 0:
            return None
        start = _after_last_newline(file, end - 1)
        file.seek(start)
        entry = _parsed(file.read(end - 1 - start))
        if entry is None or _hash(entry) != entry["hash"]:
            raise LedgerError(
                f"the last line of {self.path} was altered; examine it, move the file away and keep it, and begin a new one "
                "with `polycentre centre acknowledge`"
            )
        return entry

    def _is_burst(self, file: IO[bytes]) -> bool:
        """Whether the last lines are all of refusals, and all of this minute."""
        start = max(0, file.seek(0, os.SEEK_END) - BURST * LONGEST_LINE)
        file.seek(start)
        latest = [_parsed(line) for line in file.read().splitlines()[-BURST:]]
        # Not those of the future either: a clock that was set back must not silence the record.
        now = datetime.now(UTC)
        since = {(now - timedelta(seconds=age)).isoformat(timespec="seconds") for age in range(BURST_S)}
        return len(latest) == BURST and all(
            entry is not None and entry["code"] != "ok" and entry["time"] in since for entry in latest
        )

    def _count(self, facts: Mapping[str, Any], counted: Mapping[str, Any] | None) -> None:
        """Take a refusal into the number of those without a line; their hashes are hashed one after the other."""
        before = counted or _facts(COUNTED, COUNTED, received=START, sha256=START, centre=facts["centre"]) | {
            "replies": 0
        }
        chained = {
            key: hashlib.sha256((before[key] + facts[key]).encode()).hexdigest() for key in ("received", "sha256")
        }
        added = {key: before[key] + facts[key] for key in ("replies", "bytes_down", "bytes_up")}
        write_bytes(self._counted, canonical_json({**before, **chained, **added}).encode() + b"\n", mode=0o600)

    def _read_counted(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._counted.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            found = None
        usual = _facts(COUNTED, COUNTED)
        if not isinstance(found, dict) or {k: type(v) for k, v in found.items()} != {
            k: type(v) for k, v in usual.items()
        }:
            raise LedgerError(f"{self._counted} was altered; {_REMEDY}")
        return found

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


def _facts(
    kind: str, code: str, *, received: str = "", sha256: str = "", study: str = "", scenario: str = "", unit: str = "",
    centre: str = "", strategy: str = "", bytes_down: int = 0, bytes_up: int = 0, note: str = "",
) -> dict[str, Any]:  # fmt: skip
    """The content of a line, with everything bounded that a job may say."""
    texts = {
        "study": study,
        "scenario": scenario,
        "unit": unit,
        "centre": centre,
        "kind": kind,
        "strategy": strategy,
        "code": code,
    }
    return {name: _bounded(text, LONGEST_TEXT) for name, text in texts.items()} | {
        "received": received, "sha256": sha256, "bytes_down": bytes_down, "bytes_up": bytes_up, "epsilon": None, "replies": 1,
        "note": _bounded(note, 4 * LONGEST_TEXT),
    }  # fmt: skip


def _bounded(text: str, at_most: int) -> str:
    # Cut first: of a text of megabytes only its beginning is looked at.
    return one_line(text[: 2 * at_most], at_most)


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json({k: v for k, v in entry.items() if k != "hash"}).encode()).hexdigest()


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's content, if this record would write it in the same way."""
    try:
        entry = json.loads(line)
        good = isinstance(entry, dict) and set(entry) in (_KEYS, _FIRST_KEYS) and canonical_json(entry).encode() == line
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
