"""`polycentre centre log`: the record of what left a hospital, verified and summed up."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clients.ledger import Ledger, Verified
from clients.ledger_line import ACKNOWLEDGED, COUNTED, LONGEST_TEXT
from clients.node_log import shown


def print_record(console: Console, ledger: Ledger, tail: int) -> int:
    """Print totals, the last lines, and what `print_verdict` prints, whose status it returns."""
    found = ledger.verify()
    messages: Counter[tuple[str, str, str]] = Counter()
    sent: Counter[tuple[str, str, str]] = Counter()
    for entry in found.entries:
        key = (_text(entry, "scenario")[:16] or "-", _text(entry, "kind"), _text(entry, "code"))
        messages[key] += entry.get("replies", 1)
        sent[key] += entry["bytes_up"]
    totals = Table("study", "kind", "code", "replies", "bytes out", title="what left", title_justify="left")
    for key in sorted(messages):
        # A plain string would be read as markup, and a job's words may be anything.
        totals.add_row(*(Text(part) for part in key), str(messages[key]), f"{sent[key]:,}")
    console.print(totals)
    for entry in found.entries[len(found.entries) - min(tail, len(found.entries)) :]:
        replies = f" of {entry['replies']} replies" if entry["kind"] == COUNTED else ""
        _say(
            console,
            f"{entry['n']:>6} {_text(entry, 'time')} {_text(entry, 'scenario')[:16] or '-':<16} {_text(entry, 'kind')}{replies} "
            f"{_text(entry, 'code')} {entry['bytes_up']} bytes, unit {_text(entry, 'unit') or '-'}, "
            f"received {_text(entry, 'received')[:16] or '-'}, sent {_text(entry, 'sha256')[:16] or '-'}",
        )
    return _print_verdict(console, ledger, found)


def print_verdict(console: Console, ledger: Ledger) -> int:
    """Print what is wrong with the record, what was acknowledged, and the head; returns status 1 where something is wrong."""
    return _print_verdict(console, ledger, ledger.verify())


def _print_verdict(console: Console, ledger: Ledger, found: Verified) -> int:
    for entry in found.entries:
        if entry["kind"] == ACKNOWLEDGED:
            _say(
                console,
                f"NOTE entry {entry['n']}, {_text(entry, 'time')}: acknowledged: {_text(entry, 'note')}",
                "yellow",
            )
    for problem in found.problems:
        _say(console, f"PROBLEM {shown(problem)}", "red")
    if found.counted:
        _say(console, f"{found.counted} refusals are counted, and get one line before the next one")
    _say(console, f"{len(found.entries)} lines in {ledger.path}")
    if ledger.anchor.path is not None and not found.problems:
        _say(console, f"the anchor {ledger.anchor.path} holds this record's end")
    _say(
        console,
        f"head {found.head}: write it down elsewhere; whoever can write to this machine can change record and anchor",
    )
    return 1 if found.problems else 0


def _text(entry: dict[str, object], key: str) -> str:
    # Lines of older versions hold whatever a job said.
    return shown(str(entry.get(key, ""))[: 4 * LONGEST_TEXT + 3])


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
