"""What kinds of jobs declare for the minimums of a hospital: whose images they use, and how they train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from data_partitions import PatchDataset
from models import ClassifierTraining, GeneratorSpec
from strategies.bodies import OfTask
from strategies.kind import Kind, Terms, Uses


def used_by(kind: Kind) -> tuple[Uses, ...]:
    """What a kind declares; see `Kind.uses` for one that tells of patients and declares nothing."""
    tells = any(field.risk in ("model", "aggregate") for field in kind.fields())
    if kind.pixels:
        return ()  # no deployed node does such a job
    if kind.uses or not tells or not issubclass(kind.body, OfTask):
        return kind.uses
    return (Uses("training", lambda patches, body: [patches.select(split="train")]),)


def patients(groups: Iterable[PatchDataset]) -> int:
    """Patients of the smallest group; 0 where there is none. Several crops, lesions and images of a patient count once."""
    return min((int(group.table["patient"].nunique()) for group in groups), default=0)


def generator_training(patches: PatchDataset, body: Any) -> list[PatchDataset]:
    """The training patches of the classes that a generative model makes."""
    return [patches.select(split="train", labels=body.generator.labels)]


def classifier_training(patches: PatchDataset, body: Any) -> list[PatchDataset]:
    """The training patches that take part in a classifier."""
    return [patches.select(split="train").draw_fraction(body.size.fraction, body.size.images, body.subset_seed)]


def each_class(patches: PatchDataset, split: str) -> Iterator[PatchDataset]:
    """The patches of a split, class by class; of a class that is not there nothing is told."""
    chosen = patches.select(split=split)
    for label in range(len(patches.classes)):
        if len(of_class := chosen.select(labels=(label,))):
            yield of_class


def of_generator(spec: GeneratorSpec, steps: int) -> Terms:
    """How a generative model is trained; settings of a model that bear other names are not compared."""
    training, hyper = spec.training, spec.hyper_parameters
    batches = [stage.batch_size for stage in training.growing] or [training.batch_size]
    settings: dict[str, tuple[float, ...]] = {"learning_rate": (training.learning_rate,), "betas": training.betas}
    for name, keys in _HYPER_PARAMETERS.items():
        if values := _numbers(hyper, keys):
            settings[name] = values
    return Terms(steps, min(batches), settings)


# Keys of models by the minimum that they are compared with. Widths that are words are the project's own.
_HYPER_PARAMETERS = {"smoothing": ("smoothing",), "width": ("width", "widths")}


def _numbers(hyper: Mapping[str, Any], keys: Iterable[str]) -> tuple[float, ...]:
    found: list[float] = []
    for key in keys:
        value = hyper.get(key)
        values = value if isinstance(value, list | tuple) else [value]
        found += [number for number in values if isinstance(number, int | float) and not isinstance(number, bool)]
    return tuple(found)


def of_classifier(training: ClassifierTraining, steps: int) -> Terms:
    """How a classifier is trained."""
    return Terms(steps, training.batch_size, {"learning_rate": (training.learning_rate,)})
