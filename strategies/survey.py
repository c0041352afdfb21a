"""The survey: every centre makes its patches, checks them, and answers with a data card. No pixel leaves."""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, ValidationInfo, field_validator
from pydantic import Field as PydanticField

from data_partitions import DataError, PatchDataset, PatchTask
from data_partitions.small_counts import shown_count
from strategies.bodies import Body, Compute, OwnData
from strategies.centre_side import SurveySide, labels_in
from strategies.kind import Answer, Answered, Arrays, Count, Field, Kind, Words

# Real patches of each class on a contact sheet.
_SHOWN = 32
CARD = "counts of patients, images, views, scanners, kinds of lesions, rounded to 5; fewer than 5 of anything are suppressed"


class Batch(Body):
    """What a generative model needs of a centre's training patches.

    Attributes:
        labels: of the classes that it makes.
        conditional: whether it tells them apart, so that it needs two of them.
    """

    batch_size: int
    labels: tuple[int, ...]
    conditional: bool


class Needs(Body):
    """What a task needs of a centre's data.

    Attributes:
        positives, negatives, images: fewest training examples; 0: any number. Of more than two classes `positives` is the
            fewest of all together.
        validation: whether the validation split must hold two classes.
    """

    positives: int
    negatives: int
    batches: tuple[Batch, ...]
    images: int
    validation: bool


class TaskSurvey(Body):
    """One task of a survey."""

    task: PatchTask
    needs: Needs


class Survey(OwnData):
    """Arguments of a survey.

    Attributes:
        models: by name, {"generator": specification} or {"classifier": ...}: whose precision is to be chosen.
    """

    tasks: tuple[TaskSurvey, ...]
    models: dict[str, dict[str, Any]]
    compute: Compute


class PartitionRow(Answered):
    """Patients and images of one class in one split; counts as they may be shown."""

    model_config = ConfigDict(extra="forbid")

    split: Literal["train", "val", "test"]
    of_class: Words = PydanticField(alias="class")
    patients: Count | Words
    images: Count | Words
    digest: Words


class TaskAnswer(Answered):
    """What a survey finds of one task, as far as the server computes with it."""

    digest: Words
    classes: list[Words] = PydanticField(max_length=1000)
    partition: list[PartitionRow] = PydanticField(max_length=1000)
    notes: list[Words] = PydanticField(max_length=100)


class SurveyAnswer(Answered):
    """What a survey answers, as far as the server computes with it."""

    tasks: dict[str, TaskAnswer]
    platform: Words
    device: Words
    precision: dict[str, Literal["fp32", "bf16"]]

    @field_validator("tasks")
    @classmethod
    def _those_asked_for(cls, value: dict[str, TaskAnswer], asked: ValidationInfo) -> dict[str, TaskAnswer]:
        wanted = [entry.task.name for entry in getattr(asked.context, "tasks", ())]
        if wanted and set(value) != set(wanted):
            raise ValueError(f"has other tasks than {', '.join(wanted)}")
        return value


def survey(here: SurveySide, body: Survey, arrays: Arrays) -> Answer:
    """Data card, keyed digest and platform for each task; refuses data that no training could use.

    Raises:
        DataError: with a code that may travel.
    """
    device = here.device(body.compute.device)
    cards: dict[str, dict[str, Any]] = {}
    for entry in body.tasks:
        task, started = entry.task, time.perf_counter()
        patches = here.make_patches(body, task)
        _check(patches, task.name, entry.needs)
        cards[task.name] = {
            "card": patches.data_card(),
            "digest": patches.digest(here.digest_key()),
            "classes": [patches.classes[label] for label in labels_in(patches.select(split="train"))],
            "partition": patches.partition_rows(here.digest_key()),
            "notes": [*patches.report.get("notes", []), *_lacking(patches, task.name)],
            "left_out": {
                name: {why: shown_count(n) for why, n in patches.report[name].items()}
                for name in ("skipped", "excluded")
                if patches.report.get(name)
            },
            "seconds": time.perf_counter() - started,
        }
        _keep_pictures(here, patches, task.name)
    precision = {name: here.precision(spec, device, body.compute.precision) for name, spec in body.models.items()}
    return {"tasks": cards, "platform": here.platform(device), "device": device, "precision": precision}, {}


