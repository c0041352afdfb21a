"""What went wrong in a federation: one line, shown under every table that has its arm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from basics.words import one_line
from reports.study import Study

# Centres named one by one; of more, their number and the first.
_NAMED = 4


def trouble_lines(federations: Iterable[Mapping[str, Any]], study: Study) -> dict[tuple[str, str], str]:
    """(arm, task) -> its line, in the scenario's order of arms; arms without trouble, rounding or notes have none.

    federations: the entries of federations.json.
    """
    order = {name: i for i, name in enumerate(study.arms)}
    ranked = sorted(federations, key=lambda f: (order.get(f["arm"], len(order)), f["arm"], f["task"]))
    lines = {}
    for federation in ranked:
        said = _sentences(federation, study.arm(federation["arm"]).step)
        if said:
            several = len(study.classes) > 1
            name = f"{federation['arm']} ({federation['task']})" if several else federation["arm"]
            lines[federation["arm"], federation["task"]] = f"{name}: {' '.join(said)}"
    return lines


def _sentences(federation: Mapping[str, Any], step: str) -> list[str]:
    said = []
    troubles = [*_jobs(federation), *_gone(federation.get("gone") or []), *_state_lost(federation, step)]
    if federation.get("failed"):  # records of earlier versions have no such key
        said.append(f"{', '.join([*troubles, 'it has no result'])}: {str(federation['failed']).rstrip('.')}.")
    elif troubles:
        said.append(f"{', '.join(troubles)}; the result is of what remained.")
    transport = federation.get("transport")
    if transport and transport["how"] != "fp32":
        error = transport.get("relative_error")
        rounding = "" if error is None else f", with a relative error of {_scientific(error)}"
        said.append(f"Arrays travelled as {transport['how']}{rounding}.")
    notes = (one_line(note) for note in federation.get("notes") or [])
    return said + [note if note.endswith((".", "!", "?")) else f"{note}." for note in notes if note]


def _jobs(federation: Mapping[str, Any]) -> list[str]:
    """["12 of 40 jobs were lost", "3 came too late"]"""
    outcomes = {"lost": "lost", "late": "too late", "stale": "too stale to be used"}
    counts = {words: federation.get(outcome) or 0 for outcome, words in outcomes.items()}
    found = [(n, words) for words, n in counts.items() if n]
    if not found:
        return []
    (n, words), *others = found
    first = f"{n} of {federation['jobs']} job{'' if federation['jobs'] == 1 else 's'} {_were(n)} {words}"
    return [first, *(f"{n} {_were(n)} {words}" for n, words in others)]


def _gone(gone: Sequence[Mapping[str, Any]]) -> list[str]:
    ordered = sorted(gone, key=lambda g: (g["from_s"], str(g["centre"])))
    if len(ordered) > _NAMED:
        first = ordered[0]
        return [
            f"{len(ordered)} centres were gone by the end, {first['centre']} as the first from {first['from_s']:.4g} s on"
        ]
    return [f"{g['centre']} was gone from {g['from_s']:.4g} s on" for g in ordered]


def _state_lost(federation: Mapping[str, Any], step: str) -> list[str]:
    lost = sorted(federation.get("state_lost") or [], key=lambda s: (s["number"], str(s["centre"])))
    if len(lost) > _NAMED:
        first = f"{lost[0]['centre']} as the first at {step} {lost[0]['number']}"
        return [f"{len(lost)} times a centre came back with an empty state, {first}"]
    return [f"{s['centre']} came back with an empty state at {step} {s['number']}" for s in lost]


def _were(n: int) -> str:
    return "was" if n == 1 else "were"


def _scientific(value: float) -> str:
    """ "1.2e-4": two digits, and no more zeros than needed."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"
