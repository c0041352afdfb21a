"""Averages of patches: each image that travels is the mean of the patches of several patients. An example of a new strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt

from basics.seeds import derive_seed, stream
from data_partitions import PatchTask
from federation.wire.centres import Centres
from federation.wire.exchange import Exchange, gather
from federation.wire.units import Units
from strategies import kind
from strategies.ask import Ask
from strategies.bodies import Body, OfTask, Pool
from strategies.centre_side import CentreSide
from strategies.keys import BaseArm
from strategies.layouts import patches_layout
from strategies.planned import Planned, ServerHalf, Shared, problems_of
from strategies.strategy import Strategy
from strategies.view import Facts, View

PATIENTS = 5  # in an average; too few for a hospital


class Average(OfTask):
    images: int
    seed: int


class Keep(Body):
    task: PatchTask
    images: int


def averages(body: Average | Keep) -> kind.Layout:
    return patches_layout(body.task, len(body.task.classes) * body.images)


def average(here: CentreSide, body: Average, arrays: kind.Arrays) -> kind.Answer:
    train, rng, made = here.patches(body).select(split="train"), stream(body.seed, "averages", here.centre), []
    for label in range(len(body.task.classes)):
        own = train.select(labels=(label,))
        patients = own.table["patient"].to_numpy()
        for _ in range(body.images):
            chosen = np.isin(patients, rng.choice(np.unique(patients), PATIENTS, replace=False))
            made.append(own.stored(np.flatnonzero(chosen)).mean(axis=0).astype(body.task.storage))
    return {"images": len(made)}, {"pixels": np.stack(made)}


def keep(here: CentreSide, body: Keep, arrays: kind.Arrays) -> kind.Answer:
    labels = np.repeat(np.arange(len(body.task.classes)), body.images)
    here.write_pool(arrays["pixels"], labels)
    return {"kept": len(labels)}, {}


AVERAGE = kind.Kind(
    name="average_patches", title="average patches", phase="share", body=Average, work=average,
    answer=(kind.Field("images", "count", "how many averages were made"),),
    sends=(kind.Sent("pixels", "images", "means over patches of several patients", "aggregate",
                     layout=averages),),
)  # fmt: skip
KEEP = kind.Kind(
    name="keep_averages", title="keep averages", phase="share", body=Keep, work=keep,
    answer=(kind.Field("kept", "count", "how many averages came"),),
    receives=(kind.Received("pixels", averages),),
)  # fmt: skip


def pool_of(task: PatchTask, centre: str, images: int, unit: str = "") -> Pool:
    return Pool(unit=unit, source=centre, counts={str(label): images for label in range(len(task.classes))})


@dataclass(frozen=True)
class Exchanged(ServerHalf[Shared]):
    units: Units
    place: tuple[str, str, str]
    asks: tuple[tuple[Ask, Ask], ...]

    def share(self, centres: Centres) -> Exchange[Shared]:
        made = yield from gather([ask.job(self.units) for ask, _ in self.asks])
        if problems := problems_of(made):
            return Shared(problems=problems)
        pairs = zip(self.asks, made, strict=True)
        kept = yield from gather([ask.job(self.units, inputs=[r.unit], arrays=r.arrays) for (_, ask), r in pairs])
        pools = [
            pool_of(ask.outline.task, ask.centre, ask.outline.images, r.unit)
            for (ask, _), r in zip(self.asks, kept, strict=True)
        ]
        problems = problems_of(kept)
        return Shared({} if problems else {self.place: pools}, problems=problems)


class AveragesArm(BaseArm):
    strategy: Literal["averages"]
    centres: tuple[str, ...] | None = None
    images: PositiveInt = 8


class Averages(Strategy):
    name, title, keys, kinds = "averages", "averages of patches", AveragesArm, (AVERAGE, KEEP)

    def members(self, view: View | Facts, arm: AveragesArm) -> tuple[str, ...]:
        return view.members(arm)

    def pools(self, view: View, name: str, arm: AveragesArm, receiver: str, task: str) -> list[Pool]:
        return [pool_of(view.task(task), centre, arm.images) for centre in view.members(arm) if centre != receiver]

    def exchanges(self, view: View, arms: Mapping[str, Any]) -> list[Planned[Shared]]:
        return [
            self._planned(view, arm, (name, at, task))
            for task in view.tasks for name, arm in arms.items() for at in arm.receivers or view.receivers
        ]  # fmt: skip

    def _planned(self, view: View, arm: AveragesArm, place: tuple[str, str, str]) -> Planned[Shared]:
        _, at, task = place
        centres = [centre for centre in view.members(arm) if centre != at]
        asks = tuple((
            Ask(AVERAGE, self.name, centre, task, view.data(centre, task) | {
                "images": arm.images, "seed": derive_seed(view.seed, f"averages/{task}", centre)}),
            Ask(KEEP, self.name, at, None, {"task": view.task(task), "images": arm.images}, same=f"{centre}/{task}/{arm.images}"),
        ) for centre in centres)  # fmt: skip
        flat = tuple(ask for pair in asks for ask in pair)
        return Planned(self.name, flat, lambda units, clock: Exchanged(units, place, asks))
