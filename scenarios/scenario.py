"""The schema of a scenario. Field names are the YAML keys; objects are frozen; unknown keys are refused.

`scenarios.reader` reads files and words errors; `scenarios.plan` turns a scenario into units of work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from basics.words import listed
from data_partitions import DealtSource, SplitRule
from scenarios.chosen import chosen_by
from scenarios.sections import LONGEST_NAME, NAME, Centre, Generator, Partition, SimulatedClock, Study, Task
from strategies import STRATEGIES
from strategies.keys import BaseArm, Section

if TYPE_CHECKING:  # for a checker of types, what the arms of all strategies have in common

    class Arm(BaseArm):
        strategy: str
else:
    Arm = chosen_by("strategy", STRATEGIES, lambda strategy: strategy.keys)


class Compute(Section):
    """Where and how fast. Threads are a setting, never the free cores: they change results in the last bit."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    workers: int = Field(2, ge=1, description="jobs at once")
    threads_per_job: int = Field(1, ge=1)
    job_timeout_s: float | None = Field(None, gt=0, description="after this a job counts as failed; none: wait")


class Scenario(Section):
    """A whole study."""

    name: str
    description: str = ""
    seed: int = Field(0, ge=0)
    repeats: int = Field(3, ge=1)
    centres: dict[str, Centre]
    partition: Partition | None = None
    task: Task | None = None
    tasks: tuple[Task, ...] = ()
    split: SplitRule = SplitRule()
    generators: dict[str, Generator] = {}
    arms: dict[str, Arm] = Field(min_length=1)
    study: Study = Study()
    compute: Compute = Compute()
    clock: SimulatedClock = SimulatedClock()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(
                f"must start with a letter and hold letters, digits, - and _ only ({LONGEST_NAME} at most): "
                "it names the run folder"
            )
        return value

    @field_validator("centres", "generators", "arms")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"name {name!r} must start with a letter and hold letters, digits, - and _ only "
                    f"({LONGEST_NAME} at most)"
                )
        return value

    @model_validator(mode="before")
    @classmethod
    def _dealt(cls, tree: Any) -> Any:
        """Give each centre of the partition its part of the archive as `data`."""
        raw = tree.get("partition") if isinstance(tree, dict) else None
        centres = tree.get("centres") if isinstance(tree, dict) else None
        if not isinstance(raw, dict) or not isinstance(centres, dict):
            return tree
        seed = tree.get("seed", 0)
        raw = {"seed": seed} | raw if isinstance(seed, int) else raw
        try:
            partition = Partition.model_validate(raw)
        except ValidationError:
            partition = None
        parts = {}
        for name, centre in centres.items():
            # What is wrong with a partition is said once, of the partition, not again of each of its centres.
            data: dict[str, Any] = {"source": "phantom", "patients": 1}
            if partition is not None and name in partition.centres:
                rule, archive = partition.rule.model_dump(mode="json"), partition.source.model_dump(mode="json")
                data = {"source": "dealt", "archive": archive, "partition": rule, "centre": name}
            elif partition is not None:
                continue
            if isinstance(centre, dict) and "data" not in centre:
                parts[name] = centre | {"data": data}
        return tree | {"partition": raw, "centres": centres | parts}

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        problems = list(_problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def all_tasks(self) -> tuple[Task, ...]:
        return self.tasks or ((self.task,) if self.task else ())

    @property
    def receivers(self) -> list[str]:
        return [name for name, centre in self.centres.items() if "receiver" in centre.roles]

    @property
    def providers(self) -> list[str]:
        return [name for name, centre in self.centres.items() if "provider" in centre.roles]

    def members(self, arm: Any, receiver: str | None = None) -> tuple[str, ...]:
        """The centres that train together in an arm, with the receiver first if it takes part as such."""
        centres = tuple(arm.centres or self.providers)
        return centres if receiver is None else (receiver, *(centre for centre in centres if centre != receiver))


def _problems(s: Scenario):  # -> Iterator[str], each "key: what is wrong and what would be right"
    centres, providers, receivers = listed(s.centres), set(s.providers), set(s.receivers)
    if bool(s.task) == bool(s.tasks):
        yield "task: give exactly one of `task` (one) and `tasks` (a list)"
    for name in s.partition.centres if s.partition else ():
        if name not in s.centres:
            yield f"partition.centres: no centre {name!r}; centres: {centres}"
        elif not isinstance(s.centres[name].data, DealtSource):
            yield f"centres.{name}.data: the partition deals to {name!r}, too; remove it here or there"
    names = [t.name for t in s.all_tasks]
    if len(set(names)) != len(names):
        yield "tasks: two tasks have the same name; give each a name of its own"
    if not receivers:
        yield f"centres: no centre has the role receiver; centres: {centres}"
    if not providers and not any(g.package for g in s.generators.values()):
        yield f"centres: no centre has the role provider and no generator is a package, so nothing can be shared; centres: {centres}"
        return  # what follows from it would only repeat it
    for name, generator in s.generators.items():
        if generator.centre is not None and generator.centre not in s.centres:
            yield f"generators.{name}.centre: no centre {generator.centre!r}; centres: {centres}"
        elif generator.centre is not None and generator.centre not in providers:
            yield f"generators.{name}.centre: centre {generator.centre!r} lacks the role provider; add it to its roles"
        for task in generator.tasks or ():
            if task not in names:
                yield f"generators.{name}.tasks: no task {task!r}; tasks: {', '.join(names)}"
    for name in s.study.test_on:
        if name not in s.centres:
            yield f"study.test_on: no centre {name!r}; centres: {centres}"
    for name, arm in s.arms.items():
        for receiver in arm.receivers or ():
            if receiver not in receivers:
                yield f"arms.{name}.receivers: {receiver!r} is not a receiver; receivers: {listed(s.receivers)}"
        yield from STRATEGIES[arm.strategy].problems(s, name, arm)
