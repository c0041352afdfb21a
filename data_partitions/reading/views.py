"""Projections of mammography: those that are used, and those that are known and left out. Any other word is a mistake.

Codes of DICOM PS3.16, CID 4014 (views) and CID 4015 (modifiers), as archives write them.
"""

from __future__ import annotations

USED = ("CC", "MLO")
OTHERS = frozenset((
    "ML", "LM", "LMO", "SIO", "ISO", "FB", "XCC", "XCCL", "XCCM", "CV", "AT", "AX", "RL", "RM", "RI", "RS", "TAN", "MAG", "SPOT", "ID",
    "CCID", "MLOID", "LMID", "MLID",
))  # fmt: skip
SIDES = {"L": "L", "R": "R", "LEFT": "L", "RIGHT": "R"}


def is_view(word: str) -> bool:
    """Whether a word is a projection of a breast, used or not."""
    return word in USED or word in OTHERS


def is_side_and_view(word: str) -> bool:
    """The same of a side and a view in one word: "LEFT_ML", "RXCCL"."""
    return any(word.startswith(side) and is_view(word[len(side) :].lstrip("_")) for side in SIDES)
