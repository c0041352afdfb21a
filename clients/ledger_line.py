"""One line of a centre's record (`clients.ledger`): its fields, what bounds them, its hash.

Whatever a job says, a line has at most `LONGEST_LINE` bytes and prints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any

from basics.words import one_line
from federation.wire.job import canonical_json

LONGEST_TEXT = 64
LONGEST_LINE = 8192
COUNTED, ACKNOWLEDGED, FLOWER_ERROR = "refusals_counted", "acknowledged", "flower_error"
# Of lines that older versions wrote.
_FIRST_KEYS = frozenset({
    "n", "time", "study", "scenario", "unit", "centre", "kind", "strategy", "code", "bytes_down", "bytes_up", "sha256",
    "epsilon", "previous", "hash",
})  # fmt: skip
_KEYS = _FIRST_KEYS | {"received", "replies", "note"}


def now() -> datetime:
    """The time of a line that is written now."""
    return datetime.now(UTC)


def facts(
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
    return {name: bounded(text, LONGEST_TEXT) for name, text in texts.items()} | {
        "received": received, "sha256": sha256, "bytes_down": bytes_down, "bytes_up": bytes_up, "epsilon": None, "replies": 1,
        "note": bounded(note, 4 * LONGEST_TEXT),
    }  # fmt: skip


def bounded(text: str, at_most: int) -> str:
    """A text of a job for a line of the record."""
    # Cut first: of a text of megabytes only its beginning is looked at.
    return one_line(text[: 2 * at_most], at_most)


def line_hash(entry: Mapping[str, Any]) -> str:
    """Of all that is in a line besides."""
    return hashlib.sha256(canonical_json({k: v for k, v in entry.items() if k != "hash"}).encode()).hexdigest()


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line's content, if this record would write it in the same way."""
    try:
        entry = json.loads(line)
        good = isinstance(entry, dict) and set(entry) in (_KEYS, _FIRST_KEYS) and canonical_json(entry).encode() == line
        return entry if good and isinstance(entry["n"], int) and isinstance(entry["hash"], str) else None
    except (ValueError, RecursionError):
        return None


def after_last_newline(file: IO[bytes], end: int, block: int = 4096) -> int:
    """Position after the last newline before `end`; 0 if there is none."""
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
