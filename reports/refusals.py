"""What centres refused to do, apart from what failed: "centre B refused train b_gan by its own policy"."""

from __future__ import annotations

from collections.abc import Sequence

from federation.wire.errors import REFUSAL_CODES
from reports.timeline import Event, failures


def is_refusal(event: Event) -> bool:
    """Whether a `unit_failed` event is a refusal."""
    return event.get("code") in REFUSAL_CODES


def real_failures(events: Sequence[Event]) -> list[Event]:
    """The `unit_failed` events of the newest session that are not refusals."""
    return [event for event in failures(events) if not is_refusal(event)]


def refusals(events: Sequence[Event]) -> list[str]:
    """A line for each centre and reason of the newest session, in the order in which they came first."""
    found: dict[tuple[str, str], list[str]] = {}
    for event in failures(events):
        if is_refusal(event):
            label = str(event.get("label") or event.get("kind"))
            labels = found.setdefault((str(event["centre"]), _reason(event, label)), [])
            if label not in labels:
                labels.append(label)
    return [f"centre {centre} refused {_few(labels)}{reason}" for (centre, reason), labels in found.items()]


def _reason(event: Event, label: str) -> str:
    """ " by its own policy (strategies)", ": it does not take part in this study": the event's text without its beginning."""
    text = str(event.get("text") or event["code"]).removeprefix(f"centre {event['centre']!r} ")
    for beginning, instead in ((f"refuses {label}", ""), (f"could not do {label}: ", ": ")):
        if text.startswith(beginning):
            return instead + text.removeprefix(beginning)
    # The text may hold the label: reasons that differ in nothing else are one reason.
    return f": it {text.replace(label, 'the job')}"


def _few(labels: Sequence[str]) -> str:
    """ "train b_gan", "train b_gan and 11 other jobs"."""
    if len(labels) == 1:
        return labels[0]
    return f"{labels[0]} and {len(labels) - 1} other job{'s' if len(labels) > 2 else ''}"
