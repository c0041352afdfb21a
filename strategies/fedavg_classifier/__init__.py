"""A classifier that receiver and providers train together: keys and plan; see `server` for the algorithm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field, model_validator

from basics.seeds import derive_seed
from federation.wire.transport import Transport
from strategies.aggregation import reach_after
from strategies.ask import Ask, Check, anything
from strategies.bodies import Pool, Size
from strategies.cell_plan import cell_fixed, subset_seed
from strategies.fedavg_classifier.local import ADOPT, SUM_KINDS, TRAIN_ROUND, TRAIN_SUMMED_ROUND, VALIDATE
from strategies.fedavg_classifier.server import ClassifierFederation, ClassifierTrainedTogether
from strategies.fedavg_gan import aggregation_problems
from strategies.generative import quorum_problems
from strategies.keys import Averaged, BaseArm
from strategies.members import STEP_AT_MOST, Member, round_ask, round_settings
from strategies.planned import Learned, Planned
from strategies.strategy import Strategy
from strategies.sums import SUMMED_FREE, planned_sums
from strategies.view import Cell, Facts, View, classifier_key


class FedAvgClassifierArm(Averaged, BaseArm):
    """Keys of an arm."""

    strategy: Literal["fedavg_classifier"]
    centres: tuple[str, ...] | None = Field(
        None, min_length=1, description="who trains with each receiver; all providers when left out"
    )
    optimizer: Literal["keep", "reset"] = Field("reset", description="moments of the centres' optimizers over rounds")
    fine_tune: int = Field(0, ge=0, description="steps on the receiver's own patches after the last round")
    transport: Transport = Field("fp32", description="how weights travel")

    @model_validator(mode="after")
    def _no_images(self) -> FedAvgClassifierArm:
        for key in ("synthetic", "classes", "use", "synthetic_share", "schedule"):
            if getattr(self, key) is not None:
                raise ValueError(
                    f"{key} has no meaning here: no image is added, and rounds x local_steps is the schedule; remove it"
                )
        return self


class FedAvgClassifier(Strategy):
    """Each cell is one federation; no image is made."""

    name, title, keys = "fedavg_classifier", "a classifier averaged in rounds", FedAvgClassifierArm
    kinds = (TRAIN_ROUND, TRAIN_SUMMED_ROUND, *SUM_KINDS.all, VALIDATE, ADOPT)

    def problems(self, facts: Facts, name: str, arm: FedAvgClassifierArm) -> Iterator[str]:
        yield from super().problems(facts, name, arm)
        # With the receiver where they are fewest.
        receivers = arm.receivers or facts.receivers
        fewest = min((len(facts.members(arm, receiver)) for receiver in receivers), default=0)
        yield from quorum_problems(name, arm, fewest)
        yield from aggregation_problems(name, arm, fewest)

    def members(self, view: View | Facts, arm: FedAvgClassifierArm) -> tuple[str, ...]:
        return view.members(arm)

    def trains_classifiers(self, arm: FedAvgClassifierArm) -> bool:
        return True

    def runs_at(self, view: View, name: str, arm: FedAvgClassifierArm, receiver: str, task: str) -> bool:
        return len(view.members(arm, receiver)) >= 2

    def needs_pools(self) -> bool:
        return False

    def cell(self, view: View, arm: FedAvgClassifierArm, cell: Cell, pools: Sequence[Pool]) -> Planned[Learned]:
        members, settings = view.members(arm, cell.receiver), round_settings(arm, view.step_s)
        own, purpose = cell_fixed(view, arm, cell), _purpose(cell)
        size, draw = Size(fraction=cell.fraction, images=cell.images), subset_seed(view, cell)
        sums = None
        if arm.summed(len(members)):
            sums = planned_sums(SUM_KINDS, self.name, purpose, members, settings.rounds, view.deployed)
        kind = TRAIN_ROUND if sums is None else TRAIN_SUMMED_ROUND
        more, free_sum = ({}, {}) if sums is None else (sums.fixed, SUMMED_FREE)
        asked = []
        step = STEP_AT_MOST * own["training"].learning_rate * settings.local_steps
        reach = reach_after(arm.aggregation, arm.aggregation_options, step)
        for centre in members:
            receives = centre == cell.receiver
            fixed = view.data(centre, cell.task) | {
                "size": size if receives else Size(fraction=None, images=None), "subset_seed": draw if receives else 0,
                "classifier": own["classifier"], "training": own["training"], "optimizer": arm.optimizer, "proximal_mu": arm.proximal_mu,
                "of_steps": settings.rounds * settings.local_steps,
                "seed": derive_seed(view.seed, f"federation/{purpose}", centre), "build_seed": own["seed"],
                "compute": view.compute(centre, classifier_key(cell.classifier, cell.task)),
            }  # fmt: skip
            asked.append(
                Member(round_ask(kind, self.name, centre, cell.task, settings, fixed | more, free_sum, reach=reach))
            )
        data = view.data(cell.receiver, cell.task)
        common = data | {
            "size": size, "subset_seed": draw, "classifier": own["classifier"], "training": own["training"], "compute": own["compute"],
        }  # fmt: skip
        adoption = common | {
            "cell": own["cell"], "metrics": own["metrics"], "seed": own["seed"], "fine_tune": arm.fine_tune,
            "send_classifier": bool(view.test_centres(cell)),
        }  # fmt: skip
        validation = common | {"build_seed": own["seed"], "transport": settings.transport}
        of_round: dict[str, Check] = {"federation": anything, "round": lambda body: 1 <= body.round <= settings.rounds}
        free = dict.fromkeys(("history", "best", "federation"), anything)
        federation = ClassifierFederation(
            arm=cell.arm, task=cell.task, label=cell.label, spec=own["classifier"],
            seed=own["seed"], members=asked, settings=settings,
            aggregation=arm.aggregation, options=arm.aggregation_options,
            validation=Ask(
                VALIDATE, self.name, cell.receiver, cell.task, validation, of_round, times=settings.rounds, reach=reach
            ),
            adoption=Ask(ADOPT, self.name, cell.receiver, cell.task, adoption, free), select=own["training"].select,
            sums=sums,
        )  # fmt: skip
        return Planned(
            self.name, federation.asks, lambda units, clock: ClassifierTrainedTogether(units, federation, clock),
            purpose=purpose, members=members,
        )  # fmt: skip


def _purpose(cell: Cell) -> str:
    return f"{cell.arm}/{cell.task}/{cell.classifier}/{cell.fraction or cell.images}/{cell.repeat}"
