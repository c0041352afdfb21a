"""What a scenario names and cannot be used: models that do not fit their task, files that are missing or do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models import GeneratorSpec
from models.shapes_only import shapes_only
from scenarios.scenario import Scenario
from scenarios.specs import classifier_spec_of, generator_spec_of, read_package
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

    with shapes_only():
        for task in scenario.all_tasks:
            sources: dict[str, Any] = {
                f"generators.{name}": generator for name, generator in scenario.generators.items()
                if generator.package is None and (generator.tasks is None or task.name in generator.tasks)
            }  # fmt: skip
            sources |= {f"arms.{name}": arm for name, arm in scenario.arms.items() if arm.batch is not None}
            for key, source in sources.items():
                spec = generator_spec_of(source, task)
                problem = problem_of(spec)
                if problem is None and key.startswith("arms."):
                    problem = STRATEGIES[source.strategy].model_problem(spec, source)
                if problem is not None:
                    problems.append(f"{key}: {problem} (task {task.name!r})")
            for choice in scenario.study.classifiers:
                try:
                    classifier_spec_of(choice.model_copy(update={"pretrained": None}), task).build(0)
                except ValueError as problem:
                    problems.append(f"study.classifiers: {choice.model}: {problem} (task {task.name!r})")
    return list(dict.fromkeys(problems))


def file_problems(scenario: Scenario, data_here: bool = True) -> list[str]:
    """What is wrong with the files that a scenario names, each as "key: what is wrong and what would be right".

    Args:
        data_here: whether the centres' folders are to be on this machine; in a deployment they are in the hospitals.
    """
    problems = []
    shares_both = {
        generator
        for name, arm in scenario.arms.items()
        if arm.settings(scenario.study).classes == "both"
        for generator in STRATEGIES[arm.strategy].generators(name, arm)
    }
    for name, generator in scenario.generators.items():
        if generator.package is None:
            continue
        key = f"generators.{name}.package"
        try:
            spec = read_package(name, generator.package).spec
        except ValueError as problem:
            problems.append(f"{key}: {problem}; name a folder with card.json and generator.safetensors")
            continue
        if name in shares_both and not spec.conditional:
            problems.append(
                f"{key}: makes positives only, but an arm shares both classes of it; set classes: lesion there"
            )
        for task in scenario.all_tasks:
            wanted = generator.tasks is None or task.name in generator.tasks
            if wanted and (spec.image_size, spec.channels) != (task.image_size, task.channels):
                problems.append(
                    f"{key}: makes {spec.image_size} px x {spec.channels} images, but task {task.name!r} has "
                    f"{task.image_size} px x {task.channels}; name its tasks in generators.{name}.tasks, or change the task"
                )
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
