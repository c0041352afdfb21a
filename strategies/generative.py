"""What strategies have in common that train one generative model over several centres; its generator has the arm's name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from basics.seeds import derive_seed
from models import GeneratorSpec
from strategies.keys import GenerativeArm
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
        if use.classes == "both" and not arm.conditional:
            yield f"arms.{name}.classes: both, but its model is not conditional and makes positives only; set conditional: true"
        if use.use == "only" and use.classes != "both":
            yield f"arms.{name}.use: only, but classes: lesion shares no negatives; set classes: both"
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
