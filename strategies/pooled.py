"""Pooling real patches at the receiver: what sharing data itself would give, an upper bound.

Simulation only: these two kinds of jobs are the only ones that carry images of patients, and a deployed node refuses them.
The server passes pixels on without writing them anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from basics.image_shape import Storage
from basics.seeds import derive_seed
from federation.wire.centres import Centres
from federation.wire.exchange import Exchange, gather
from federation.wire.job import Reply, canonical_json
from federation.wire.units import Units
from strategies.ask import Ask
from strategies.bodies import Body, OfTask, Pool
from strategies.centre_side import CentreSide
from strategies.delivery import counts_of
from strategies.keys import BaseArm
from strategies.kind import Answer, Answered, Array, Arrays, Count, Kind, Layout, Received, Sent, Words
from strategies.kind import Field as AnswerField
from strategies.layouts import patches_layout
from strategies.planned import Planned, ServerHalf, Shared, problems_of
from strategies.strategy import Strategy
from strategies.view import Facts, View

# -- local halves ------------------------------------------------------------------------------------------------------


class SendPatches(OfTask):
    """Arguments of `send`.

    Attributes:
        classes: labels.
        patches: of each class at most; None: all.
    """

    classes: tuple[int, ...]
    patches: int | None
    seed: int


class ReceivePatches(Body):
    """How the arrays are stored."""

    storage: Storage


def send(here: CentreSide, body: SendPatches, arrays: Arrays) -> Answer:
    """Real training patches of some classes."""
    train = here.patches(body).select(split="train")
    rng = np.random.default_rng(body.seed)
    rows = []
    for label in body.classes:
        own = np.flatnonzero(train.labels == label)
        wanted = len(own) if body.patches is None else min(body.patches, len(own))
        rows.append(rng.permutation(own)[:wanted])
    chosen = np.concatenate(rows)
    labels = train.labels[chosen]
    return {"counts": counts_of(labels)}, {"pixels": train.stored(chosen), "labels": labels}


def receive(here: CentreSide, body: ReceivePatches, arrays: Arrays) -> Answer:
    """Keep another centre's real patches: pixels (n, c, h, w), labels (n,)."""
    here.write_pool(arrays["pixels"], arrays["labels"])
    return {"counts": counts_of(arrays["labels"])}, {}


def _sent_layout(body: SendPatches) -> Layout:
    return {**patches_layout(body.task, None), "labels": Array((None,), "int64")}


def _any_layout(body: ReceivePatches) -> Layout:
    return {"pixels": Array((None, None, None, None), body.storage), "labels": Array((None,), "int64")}


class MovedAnswer(Answered):
    """How many patches moved, by label."""

    counts: dict[Words, Count]


_COUNTS = AnswerField("counts.*", "counts", "how many real patches of each class", "counts")
SEND = Kind(
    name="send_patches",
    title="send real patches",
    phase="share",
    body=SendPatches,
    work=send,
    pixels=True,
    kept=False,
    answer=(_COUNTS,),
    answer_model=MovedAnswer,
    sends=(
        Sent("pixels", "images", "images of patients", "model", layout=_sent_layout),
        Sent("labels", "numbers", "their labels", "model"),
    ),
)
RECEIVE = Kind(
    name="receive_patches",
    title="receive real patches",
    phase="share",
    body=ReceivePatches,
    work=receive,
    pixels=True,
    answer=(_COUNTS,),
    answer_model=MovedAnswer,
    receives=(Received("pixels", _any_layout), Received("labels", _any_layout)),
)
KINDS = (SEND, RECEIVE)


# -- server half -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Move:
    """Patches of one centre on their way to another."""

    send: Ask
    receive: Ask

    @property
    def asks(self) -> tuple[Ask, Ask]:
        return self.send, self.receive


def planned_moves(
    view: View,
    strategy: str,
    receiver: str,
    task: str,
    centres: Sequence[str],
    classes: Sequence[int],
    patches: int | None,
) -> tuple[Move, ...]:
    """From each of the centres to the receiver."""
    moves = []
    for centre in centres:
        seed = derive_seed(view.seed, f"pooled/{task}", centre)
        fixed = view.data(centre, task) | {"classes": tuple(classes), "patches": patches, "seed": seed}
        sent = Ask(SEND, strategy, centre, task, fixed)
        # Arms that want the same patches have them sent once.
        same = canonical_json([centre, sent.json])
        kept = {"storage": view.task(task).storage}
        moves.append(Move(sent, Ask(RECEIVE, strategy, receiver, None, kept, same=same)))
    return tuple(moves)


