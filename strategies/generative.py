"""What strategies have in common that train one generative model over several centres; its generator has the arm's name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from basics.seeds import derive_seed
from models import GeneratorSpec
from strategies.keys import GenerativeArm, labels_of
from strategies.planned import Planned, Shared
from strategies.strategy import Strategy
from strategies.view import Facts, View, generator_key


class GenerativeStrategy(Strategy):
    """Members train one model; every receiver that is not its only member is given the generator."""

    def problems(self, facts: Facts, name: str, arm: Any) -> Iterator[str]:
        yield from super().problems(facts, name, arm)
        if not facts.members(arm):
            yield f"arms.{name}.centres: no centre has the role provider, so nobody trains; give one that role"
        use = arm.settings(facts.study)
        in_parts = facts.study.sizes != [(1.0, None)]
        own = [centre for centre in arm.receivers or facts.receivers if centre in facts.members(arm)]
        if in_parts and own:
            yield (
                f"arms.{name}.centres: {own[0]!r} trains with all its patches and also receives, while cells of real_fraction or "
                f"real_images may use only a part of them; leave it out of centres, or use all of its patches"
            )
        for task in facts.all_tasks:
            try:
                made, shared = made_labels(arm, task.classes), use.labels(task.classes)
            except ValueError:  # said where the model is built, or of all arms
                continue
            for label in sorted(set(shared) - set(made)):
                yield (
                    f"arms.{name}.classes: {task.classes[label]!r} is shared, but its model makes "
                    f"{', '.join(task.classes[i] for i in made)} only; set conditional: true, or list others in makes or classes"
                )
        yield from quorum_problems(name, arm, len(facts.members(arm)))

    def members(self, view: View | Facts, arm: Any) -> tuple[str, ...]:
        return view.members(arm)

    def generators(self, name: str, arm: Any) -> tuple[str, ...]:
        return (name,)

    def foreign_generators(self, view: View, name: str, arm: Any, receiver: str, task: str) -> tuple[str, ...]:
        return (name,) if any(centre != receiver for centre in view.members(arm)) else ()

    def exchanges(self, view: View, arms: Mapping[str, Any]) -> list[Planned[Shared]]:
        return [
            planned
            for name, arm in arms.items()
            for task in view.tasks
            for planned in self.trainings(view, name, arm, task, spec_of(view, name, task))
        ]

    def trainings(self, view: View, name: str, arm: Any, task: str, spec: GeneratorSpec) -> list[Planned[Shared]]:
        """The exchanges of one arm for one task."""
        raise NotImplementedError


def spec_of(view: View, name: str, task: str) -> GeneratorSpec:
    """Of the model that an arm trains."""
    spec = view.generator_spec(name, task)
    assert spec is not None, "an arm that trains a model has its specification"
    return spec


def made_labels(source: Any, classes: Sequence[str]) -> tuple[int, ...]:
    """Labels of the classes that a generator of a scenario, or one that an arm trains, makes.

    Args:
        source: with the keys `makes` and `conditional`.

    Raises:
        ValueError: it names a class that is not there, or needs to name one and does not.
    """
    if source.makes is not None:
        return labels_of(source.makes, classes)
    if source.conditional:
        return tuple(range(len(classes)))
    if len(classes) > 2:
        raise ValueError(
            f"the task has {len(classes)} classes and the model is not conditional; set conditional: true, or name one class in makes, "
            f"such as makes: [{classes[-1]}]"
        )
    return (1,)


def quorum_problems(name: str, arm: Any, members: int) -> Iterator[str]:
    """A quorum that the members can never make."""
    if getattr(arm, "quorum", None) is not None and arm.quorum > members:
        yield f"arms.{name}.quorum: {arm.quorum}, but the arm has {members} centres; lower quorum"


def build_seed(view: View, name: str, task: str) -> int:
    """Of the initial weights, the same for all members."""
    return derive_seed(view.seed, f"federation/{name}/{task}")


def member_fixed(
    view: View, name: str, arm: GenerativeArm, task: str, spec: GeneratorSpec, centre: str
) -> dict[str, Any]:
    """What every job of a member says: data, model, seeds, compute."""
    return view.data(centre, task) | {
        "generator": spec,
        "build_seed": build_seed(view, name, task),
        "seed": derive_seed(view.seed, f"federation/{name}/{task}", centre),
        "compute": view.compute(centre, generator_key(name, task)),
    }
