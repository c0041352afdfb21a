"""The anchor of a centre's record: number and hash of its last entry, kept where the record is not.

The record (`clients.ledger`) is a chain, in which an edited line shows. That lines are missing at its end, or that all of it was
deleted or replaced, shows here only. The anchor is rewritten with every entry, always after it. So after a crash the
record may be one entry ahead of the anchor, and then goes on by itself; every other difference was made by somebody.

Each head can also go to a syslog that only appends. It is a third copy: what cannot be sent there is said on the console and counted in
the anchor, and the work goes on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Any

from basics.atomic_files import write_bytes
from basics.private_files import make_private_folder

log = logging.getLogger("flwr")

START = "0" * 64
DEV_LOG = "/dev/log"


@dataclass(frozen=True)
class Head:
    """What an anchor holds.

    Attributes:
        entries: number of the last entry.
        hash: of that entry.
        unsent: how many entries since the last that was sent could not be sent to the syslog.
    """

    entries: int = 0
    hash: str = START
    unsent: int = 0


class Anchor:
    """The anchor of one record.

    Args:
        path: of its file; None: there is none, and nothing is compared (a trial without centre.yaml).
        syslog: `DEV_LOG` or another socket's path, or host:port; empty: none.
        centre: whose record it is, for the syslog.
    """

    def __init__(self, path: Path | None = None, syslog: str = "", centre: str = ""):
        self.path, self._syslog, self._centre = path, syslog, centre

    def read(self) -> Head | None:
        """What it holds; None where it was never written.

        Raises:
            ValueError: it holds something else.
        """
        if self.path is None:
            return None
        try:
            found = json.loads(self.path.read_bytes())
            head = Head(found["entries"], found["hash"], found["unsent"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            raise ValueError(f"{self.path} was not written by this record") from problem
        if not (isinstance(head.entries, int) and isinstance(head.hash, str) and isinstance(head.unsent, int)):
            raise ValueError(f"{self.path} was not written by this record")
        return head

    def gap(self, last: Mapping[str, Any] | None) -> str:
        """How a record differs from what the anchor knows; empty where the record goes on from it, or where there is none.

        Args:
            last: its last entry, which is whole; None where it has none.
        """
        if self.path is None:
            return ""
        try:
            head = self.read()
        except ValueError as problem:
            return f"the anchor {problem}"
        number, now = (last["n"], last["hash"]) if last else (0, START)
        if head is None:
            # An older version kept no anchors. The first entry may be there before the first anchor.
            if number <= 1 or (last is not None and "received" not in last):
                return ""
            return f"the record has {number} entries and no anchor ({self.path}): one of them was removed or replaced"
        if (number, now) == (head.entries, head.hash):
            return ""
        if last is not None and number == head.entries + 1 and last["previous"] == head.hash:
            return ""  # the crash between the two
        known = f"its anchor knows entry {head.entries} with hash {head.hash[:16]} ({self.path})"
        if last is None:
            return f"the record was deleted: {known}"
        if number < head.entries:
            return f"the record ends with entry {number}, and {known}: it was cut off at its end, or replaced"
        return f"the record ends with entry {number} and does not go on from there, while {known}: one of them was replaced"

    def follow(self, last: Mapping[str, Any] | None) -> None:
        """After a crash between entry and anchor: hold the last entry.

        Raises:
            OSError: it cannot be written.
        """
        if self.path is None or last is None:
            return
        head = self.read()
        if head is None or head.hash != last["hash"]:
            self.hold(last["n"], last["hash"], head)

    def hold(self, number: int, entry_hash: str, before: Head | None = None) -> None:
        """Hold a new last entry, and send it to the syslog.

        Args:
            before: what it held, where the caller knows.

        Raises:
            OSError: it cannot be written.
        """
        if self.path is None:
            return
        before = before or self._read_or_nothing()
        unsent = 0 if self._sent(number, entry_hash, before.unsent) else before.unsent + 1
        make_private_folder(self.path.parent)
        content = json.dumps(asdict(Head(number, entry_hash, unsent))).encode() + b"\n"
        write_bytes(self.path, content, mode=0o600)

    def _read_or_nothing(self) -> Head:
        try:
            return self.read() or Head()
        except ValueError:  # the administrator has acknowledged that
            return Head()

    def _sent(self, number: int, entry_hash: str, unsent: int) -> bool:
        if not self._syslog:
            return True
        text = f"polycentre {self._centre}: entry {number} of the record has hash {entry_hash}"
        problem = send(self._syslog, text + (f"; {unsent} entries before it were not sent" if unsent else ""))
        if problem:
            log.error(
                "log.syslog: entry %d could not be sent to %s (%s); it is in the record and the anchor",
                number, self._syslog, problem,
            )  # fmt: skip
        return not problem


def send(address: str, text: str) -> str:
    """Send one line to a syslog; returns why it could not be sent. UDP does not say whether it has arrived."""
    host, _, port = address.rpartition(":")
    try:
        handler = _Telling(
            address if address.startswith("/") else (host.strip("[]"), int(port)), SysLogHandler.LOG_USER
        )
        try:
            handler.emit(logging.makeLogRecord({"msg": text, "levelno": logging.INFO, "levelname": "INFO"}))
        finally:
            handler.close()
    except OSError as problem:
        return problem.strerror or str(problem)
    return ""


class _Telling(SysLogHandler):
    """One that does not swallow its errors."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # noqa: PLE0704  (called while the error is handled)