def _lacking(patches: PatchDataset, task: str) -> list[str]:
    """A note on the classes that this centre cannot teach."""
    there = labels_in(patches.select(split="train"))
    lacking = [name for label, name in enumerate(patches.classes) if label not in there]
    if not lacking or len(patches.classes) == 2:
        return []
    return [f"no training image of {', '.join(lacking)} (task {task}); models are trained without it here"]


def _check(patches: PatchDataset, task: str, needs: Needs) -> None:
    train = patches.select(split="train")
    boxes = train.table.drop_duplicates("box")["label"].value_counts()
    if len(patches.classes) == 2:
        positives, negatives = int(boxes.get(1, 0)), int(boxes.get(0, 0))
        if needs.positives and positives == 0:
            raise DataError("no_positives", f"no positive training example for task {task}", task=task)
        _at_least(positives, needs.positives, "too_few_positives", task)
        _at_least(negatives, needs.negatives, "too_few_negatives", task)
    elif needs.positives:
        if len(boxes) < 2:
            names = ", ".join(patches.classes[label] for label in boxes.index)
            raise DataError(
                "one_class", f"training examples of task {task} show {names or 'nothing'}", have=len(boxes), task=task
            )
        _at_least(int(boxes.sum()), needs.positives, "too_few_examples", task)
    _at_least(int(boxes.sum()), needs.images, "too_few_images", task)
    for batch in needs.batches:
        part = train.select(labels=batch.labels)
        if len(part) < batch.batch_size:
            text = f"{len(part)} patches, batch {batch.batch_size}"
            raise DataError("batch_too_large", text, batch_size=batch.batch_size)
        if batch.conditional and len(labels_in(part)) < 2:
            raise DataError(
                "one_class", f"a model that tells classes apart has one here, in task {task}", have=1, task=task
            )
    if needs.validation:
        labels = patches.select(split="val").labels
        if len(set(labels.tolist())) < 2:
            raise DataError(
                "no_validation",
                f"the {len(labels)} examples of the validation split of task {task} are of one class",
                task=task,
            )


def _at_least(have: int, need: int, code: str, task: str) -> None:
    if have < need:
        raise DataError(code, f"{have} of {need} wanted for task {task}", have=shown_count(have), need=need, task=task)


def _keep_pictures(here: SurveySide, patches: PatchDataset, task: str) -> None:
    train = patches.select(split="train")
    rows = [train.select(labels=(label,)) for label in reversed(range(len(train.classes)))]
    images = [
        part.stored(np.linspace(0, len(part) - 1, min(_SHOWN, len(part))).astype(int)) for part in rows if len(part)
    ]
    if images:
        here.keep_pictures(task, np.concatenate(images))


SURVEY = Kind(
    name="survey_data",
    title="survey of the data",
    phase="survey",
    body=Survey,
    work=survey,
    answer_model=SurveyAnswer,
    kept=False,  # it looks at the data as it is now
    reveals="How many there are of what, and words of this centre's tables.",
    steady=lambda body: {task: found["digest"] for task, found in body["tasks"].items()},
    answer=(
        Field("tasks.*.card", "counts", CARD, "counts"),
        Field("tasks.*.partition", "table", "patients and images by split and class, rounded to 5; fewer than 5 are suppressed", "counts"),
        Field("tasks.*.classes", "names", "classes of which there is a training image", "counts"),
        Field("tasks.*.digest", "keyed digest", "whether the data is the same as before; without this centre's key it cannot be tested "
              "for an image"),
        Field("tasks.*.notes", "sentences", "remarks on the data as a whole, such as copies in it", "counts"),
        Field("tasks.*.left_out", "counts", "how many images were left out, by reason, rounded to 5", "counts"),
        Field("tasks.*.seconds", "number", "how long it took"),
        Field("platform", "names", "versions, processor or GPU"),
        Field("device", "name", "cpu or GPU"),
        Field("precision", "names", "in which precision each model is fast here"),
    ),
)  # fmt: skip
