"""What a scenario names and cannot be used: models that do not fit their task, files that are missing or do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_partitions import PatchTask
from models import GeneratorSpec
from models.shapes_only import shapes_only
from scenarios.scenario import Scenario
from scenarios.specs import classifier_spec_of, generator_spec_of, planned_labels, read_package
from strategies import STRATEGIES


def model_problems(scenario: Scenario) -> list[str]:
    """Models that cannot make or take images of a task's size, each as "key: what is wrong"; built without memory."""
    problems = []
    found: dict[str, str | None] = {}  # by settings: generators of a thousand centres are often alike

    def problem_of(spec: GeneratorSpec) -> str | None:
        key = spec.model_dump_json()
        if key not in found:
            try:
                spec.build(0)
                found[key] = None
            except ValueError as problem:
                found[key] = str(problem)
        return found[key]

    def spec_of(source: Any, task: PatchTask) -> tuple[GeneratorSpec | None, str | None]:
        try:
            spec = generator_spec_of(source, task)
        except ValueError as problem:
            return None, plain_text(problem)
        return spec, problem_of(spec)

    with shapes_only():
        for task in scenario.all_tasks:
            sources: dict[str, Any] = {
                f"generators.{name}": generator for name, generator in scenario.generators.items()
                if generator.package is None and (generator.tasks is None or task.name in generator.tasks)
            }  # fmt: skip
            sources |= {f"arms.{name}": arm for name, arm in scenario.arms.items() if arm.trains_generator}
            for key, source in sources.items():
                spec, problem = spec_of(source, task)
                if problem is None and spec is not None and key.startswith("arms."):
                    problem = STRATEGIES[source.strategy].model_problem(spec, source)
                if problem is not None:
                    problems.append(f"{key}: {problem} (task {task.name!r})")
            for choice in scenario.study.classifiers:
                try:
                    classifier_spec_of(choice, task).plain.build(0)
                except ValueError as problem:
                    problems.append(f"study.classifiers: {choice.model}: {problem} (task {task.name!r})")
    return list(dict.fromkeys(problems))


def plain_text(problem: ValueError) -> str:
    """What an error says, without the frame that pydantic puts around it."""
    if isinstance(problem, ValidationError):
        return "; ".join(error["msg"].removeprefix("Value error, ") for error in problem.errors(include_url=False))
    return str(problem)


def file_problems(scenario: Scenario, data_here: bool = True) -> list[str]:
    """What is wrong with the files that a scenario names, each as "key: what is wrong and what would be right".

    Args:
        data_here: whether the centres' folders are to be on this machine; in a deployment they are in the hospitals.
    """
    problems = []
    for name, generator in scenario.generators.items():
        if generator.package is None:
            continue
        key = f"generators.{name}.package"
        try:
            spec = read_package(name, generator.package).spec
        except ValueError as problem:
            problems.append(f"{key}: {problem}; name a folder with card.json and generator.safetensors")
            continue
        for task in scenario.all_tasks:
            if generator.tasks is None or task.name in generator.tasks:
                found = list(package_problems(name, spec, task)) or list(_unmade(scenario, name, spec, task))
                problems += [f"{key}: {problem}" for problem in found]
    for choice in scenario.study.classifiers:
        for task in scenario.all_tasks if choice.pretrained else ():
            try:
                classifier_spec_of(choice, task).build(0)
            except ValueError as problem:
                problems.append(
                    f"study.classifiers: {choice.model}: {problem}; name another file in pretrained, or leave it out"
                )
    for name, centre in scenario.centres.items() if data_here else ():
        path = getattr(centre.data, "path", None)
        if path is not None and not Path(path).exists():
            dealt = scenario.partition is not None and name in scenario.partition.centres
            key = "partition.source.path" if dealt else f"centres.{name}.data.path"
            problems.append(f"{key}: no folder {path}; name the folder that holds the data")
    return list(dict.fromkeys(problems))


def package_problems(name: str, spec: GeneratorSpec, task: PatchTask) -> Iterator[str]:
    """Why the images of a package are not those of a task."""
    remedy = f"name its tasks in generators.{name}.tasks, or change the task"
    if (spec.shape, spec.storage) != (task.shape, task.storage):
        own, wanted = (
            f"{shape} images ({storage})" for shape, storage in ((spec.shape, spec.storage), (task.shape, task.storage))
        )
        yield f"makes {own}, but task {task.name!r} has {wanted}; {remedy}"
    if spec.classes != task.classes:
        yield (
            f"was trained with the classes {', '.join(spec.classes)}, but task {task.name!r} has {', '.join(task.classes)}: the names and "
            f"their order must be the same; {remedy}"
        )


def _unmade(scenario: Scenario, name: str, spec: GeneratorSpec, task: PatchTask) -> Iterator[str]:
    """Classes that an arm wants of a package, which does not make them."""
    expected = planned_labels(scenario, name, task)
    for arm_name, arm in scenario.arms.items():
        if name not in STRATEGIES[arm.strategy].generators(arm_name, arm):
            continue
        wanted = set(arm.settings(scenario.study).labels(task.classes)) & set(expected)
        lacking = [task.classes[label] for label in sorted(wanted - set(spec.labels))]
        if lacking:
            yield (
                f"makes {', '.join(spec.made)}, but arm {arm_name!r} shares {', '.join(lacking)} of it, too; set classes there, or "
                f"generators.{name}.makes: [{', '.join(spec.made)}]"
            )
