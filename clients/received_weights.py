"""Are the weights that a job brings those of this training? A server could send others, which return images.

A centre builds the first weights from the seed of the approved scenario. Later ones lie within what the optimizers can have moved
them since the weights that came last (`Ask.reach`, times the rounds in between). Batch norm's statistics follow the images and are
not compared. Where the study begins with a file of weights, the centre has its own copy of it (`weights` in centre.yaml). A
classifier that is adopted must be one of those that came before.

This bounds how fast weights can be led astray, not how far: see docs/security.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from basics.atomic_files import write_bytes
from clients.answers import Question
from clients.node import Refusal
from federation.wire.arrays import arrays_digest
from federation.wire.job import plain_name
from federation.wire.transport import rounding_of
from strategies.kind import Arrays

# Initial weights are drawn alike on every machine; this allows for another order of floating-point sums.
_TOLERANCE = 1e-4


def check(folder: Path, question: Question, body: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse weights that are not of this training; those that pass are remembered.

    Args:
        folder: of the study, in the centre's workspace.

    Raises:
        Refusal: "foreign_weights", with the number of the round (or version), how far they lie, and how far they may;
            "unknown_weights": they should have come before.
    """
    start = question.kind.start
    if start is None:
        return
    weights = start.decoded(body, dict(arrays))
    if not weights:
        return
    file = folder / "received" / f"{plain_name(body.federation, 'federation')}.safetensors"
    kept, own = _read(file), arrays_digest(weights)
    seen = [] if kept is None else kept.seen
    if start.number is None:
        if own not in seen:
            raise Refusal("unknown_weights")
        return
    number = int(getattr(body, start.number))
    before, known = (0, start.initial(body)) if kept is None else (kept.number, kept.weights)
    # Several jobs may bring one number; an older one than the last cannot be compared.
    if question.reach is not None:
        far = distance(weights, known, start.free(body))
        largest = max((float(np.abs(array).max(initial=0.0)) for array in known.values()), default=0.0)
        # Both may have been rounded on their way.
        allowed = _TOLERANCE + question.reach * abs(number - before) + 2 * rounding_of(body.transport, largest)
        if not far <= allowed:
            raise Refusal("foreign_weights", number=number, far=float(f"{far:.3g}"), allowed=float(f"{allowed:.3g}"))
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {"number": str(number), "seen": json.dumps([*seen, own] if own not in seen else seen)}
    write_bytes(file, save({name: np.asarray(a, order="C") for name, a in weights.items()}, facts))


def distance(weights: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], free: frozenset[str]) -> float:
    """The largest difference of one weight.

    Args:
        free: names that are not compared.
    """
    largest = [
        float(np.abs(array.astype(np.float64) - others[name]).max(initial=0.0)) for name, array in weights.items() if name not in free
    ]  # fmt: skip
    return max(largest, default=0.0)


@dataclass(frozen=True)
class _Kept:
    """The last weights, their number, and digests of all that came."""

    number: int
    weights: Arrays
    seen: list[str]


def _read(file: Path) -> _Kept | None:
    try:
        with safe_open(file, "numpy") as kept:
            facts = kept.metadata() or {}
            weights = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
            return _Kept(int(facts["number"]), weights, json.loads(facts["seen"]))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
