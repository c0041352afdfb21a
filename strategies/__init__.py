"""How knowledge moves between centres: each strategy in one file or folder, and what they have in common.

`STRATEGIES` names every strategy that a scenario may choose by its arm's `strategy`. A new one is a subclass of
`strategies.strategy.Strategy` in a file of its own, and a line here.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from basics.plugins import Table, subclass_of
from strategies.cells import LEARN, TEST
from strategies.cyclic import Cyclic
from strategies.delivery import SYNTHESISE
from strategies.dm_gan import DmGAN
from strategies.fedavg_classifier import FedAvgClassifier
from strategies.fedavg_gan import FedAvgGAN
from strategies.kind import Kind
from strategies.local import Local
from strategies.md_gan import MdGAN
from strategies.one_shot import OneShot
from strategies.pooled import Pooled
from strategies.pooled_gan import PooledGAN
from strategies.strategy import Strategy
from strategies.survey import SURVEY

_BUILTIN: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Local(),
        OneShot(),
        Pooled(),
        FedAvgGAN(),
        Cyclic(),
        PooledGAN(),
        DmGAN(),
        MdGAN(),
        FedAvgClassifier(),
    )
}
# Asked of every study, whatever its strategies: the survey and the drawing of images for all arms together, ...
SHARED_KINDS = (SURVEY, SYNTHESISE)
# ... and the cells of each arm.
CELL_KINDS = (LEARN, TEST)


def kinds_of(strategies: Iterable[Strategy]) -> dict[str, Kind]:
    """The kinds of jobs of some strategies together, in the order of a study.

    Raises:
        ValueError: two of them have the same name.
    """
    kinds = [SURVEY, *CELL_KINDS, *(kind for strategy in strategies for kind in strategy.kinds), SYNTHESISE]
    kinds.sort(key=lambda kind: ("survey", "share", "learn", "test").index(kind.phase))
    by_name = {kind.name: kind for kind in kinds}
    for kind in kinds:
        if by_name[kind.name] is not kind:
            raise ValueError(f"has a kind of job {kind.name!r}, which is the name of another one; rename it")
    return by_name


def _strategy(name: str, found: Any) -> Strategy:
    """The check of a plug-in's strategy, whose kinds of jobs must have names of their own."""
    strategy = subclass_of(Strategy, named=lambda one: getattr(one, "name", None))(name, found)()
    kinds_of([*_BUILTIN.values(), *STRATEGIES.loaded.values(), strategy])
    return strategy


STRATEGIES: Table[Strategy] = Table("strategies", _BUILTIN, _strategy)


class _Kinds(Mapping[str, Kind]):
    """Kinds of the project's own strategies, and of those plug-ins' that have been asked for."""

    def __init__(self) -> None:
        self._of, self._kinds = tuple[Strategy, ...](), kinds_of(_BUILTIN.values())

    def _now(self) -> dict[str, Kind]:
        loaded = tuple(STRATEGIES.loaded.values())
        if self._of != loaded:
            self._kinds, self._of = kinds_of([*_BUILTIN.values(), *loaded]), loaded
        return self._kinds

    def __getitem__(self, name: str) -> Kind:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


# Every kind of job, in the order of a study.
KINDS: Mapping[str, Kind] = _Kinds()

__all__ = ["CELL_KINDS", "KINDS", "SHARED_KINDS", "STRATEGIES", "Kind", "Strategy", "kinds_of"]
