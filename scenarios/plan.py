"""From a scenario to units of work: what each phase asks of whom. Pure: nothing is sent, nothing is computed.

Longer than most files, because it is one class: all that strategies see of a study.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from basics.seeds import derive_seed
from data_partitions import PatchTask
from federation.wire.availability import Availability
from models import ClassifierSpec, ClassifierTraining, GeneratorPackage, GeneratorSpec
from scenarios.scenario import Scenario
from scenarios.specs import classifier_spec_of, generator_spec_of, planned_labels, read_package
from strategies import STRATEGIES
from strategies.ask import Ask, anything
from strategies.bodies import Compute, Pool
from strategies.cell_plan import test_asks
from strategies.delivery import Delivery, PoolKey, shared_out, synthesis_asks
from strategies.keys import BaseArm, Use
from strategies.planned import Generated, Learned, Planned, Shared
from strategies.survey import SURVEY, Batch, Needs, TaskSurvey
from strategies.view import Cell, classifier_key, generator_key

# Seed of which patients are drawn into splits and subsets; the same for all arms, so that arms are compared in pairs.
_SPLIT = "split"


def _seen(package: GeneratorPackage) -> tuple[str, ...] | None:
    """Classes that a package says that it has learned; None where it does not say."""
    learned = package.card.get("learned")
    return tuple(map(str, learned)) if isinstance(learned, list) else None


class Plan:
    """What a scenario asks for. To strategies it is a `strategies.view.View`.

    Args:
        scenario: the study.
        compute: by centre, what the survey found: {"device", "threads", "precision": {model name: "fp32" | "bf16"}};
            empty before the survey (then settings are shown as written).
        files: False where the files that the scenario names (packages, pretrained weights) are not at hand, as at a centre
            that looks at what it is asked: what follows from their content is then empty.
        deployed: whether the centres are real nodes.
    """

    def __init__(
        self, scenario: Scenario, compute: Mapping[str, Mapping[str, Any]] | None = None, *, files: bool = True,
        deployed: bool = False,
    ):  # fmt: skip
        self.scenario, self.files, self.deployed = scenario, files, deployed
        self._compute = compute or {}
        self._data: dict[str, dict[str, Any]] = {}
        self._packages = {
            name: read_package(name, g.package)
            for name, g in scenario.generators.items() if g.package is not None and files
        }  # fmt: skip

    # -- what strategies see -------------------------------------------------------------------------------------

    @property
    def seed(self) -> int:
        return self.scenario.seed

    @property
    def step_s(self) -> float:
        return self.scenario.clock.step_s

    @property
    def tasks(self) -> list[str]:
        return [task.name for task in self.scenario.all_tasks]

    @property
    def generators(self) -> list[str]:
        return list(self.scenario.generators)

    @property
    def receivers(self) -> list[str]:
        return self.scenario.receivers

    @property
    def training(self) -> ClassifierTraining:
        return self.scenario.study.training

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.scenario.study.metrics or ()

    def members(self, arm: Any, receiver: str | None = None) -> tuple[str, ...]:
        return self.scenario.members(arm, receiver)

    def trained_at(self, generator: str) -> str | None:
        return self.scenario.generators[generator].centre

    def tasks_of(self, generator: str) -> list[str]:
        wanted = self.scenario.generators[generator].tasks if generator in self.scenario.generators else None
        return [name for name in self.tasks if wanted is None or name in wanted]

    def use(self, arm: BaseArm) -> Use:
        return arm.settings(self.scenario.study)

    def shared_labels(self, arm: BaseArm, task: str) -> tuple[int, ...]:
        return self.use(arm).labels(self.task(task).classes)

    def made_labels(self, generator: str, task: str) -> tuple[int, ...]:
        return planned_labels(self.scenario, generator, self.task(task))

    def task(self, name: str) -> PatchTask:
        return next(task for task in self.scenario.all_tasks if task.name == name)

    def data(self, centre: str, task: str) -> dict[str, Any]:
        return self._own_data(centre) | {"task": self.task(task)}

    def _own_data(self, centre: str) -> dict[str, Any]:
        if centre not in self._data:  # asked for by every cell
            self._data[centre] = self._read_data(centre)
        return dict(self._data[centre])

    def _read_data(self, centre: str) -> dict[str, Any]:
        s = self.scenario
        return {
            "data": s.centres[centre].data.model_dump(mode="json"),
            "split": s.split.model_copy(update={"test_only": set(s.centres[centre].roles) == {"test"}}),
            "data_seed": derive_seed(s.seed, _SPLIT, centre),
        }

    def compute(self, centre: str, model: str = "") -> Compute:
        found, setting = self._compute.get(centre, {}), self.scenario.compute
        return Compute(
            device=found.get("device", setting.device), threads=setting.threads_per_job,
            precision=found.get("precision", {}).get(model, setting.precision),
        )  # fmt: skip

    def generator_spec(self, name: str, task: str) -> GeneratorSpec | None:
        if name in self._packages:
            return self._packages[name].spec
        source = self.scenario.generators.get(name) or self.scenario.arms[name]
        if getattr(source, "package", None) is not None:
            return None  # its file is not at hand
        return generator_spec_of(source, self.task(task))

    def classifier_spec(self, name: str, task: str) -> ClassifierSpec:
        choice = next(choice for choice in self.scenario.study.classifiers if choice.model == name)
        return classifier_spec_of(choice, self.task(task))

    def test_centres(self, cell: Cell) -> list[str]:
        return [centre for centre in self.scenario.study.test_on if centre != cell.receiver]

    # -- survey --------------------------------------------------------------------------------------------------

    @cached_property
    def _trained_at(self) -> dict[str, list[str]]:
        """Generators by the centre that trains them."""
        trained: dict[str, list[str]] = {}
        for name, generator in self.scenario.generators.items():
            if generator.centre is not None:
                trained.setdefault(generator.centre, []).append(name)
        return trained

    @cached_property
    def _members(self) -> dict[str, frozenset[str]]:
        """By arm, the centres that train or send patches in it."""
        arms = self.scenario.arms.items()
        return {name: frozenset(STRATEGIES[arm.strategy].members(self, arm)) for name, arm in arms}

    def survey_ask(self, centre: str) -> Ask:
        """Survey of one centre: its tasks with what they need, and the models whose precision is to be probed."""
        s = self.scenario
        receives = "receiver" in s.centres[centre].roles
        tasks: list[TaskSurvey] = []
        models: dict[str, dict[str, Any]] = {}
        part = {name: s.arms[name] for name, members in self._members.items() if centre in members}
        together = [name for name, arm in part.items() if arm.trains_generator]
        learns = receives or any(STRATEGIES[arm.strategy].trains_classifiers(arm) for arm in part.values())
        for task in s.all_tasks:
            trained = [name for name in self._trained_at.get(centre, ()) if task.name in self.tasks_of(name)]
            needed = learns or bool(trained) or bool(part)
            needs = Needs(
                positives=s.study.minimum_positives if needed else 0,
                negatives=1 if needed else 0,
                batches=tuple(self._batch(name, task.name) for name in [*trained, *together]),
                images=max(s.study.real_images) if s.study.real_images and receives else 0,
                validation=receives,
            )
            tasks.append(TaskSurvey(task=task, needs=needs))
            probed = [*trained, *together]
            if receives:
                given = (STRATEGIES[arm.strategy].generators(name, arm) for name, arm in s.arms.items())
                probed += [name for names in given for name in names if task.name in self.tasks_of(name)]
            for name in probed:
                spec = self.generator_spec(name, task.name)
                models[generator_key(name, task.name)] = {
                    "generator": {} if spec is None else spec.model_dump(mode="json")
                }
            for choice in s.study.classifiers if learns else ():
                spec_of_choice = self.classifier_spec(choice.model, task.name)
                models[classifier_key(choice.model, task.name)] = {"classifier": spec_of_choice.model_dump(mode="json")}
        fixed = self._own_data(centre) | {"tasks": tuple(tasks), "compute": self.compute(centre)}
        if any(generator.package is not None for generator in s.generators.values()):
            # What a package's model is follows from its file, which a centre does not have.
            return Ask(SURVEY, "", centre, None, fixed, {"models": anything}, example={"models": models})
        return Ask(SURVEY, "", centre, None, fixed | {"models": models})

    def _batch(self, generator: str, task: str) -> Batch:
        spec = self.generator_spec(generator, task)
        assert spec is not None, "what a centre trains has a specification"
        return Batch(batch_size=spec.training.largest_batch, labels=spec.labels, conditional=spec.conditional)

    # -- share ---------------------------------------------------------------------------------------------------

    @cached_property
    def exchanges(self) -> list[Planned[Shared]]:
        """Every exchange of the share phase, by strategy in the order of the arms."""
        by_strategy: dict[str, dict[str, Any]] = {}
        for name, arm in self.scenario.arms.items():
            by_strategy.setdefault(arm.strategy, {})[name] = arm
        return [
            planned for strategy, arms in by_strategy.items() for planned in STRATEGIES[strategy].exchanges(self, arms)
        ]

    def packages(self) -> dict[tuple[str, str], Generated]:
        """Generators at hand that some arm uses, by (name, task)."""
        arms = self.scenario.arms.items()
        used = {generator for name, arm in arms for generator in STRATEGIES[arm.strategy].generators(name, arm)}
        return {
            (name, task): Generated(package.digest, package.spec, package.weights, card=package.card, seen=_seen(package))
            for name, package in self._packages.items() if name in used for task in self.tasks_of(name)
        }  # fmt: skip

    @cached_property
    def deliveries(self) -> dict[tuple[str, str, str], Delivery]:
        """What the arms that share generators bring to each receiver, by (arm, receiver, task)."""
        deliveries = {}
        for name, arm, receiver, task in self.arm_places:
            strategy, use = STRATEGIES[arm.strategy], self.use(arm)
            generators = strategy.foreign_generators(self, name, arm, receiver, task)
            if not generators:
                continue
            made = {generator: self.made_labels(generator, task) for generator in generators}
            counts = shared_out(
                use.images, self.shared_labels(arm, task), made, whole=strategy.chooses(arm) is not None
            )
            deliveries[name, receiver, task] = Delivery(name, receiver, task, tuple(counts), tuple(counts.values()))
        return deliveries

    @cached_property
    def synthesis(self) -> dict[PoolKey, Ask]:
        """The pools of synthetic images that the receivers draw."""
        return synthesis_asks(self, list(self.deliveries.values()))

    def availability(self, centres: Iterable[str], *, faults: bool = True) -> dict[str, Availability]:
        """How simulated centres behave; without faults only their speeds."""
        found = {centre: self.scenario.centres[centre].availability.build() for centre in centres}
        return found if faults else {centre: Availability(speed=own.speed) for centre, own in found.items()}

    # -- learn and test ------------------------------------------------------------------------------------------

    def cells(self) -> list[Cell]:
        """All cells, ordered so that a first comparison of all arms is there early."""
        s = self.scenario
        return [
            Cell(name, arm.strategy, receiver, task, classifier.model, fraction, images, repeat)
            for repeat in range(s.repeats)
            for fraction, images in s.study.sizes
            for classifier in s.study.classifiers
            for name, arm, receiver, task in self.arm_places
        ]

    @cached_property
    def arm_places(self) -> list[tuple[str, Any, str, str]]:
        """(arm name, arm, receiver, task) wherever an arm can run; an arm that would bring nothing foreign cannot."""
        return [
            (name, arm, receiver, task)
            for task in self.tasks
            for name, arm in self.scenario.arms.items()
            for receiver in arm.receivers or self.scenario.receivers
            if STRATEGIES[arm.strategy].runs_at(self, name, arm, receiver, task)
        ]

    def learning(self, cell: Cell, pools: Sequence[Pool] | None = None) -> Planned[Learned]:
        """How a cell is learned.

        Args:
            pools: foreign images that the receiver holds; those that are planned when left out.
        """
        arm, strategy = self.scenario.arms[cell.arm], STRATEGIES[cell.strategy]
        if pools is None:
            delivery = self.deliveries.get((cell.arm, cell.receiver, cell.task))
            pools = delivery.pools() if delivery is not None else []
            pools = [*pools, *strategy.pools(self, cell.arm, arm, cell.receiver, cell.task)]
        return strategy.cell(self, arm, cell, pools)

    def tests(self, cell: Cell) -> list[Ask]:
        """What a cell asks of the other centres that test it."""
        return test_asks(self, self.scenario.arms[cell.arm], cell)

    # -- all of it -----------------------------------------------------------------------------------------------

    def asks(self) -> Iterator[Ask]:
        """Every job that the study asks of a centre, phase by phase; the same job may come more than once."""
        for centre in self.scenario.centres:
            yield self.survey_ask(centre)
        yield from self.share_asks()
        yield from self.cell_asks(self.cells())

    def share_asks(self) -> Iterator[Ask]:
        """Those of the share phase."""
        for planned in self.exchanges:
            for ask in planned.asks:
                assert ask.kind.phase == "share", f"{ask.kind.name} is asked for in another phase than it declares"
                yield ask
        yield from self.synthesis.values()

    def cell_asks(self, cells: Iterable[Cell]) -> Iterator[Ask]:
        """Those of the learn and test phases."""
        for cell in cells:
            for ask in (*self.learning(cell).asks, *self.tests(cell)):
                assert ask.kind.phase in ("learn", "test"), (
                    f"{ask.kind.name} is asked for in another phase than it declares"
                )
                yield ask
