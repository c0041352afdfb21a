"""`polycentre centre log`: the record of what left a hospital, verified and summed up."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from clients.ledger import Ledger


def print_record(console: Console, ledger: Ledger, tail: int) -> int:
    """Print totals, the last lines and the head; returns status 1 where the chain is broken."""
    found = ledger.verify()
    messages: Counter[tuple[str, str, str]] = Counter()
    sent: Counter[tuple[str, str, str]] = Counter()
    for entry in found.entries:
        key = (entry["scenario"][:16] or "-", entry["kind"], entry["code"])
        messages[key] += 1
        sent[key] += entry["bytes_up"]
    totals = Table("study", "kind", "code", "replies", "bytes out", title="what left", title_justify="left")
    for key in sorted(messages):
        totals.add_row(*key, str(messages[key]), f"{sent[key]:,}")
    console.print(totals)
    for entry in found.entries[len(found.entries) - min(tail, len(found.entries)) :]:
        console.print(
            f"{entry['n']:>6} {entry['time']} {entry['scenario'][:16] or '-':<16} {entry['kind']} {entry['code']} "
            f"{entry['bytes_up']} bytes, unit {entry['unit'] or '-'}, sha256 {entry['sha256'][:16]}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    for problem in found.problems:
        console.print(f"PROBLEM {problem}", style="red", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{len(found.entries)} lines in {ledger.path}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"head {found.head}: write it down elsewhere; only it shows whether lines were cut off at the end",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    return 1 if found.problems else 0
