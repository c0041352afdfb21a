"""Are the weights that a job brings those of this training? A server could send others, which return images.

A centre builds the first weights from the seed of the approved scenario. Later ones lie within what the optimizers can have moved
them since the weights that came last (`Ask.reach`, times the rounds in between). Batch norm's statistics follow the images and are
not compared. Weights that come from a file, which only the server has, are not compared the first time; `centre plan` says so.

This bounds how fast weights can be led astray, not how far: see docs/security.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from basics.atomic_files import write_bytes
from clients.answers import Question
from clients.node import Refusal
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
        Refusal: "foreign_weights", with the number of the round (or version), how far they lie, and how far they may.
    """
    start = question.kind.start
    if start is None:
        return
    weights = start.decoded(body, dict(arrays))
    if not weights:
        return
    number = int(getattr(body, start.number))
    file = folder / "received" / f"{plain_name(body.federation, 'federation')}.safetensors"
    before, known = _read(file) or (0, start.initial(body))
    # Several jobs may bring one number; an older one than the last cannot be compared.
    if known is not None and question.reach is not None:
        far = distance(weights, known, start.free(body))
        largest = max((float(np.abs(array).max(initial=0.0)) for array in known.values()), default=0.0)
        # Both may have been rounded on their way.
        allowed = _TOLERANCE + question.reach * abs(number - before) + 2 * rounding_of(body.transport, largest)
        if not far <= allowed:
            raise Refusal("foreign_weights", number=number, far=float(f"{far:.3g}"), allowed=float(f"{allowed:.3g}"))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, save({name: np.asarray(a, order="C") for name, a in weights.items()}, {"number": str(number)}))


def distance(weights: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], free: frozenset[str]) -> float:
    """The largest difference of one weight.

    Args:
        free: names that are not compared.
    """
    largest = [
        float(np.abs(array.astype(np.float64) - others[name]).max(initial=0.0)) for name, array in weights.items() if name not in free
    ]  # fmt: skip
    return max(largest, default=0.0)


def _read(file: Path) -> tuple[int, Arrays] | None:
    try:
        with safe_open(file, "numpy") as kept:
            return int((kept.metadata() or {})["number"]), {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
