"""The kinds of work in words and colours."""

from __future__ import annotations

from collections.abc import Iterable

_NAMES = {
    "identify": "roll call",
    "survey": "survey of the data",
    "train_generator": "train a generator",
    "send_patches": "send real patches",
    "receive_patches": "receive real patches",
    "synthesise": "draw synthetic images",
    "learn": "train a classifier",
    "test": "test elsewhere",
}
_COLOURS = {
    "survey": "#A7B0BC",
    "train_generator": "#0072B2",
    "send_patches": "#8C6D1F",
    "receive_patches": "#E69F00",
    "synthesise": "#009E73",
    "learn": "#D55E00",
    "test": "#CC79A7",
}
# For kinds that have no colour of their own.
_OTHERS = ("#56B4E9", "#7A5195", "#3C8D7D", "#B5651D", "#5B6670", "#1F2933")


def kind_name(kind: str) -> str:
    """In the words of the report; a kind without words of its own is shown by its name."""
    return _NAMES.get(kind, kind.replace("_", " "))


def kind_colours(kinds: Iterable[str]) -> dict[str, str]:
    """A colour for each of the kinds that occur in one figure."""
    kinds = sorted(set(kinds))
    others = [kind for kind in kinds if kind not in _COLOURS]
    return {kind: _COLOURS[kind] if kind in _COLOURS else _OTHERS[others.index(kind) % len(_OTHERS)] for kind in kinds}
