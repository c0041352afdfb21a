"""Pieces that the bodies of several kinds of jobs share."""

from __future__ import annotations

from typing import Any, Literal

from data_partitions import PatchTask, SplitRule
from federation.wire.transport import Transport
from strategies.kind import Body


class Compute(Body):
    """On what a job computes.

    Attributes:
        device: auto, cpu or cuda; a deployed centre has its own.
        precision: fp32 or bf16, as the survey found; auto until then.
    """

    device: str
    threads: int
    precision: Literal["fp32", "bf16", "auto"]

    @property
    def options(self) -> dict[str, Any]:
        """Device and precision, as the functions of `models` take them.

        Raises:
            ValueError: the precision was never chosen.
        """
        if self.precision == "auto":
            raise ValueError("precision is auto, and no survey has chosen it")
        return {"device": self.device, "precision": self.precision}


class OwnData(Body):
    """Where a centre finds its images, and how they are split.

    Attributes:
        data: the centre's section of the scenario; a deployed node may have its own in the place of it.
        data_seed: of splits and draws.
    """

    data: dict[str, Any]
    split: SplitRule
    data_seed: int


class OfTask(OwnData):
    """The same, and which patches are made of them."""

    task: PatchTask


class OnState(Body):
    """What a stateful job says of the state that it builds on.

    Attributes:
        federation: id of the exchange; names the state at the centre.
        state_unit: the job that made the state; empty for the first.
        fresh: when the centre had to begin anew, counted by the server; a job after a loss is another job.
    """

    federation: str
    state_unit: str
    fresh: int


class Course(OnState):
    """Where a federation in rounds stands.

    Attributes:
        round: from 0 on.
        from_step: local steps before this round.
        attempt: how often this round was asked for before.
        introduce: whether the answer is to say who the centre is: its data card, what it trains on.
    """

    round: int
    from_step: int
    steps: int
    transport: Transport
    attempt: int
    introduce: bool


class Size(Body):
    """How much of its training patches a receiver uses; one of the two, or none for all."""

    fraction: float | None
    images: int | None


class CellName(Body):
    """Which cell of the study a classifier belongs to."""

    arm: str
    strategy: str
    task: str
    classifier: str
    real_fraction: float | None
    real_images: int | None
    repeat: int
    receiver: str


class Pool(Body):
    """Foreign images (synthetic or real) that a receiver holds.

    Attributes:
        unit: id of the unit that made it; its name in the receiver's workspace.
        source: the generator or the centre it comes from.
        counts: images by label.
    """

    unit: str
    source: str
    counts: dict[str, int]

    @property
    def by_label(self) -> dict[int, int]:
        """The same with labels as numbers."""
        return {int(label): count for label, count in self.counts.items()}
