"""What every strategy is: its keys in a scenario, its kinds of jobs, what it asks of each centre, and its exchanges.

A strategy is stateless. Of an arm it plans exchanges (`strategies.planned.Planned`), each with the jobs that it asks for; the
server begins them and lets them run side by side over the same centres, until the receivers hold something to learn from.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from basics.words import listed
from models import GeneratorSpec
from strategies.bodies import Pool
from strategies.cell_plan import planned_cell
from strategies.choice import Choice
from strategies.kind import Kind
from strategies.planned import Learned, Planned, Shared
from strategies.view import Cell, Facts, View


class Strategy(ABC):
    """One way to share.

    Attributes:
        name: as `strategy:` has it in the YAML.
        title: in the words of reports and pages.
        keys: its arm: pydantic model, a subclass of `strategies.keys.BaseArm` with `strategy: Literal[name]`.
        kinds: of jobs that it asks for, beside those of every study (`strategies.SHARED_KINDS`, `CELL_KINDS`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    keys: ClassVar[type[Any]]
    kinds: ClassVar[tuple[Kind, ...]] = ()

    @property
    def pixels(self) -> bool:
        """Whether images of patients move: an upper bound, in a simulation only."""
        return any(kind.pixels for kind in self.kinds)

    @property
    def shares(self) -> bool:
        """Whether anything moves; False for a baseline."""
        return True

    @property
    def shares_images(self) -> bool:
        """Whether its receivers learn from foreign images, synthetic or real; False for those that share something else."""
        return self.shares and self.needs_pools()

    # -- keys --

    def problems(self, facts: Facts, name: str, arm: Any) -> Iterator[str]:
        """What is wrong with an arm in its scenario, each as "arms.NAME.key: what is wrong and what would be right"."""
        use = arm.settings(facts.study)
        for task in facts.all_tasks:
            try:
                shared = use.labels(task.classes)
            except ValueError as problem:
                yield f"arms.{name}.classes: {problem} (task {task.name!r})"
                continue
            if use.use == "only" and len(shared) < len(task.classes) and self.shares_images:
                lacking = ", ".join(name for label, name in enumerate(task.classes) if label not in shared)
                yield f"arms.{name}.use: only, but {lacking} is not shared, and the classifier would never see it; set classes: all"
        for centre in getattr(arm, "centres", None) or ():
            if centre not in facts.centres:
                yield f"arms.{name}.centres: no centre {centre!r}; centres: {listed(facts.centres)}"
            elif centre not in facts.providers:
                yield f"arms.{name}.centres: centre {centre!r} lacks the role provider; add it to its roles"

    def model_problem(self, spec: GeneratorSpec, arm: Any) -> str | None:
        """Why the arm cannot train such a model; asked where models have shapes only."""
        return None

    # -- who and what --

    def members(self, view: View | Facts, arm: Any) -> tuple[str, ...]:
        """Centres that train together or send patches; receivers, and centres of generators, not among them."""
        return ()

    def trains_classifiers(self, arm: Any) -> bool:
        """Whether members train classifiers, and not only the receiver."""
        return False

    def generators(self, name: str, arm: Any) -> tuple[str, ...]:
        """Names of the generators that an arm gives to receivers; one that the arm trains has the arm's name."""
        return ()

    def foreign_generators(self, view: View, name: str, arm: Any, receiver: str, task: str) -> tuple[str, ...]:
        """Those of another centre that serve the task. A receiver's own are not sharing."""
        return ()

    def pools(self, view: View, name: str, arm: Any, receiver: str, task: str) -> Sequence[Pool]:
        """Foreign images that a receiver will hold beside those of generators, as far as they are known before: without ids."""
        return ()

    def runs_at(self, view: View, name: str, arm: Any, receiver: str, task: str) -> bool:
        """Whether the arm would bring the receiver anything foreign."""
        foreign = self.foreign_generators(view, name, arm, receiver, task) or self.pools(
            view, name, arm, receiver, task
        )
        return bool(foreign)

    def learns_from(self, view: View, arm: Any) -> Sequence[str]:
        """Generators or centres, for people."""
        return self.members(view, arm)

    # -- the study --

    def exchanges(self, view: View, arms: Mapping[str, Any]) -> list[Planned[Shared]]:
        """Every exchange of the share phase.

        Args:
            arms: all of this strategy, by name.
        """
        return []

    def chooses(self, arm: Any) -> Choice | None:
        """How a receiver chooses among several generators; None: it uses all."""
        return None

    def oversample(self, arm: Any) -> int | None:
        """How many of the receiver's own positives are drawn again in place of foreign ones."""
        return None

    def cell(self, view: View, arm: Any, cell: Cell, pools: Sequence[Pool]) -> Planned[Learned]:
        """How a cell is learned; one job of the receiver unless a strategy does otherwise.

        Args:
            pools: foreign images at the receiver; of a planned cell their `unit` is empty.
        """
        return planned_cell(view, arm, cell, pools, choose=self.chooses(arm), oversample=self.oversample(arm))

    def needs_pools(self) -> bool:
        """Whether a cell cannot be learned where the share phase brought nothing."""
        return True
