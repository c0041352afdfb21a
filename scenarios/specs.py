"""From sections of a scenario to what models are built from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_partitions import PatchTask
from models import ClassifierSpec, GenerativeTraining, GeneratorPackage, GeneratorSpec
from scenarios.sections import ClassifierChoice
from strategies.generative import made_labels
from strategies.keys import labels_of


def generator_spec_of(source: Any, task: PatchTask) -> GeneratorSpec:
    """What a generator of a scenario (or one that an arm trains) is built from, for one task.

    Raises:
        ValueError: it cannot be made for this task.
    """
    return GeneratorSpec(
        model=str(source.model),
        hyper_parameters=source.hyper_parameters,
        training=GenerativeTraining.model_validate(source.training),
        conditional=source.conditional,
        classes=task.classes,
        made=tuple(task.classes[label] for label in made_labels(source, task.classes)),
        image_size=task.image_size,
        channels=task.channels,
        storage=task.storage,
    )


def planned_labels(scenario: Any, generator: str, task: PatchTask) -> tuple[int, ...]:
    """Labels of the classes that a generator, or the model that an arm trains, is expected to make.

    Of a package, whose file not everybody has, those that the scenario says, or all.
    """
    source = scenario.generators.get(generator) or scenario.arms[generator]
    if getattr(source, "package", None) is not None:
        return tuple(range(len(task.classes))) if source.makes is None else labels_of(source.makes, task.classes)
    return made_labels(source, task.classes)


def classifier_spec_of(choice: ClassifierChoice, task: PatchTask) -> ClassifierSpec:
    """What a classifier of a scenario is built from, for one task."""
    return ClassifierSpec(
        model=choice.model,
        image_size=task.image_size,
        channels=task.channels,
        num_classes=len(task.classes),
        input_size=choice.image_size,
        pretrained=Path(choice.pretrained) if choice.pretrained else None,
        pretrained_sha256=choice.pretrained_sha256,
    )


def read_package(name: str, folder: str | None) -> GeneratorPackage:
    """A generator package named in a scenario.

    Raises:
        PackageError: it is missing or altered.
    """
    return GeneratorPackage.read(Path(str(folder)))
