"""What cells ask of centres, and the cell that one job of the receiver computes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from basics.seeds import derive_seed
from federation.wire.centres import Centres
from federation.wire.exchange import Exchange, gather
from federation.wire.units import Units
from strategies import choice, learning
from strategies.ask import Ask, Check, anything
from strategies.bodies import Pool, Size
from strategies.cells import LEARN, TEST
from strategies.planned import Learned, Planned, ServerHalf
from strategies.view import Cell, View, classifier_key


def learn_ask(
    view: View, arm: Any, cell: Cell, pools: Sequence[Pool], *, choose: choice.Choice | None = None, oversample: int | None = None,
) -> Ask:  # fmt: skip
    """What a cell asks of its receiver.

    Args:
        pools: of a planned cell without ids of units.
    """
    use, planned = view.use(arm), [pool.model_copy(update={"unit": ""}) for pool in pools]
    as_planned = operator.eq if len(view.task(cell.task).classes) == 2 else _part_of
    fixed = view.data(cell.receiver, cell.task) | cell_fixed(view, arm, cell) | {
        "recipe": learning.Recipe(
            use=use.use if pools or oversample is not None else "none", steps=use.schedule.model_dump(),
            synthetic_share=use.synthetic_share,
        ),
        "size": Size(fraction=cell.fraction, images=cell.images),
        "choose": choose,
        "oversample": oversample,
        "subset_seed": subset_seed(view, cell),
        "send_classifier": bool(view.test_centres(cell)),
    }  # fmt: skip
    free: dict[str, Check] = {
        "pools": lambda body: as_planned([pool.model_copy(update={"unit": ""}) for pool in body.pools], planned),
    }
    return Ask(LEARN, cell.strategy, cell.receiver, cell.task, fixed, free)


def _part_of(pools: Sequence[Pool], planned: Sequence[Pool]) -> bool:
    """Whether pools are those of a plan, maybe without classes that a generator turned out to lack."""
    counts = {pool.source: pool.counts for pool in planned}
    sources = [pool.source for pool in pools]
    return sources == [source for source in counts if source in sources] and all(
        pool.counts and pool.counts.items() <= counts[pool.source].items() for pool in pools
    )


def cell_fixed(view: View, arm: Any, cell: Cell) -> dict[str, Any]:
    """What every job about a cell says of it."""
    use = view.use(arm)
    training = view.training.model_copy(update={"augmentation": use.augmentation, "normalise": use.normalise})
    return {
        "cell": cell.name,
        "metrics": tuple(view.metrics),
        "classifier": view.classifier_spec(cell.classifier, cell.task),
        "training": training,
        "seed": derive_seed(view.seed, f"classifier/{cell.task}/{cell.classifier}", cell.receiver, cell.repeat),
        "compute": view.compute(cell.receiver, classifier_key(cell.classifier, cell.task)),
    }


def subset_seed(view: View, cell: Cell) -> int:
    """Of the draw of the receiver's patches: the same for all arms, so that they are compared in pairs."""
    return derive_seed(view.seed, f"subset/{cell.task}", cell.receiver, cell.repeat)


def test_asks(view: View, arm: Any, cell: Cell) -> list[Ask]:
    """What a cell asks of the other centres that test it."""
    asks = []
    for centre in view.test_centres(cell):
        fixed = cell_fixed(view, arm, cell)
        fixed["classifier"] = fixed["classifier"].plain  # its weights travel
        fixed["compute"] = fixed["compute"].model_copy(update={"device": view.compute(centre).device})
        asks.append(
            Ask(TEST, cell.strategy, centre, cell.task, view.data(centre, cell.task) | fixed, {"signature": anything})
        )
    return asks


def planned_cell(
    view: View, arm: Any, cell: Cell, pools: Sequence[Pool], *, choose: choice.Choice | None, oversample: int | None
) -> Planned[Learned]:
    """A cell that one job of the receiver computes."""
    ask = learn_ask(view, arm, cell, pools, choose=choose, oversample=oversample)
    return Planned(
        cell.strategy,
        (ask,),
        lambda units, clock: LearnedAtReceiver(units, ask, tuple(pools), cell.label),
        light=True,
    )


@dataclass(frozen=True)
class LearnedAtReceiver(ServerHalf[Learned]):
    """One cell, one job."""

    units: Units
    ask: Ask
    pools: tuple[Pool, ...]
    label: str

    def share(self, centres: Centres) -> Exchange[Learned]:
        job = self.ask.job(self.units, inputs=[pool.unit for pool in self.pools], label=self.label, pools=self.pools)
        (reply,) = yield from gather([job])
        return Learned(reply if reply.ok else None)
