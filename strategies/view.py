"""What a strategy sees of a study: members, seeds, data, models, compute. Never the scenario itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from data_partitions import PatchTask
from models import ClassifierSpec, ClassifierTraining, GeneratorSpec
from strategies.bodies import CellName, Compute
from strategies.keys import BaseArm, Use


@dataclass(frozen=True)
class Cell:
    """One classifier to be trained: the smallest piece of the study.

    Attributes:
        classifier: its name.
        fraction, images: size of the receiver's training set; one of them is None.
    """

    arm: str
    strategy: str
    receiver: str
    task: str
    classifier: str
    fraction: float | None
    images: int | None
    repeat: int

    @property
    def label(self) -> str:
        size = f"{self.images} images" if self.images else f"{self.fraction:.0%}"
        return f"{self.arm} · {self.classifier} · {size} · repeat {self.repeat}"

    @property
    def name(self) -> CellName:
        """As it travels."""
        return CellName(
            arm=self.arm, strategy=self.strategy, task=self.task, classifier=self.classifier, real_fraction=self.fraction,
            real_images=self.images, repeat=self.repeat, receiver=self.receiver,
        )  # fmt: skip


class Facts(Protocol):
    """What the keys of an arm are checked against. Field names are those of a scenario."""

    @property
    def centres(self) -> Mapping[str, Any]: ...
    @property
    def generators(self) -> Mapping[str, Any]: ...
    @property
    def study(self) -> Any: ...
    @property
    def all_tasks(self) -> Sequence[PatchTask]: ...
    @property
    def providers(self) -> Sequence[str]: ...
    @property
    def receivers(self) -> Sequence[str]: ...

    def members(self, arm: Any, receiver: str | None = None) -> tuple[str, ...]:
        """The centres that train together in an arm (all providers where it names none), the receiver first if it takes part."""


class View(Protocol):
    """What exchanges are planned from.

    Attributes:
        seed: of the study.
        step_s: simulated seconds of one training step at speed 1.
        deployed: whether the centres are real nodes.
        tasks, generators: names, in order.
        files: whether the files that the scenario names are at hand.
        training: of classifiers, as the study sets it.
        metrics: names of those of plug-ins that are measured, too.
    """

    @property
    def seed(self) -> int: ...
    @property
    def step_s(self) -> float: ...
    @property
    def deployed(self) -> bool: ...
    @property
    def tasks(self) -> Sequence[str]: ...
    @property
    def receivers(self) -> Sequence[str]: ...
    @property
    def files(self) -> bool: ...
    @property
    def training(self) -> ClassifierTraining: ...
    @property
    def metrics(self) -> Sequence[str]: ...

    def members(self, arm: Any, receiver: str | None = None) -> tuple[str, ...]:
        """As of `Facts`."""

    @property
    def generators(self) -> Sequence[str]: ...

    def trained_at(self, generator: str) -> str | None:
        """The centre that trains a generator; None for a package."""

    def tasks_of(self, generator: str) -> Sequence[str]:
        """Tasks that a generator (or an arm that trains one) serves."""

    def use(self, arm: BaseArm) -> Use:
        """How an arm's receivers use what they are given."""

    def shared_labels(self, arm: BaseArm, task: str) -> tuple[int, ...]:
        """Labels of the classes that an arm shares."""

    def made_labels(self, generator: str, task: str) -> tuple[int, ...]:
        """Labels of the classes that a generator (or the model that an arm trains) makes; all where its file is not at hand."""

    def data(self, centre: str, task: str) -> dict[str, Any]:
        """Keys of `strategies.bodies.OfTask`."""

    def task(self, name: str) -> PatchTask:
        """What is to be classified."""

    def compute(self, centre: str, model: str = "") -> Compute:
        """Device, threads and precision of a model at a centre.

        Args:
            model: see `generator_key` and `classifier_key`.
        """

    def generator_spec(self, name: str, task: str) -> GeneratorSpec | None:
        """Of a generator, or of an arm that trains one; None for a package whose file is not at hand."""

    def classifier_spec(self, name: str, task: str) -> ClassifierSpec:
        """Of a classifier of the study."""

    def test_centres(self, cell: Cell) -> Sequence[str]:
        """Centres beside the receiver where a cell is tested."""


def generator_key(name: str, task: str) -> str:
    """Under what the survey answers in which precision a generator is trained."""
    return f"generator/{name}/{task}"


def classifier_key(name: str, task: str) -> str:
    """The same of a classifier."""
    return f"classifier/{name}/{task}"
