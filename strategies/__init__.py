"""How knowledge moves between centres: each strategy in one file or folder, and what they have in common.

`STRATEGIES` names every strategy that a scenario may choose by its arm's `strategy`. A new one is a subclass of
`strategies.strategy.Strategy` in a file of its own, and a line here.
"""

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

STRATEGIES: dict[str, Strategy] = {
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


def _all_kinds() -> dict[str, Kind]:
    kinds = [SURVEY, *CELL_KINDS, *(kind for strategy in STRATEGIES.values() for kind in strategy.kinds), SYNTHESISE]
    kinds.sort(key=lambda kind: ("survey", "share", "learn", "test").index(kind.phase))
    by_name = {kind.name: kind for kind in kinds}
    assert all(by_name[kind.name] is kind for kind in kinds), "two kinds of jobs have the same name"
    return by_name


# Every kind of job, in the order of a study.
KINDS = _all_kinds()

__all__ = ["CELL_KINDS", "KINDS", "SHARED_KINDS", "STRATEGIES", "Kind", "Strategy"]