def move(units: Units, centres: Centres, moves: Sequence[Move]) -> Exchange[list[Reply]]:
    """For each: the receiver's answer, or the sender's where that one failed. Centres send side by side."""
    sends, receives = [], []
    for one in moves:
        sent = one.send.job(units, label=f"real patches for {one.receive.centre}")
        sends.append(sent)
        receives.append(one.receive.job(units, inputs=[sent.unit], label=f"real patches of {one.send.centre}"))
    # What the receiver holds from an earlier session, or from another arm, is not moved again.
    replies = {i: known for i, job in enumerate(receives) if (known := centres.known(job)) is not None}
    wanted = [i for i in range(len(moves)) if i not in replies]
    sent_replies = dict(zip(wanted, (yield from gather([sends[i] for i in wanted])), strict=True))
    arrived = [i for i in wanted if sent_replies[i].ok]
    received = yield from gather([replace(receives[i], arrays=sent_replies[i].arrays) for i in arrived])
    replies |= {i: reply for i, reply in sent_replies.items() if not reply.ok} | dict(
        zip(arrived, received, strict=True)
    )
    return [replies[i] for i in range(len(moves))]


@dataclass(frozen=True)
class PooledHere(ServerHalf[Shared]):
    """Moves what one arm brings to one receiver for one task."""

    units: Units
    arm: str
    receiver: str
    task: str
    moves: tuple[Move, ...]

    def share(self, centres: Centres) -> Exchange[Shared]:
        replies = yield from move(self.units, centres, self.moves)
        problems = problems_of(replies)
        if problems:
            return Shared(problems=problems)
        pools = [
            Pool(unit=reply.unit, source=one.send.centre, counts=reply.body["counts"])
            for one, reply in zip(self.moves, replies, strict=True)
        ]  # fmt: skip
        notes = [
            f"arm {self.arm!r}: centre {pool.source!r} has no image of the classes that are shared"
            for pool in pools if not pool.counts
        ]  # fmt: skip
        pools = [pool for pool in pools if pool.counts]
        if not pools:
            return Shared(
                problems=[
                    f"arm {self.arm!r} at {self.receiver!r}: no centre has an image of the classes that it shares"
                ]
            )
        return Shared(pools={(self.arm, self.receiver, self.task): pools}, notes=notes)


# -- strategy ----------------------------------------------------------------------------------------------------------


class PooledArm(BaseArm):
    """Keys of an arm."""

    strategy: Literal["pooled"]
    centres: tuple[str, ...] = Field(min_length=1)
    patches: int | None = Field(None, ge=1, description="real patches per shared class; all when left out")


class Pooled(Strategy):
    """Real patches move to the receiver."""

    name, title, keys, kinds = "pooled", "real images moved", PooledArm, KINDS

    def members(self, view: View | Facts, arm: PooledArm) -> tuple[str, ...]:
        return tuple(arm.centres)

    def runs_at(self, view: View, name: str, arm: PooledArm, receiver: str, task: str) -> bool:
        return any(centre != receiver for centre in arm.centres)

    def exchanges(self, view: View, arms: Mapping[str, PooledArm]) -> list[Planned[Shared]]:
        planned = []
        for task in view.tasks:
            for name, arm in arms.items():
                for receiver in arm.receivers or view.receivers:
                    if not self.runs_at(view, name, arm, receiver, task):
                        continue
                    others = [centre for centre in arm.centres if centre != receiver]
                    moves = planned_moves(
                        view, self.name, receiver, task, others, view.shared_labels(arm, task), arm.patches
                    )
                    planned.append(_planned(name, receiver, task, moves))
        return planned


def _planned(arm: str, receiver: str, task: str, moves: tuple[Move, ...]) -> Planned[Shared]:
    asks = tuple(ask for one in moves for ask in one.asks)
    return Planned(Pooled.name, asks, lambda units, clock: PooledHere(units, arm, receiver, task, moves))
