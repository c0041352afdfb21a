"""How one archive becomes several centres: the rule in a scenario, and which patient it sends where.

    size         each centre its number of images (or share), classes and densities alike
    quantity     sizes drawn from Dirichlet(alpha)
    dirichlet    sizes as given, the class mix of each centre drawn from Dirichlet(alpha * overall mix)
    site, scanner, density    each centre the patients with its values: natural centres, and feature skew
    breast_size  patients sorted by the size of the breast and cut into consecutive parts (dm-GAN's ten subsets)

A patient is never in two centres. Where a patient's images differ in site, scanner or density, the most frequent value
decides; of equally frequent ones, the first by name. The class used here is malignant, lesion (no lesion known to be
malignant) or healthy; with `classes: diagnosis` it is the diagnosis, the most frequent of the patient's images. It does not
depend on the task, so that all tasks of a study have the same centres.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from basics.seeds import stream
from data_partitions.dealing.dealing import REST, Group, deal, in_order, label_skew, proportional, quantity_skew
from data_partitions.errors import DataError
from data_partitions.exams import Cohort, Exam
from data_partitions.small_counts import shown_count

BY_VALUE = ("site", "scanner", "density")


class PartitionRule(BaseModel):
    """Which centre gets which patients; the field names are the keys of the scenario's `partition`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["size", "quantity", "dirichlet", "site", "scanner", "density", "breast_size"] = "size"
    centres: dict[str, int | float | tuple[str, ...]] = Field(
        min_length=1,
        description="centre: its number of images or its share (all alike), or its values of `by`; a list: equal "
        "shares, or values of the centres' own names",
    )
    classes: Literal["malignancy", "diagnosis"] = Field(
        "malignancy", description="what is dealt out class by class: malignant, lesion and healthy, or the diagnoses"
    )
    alpha: float | None = Field(None, gt=0, description="of dirichlet and quantity: the smaller, the more unequal")
    minimum: int = Field(1, ge=0, description="of quantity: fewest images of a centre")
    seed: int | None = Field(None, ge=0, description="how it is dealt; the scenario's seed when left out")

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, data: Any) -> Any:
        """A list of names to equal shares or to values, and one value to a list of one."""
        if not isinstance(data, dict):
            return data
        centres, by = data.get("centres"), data.get("by", "size")
        if isinstance(centres, list | tuple) and len({str(name) for name in centres}) != len(centres):
            raise ValueError(f"centres names a centre twice: {', '.join(map(str, centres))}")
        if isinstance(centres, list | tuple) and centres:
            centres = {str(name): (str(name),) if by in BY_VALUE else 1 / len(centres) for name in centres}
        if isinstance(centres, dict) and by in BY_VALUE:
            centres = {name: (str(v),) if isinstance(v, str | int | float) else v for name, v in centres.items()}
        return data | ({} if centres is None else {"centres": centres})

    @model_validator(mode="after")
    def _fits(self) -> PartitionRule:
        values = list(self.centres.values())
        if self.by in BY_VALUE:
            named = [value for own in values if isinstance(own, tuple) for value in own]
            twice = sorted(value for value, n in Counter(named).items() if n > 1)
            if twice:
                raise ValueError(f"centres: {self.by} {twice[0]!r} is given to two centres; give it to one")
        else:
            if any(isinstance(value, tuple) for value in values):
                raise ValueError(f"centres: by {self.by} takes a number of images or a share for each centre")
            numbers = [value for value in values if not isinstance(value, tuple)]
            if min(numbers) <= 0:
                raise ValueError(f"centres: {min(numbers):g} is too few images; remove the centre or raise its number")
            shares = [value for value in numbers if isinstance(value, float)]
            if shares and (len(shares) < len(numbers) or sum(shares) > 1 + 1e-6):
                raise ValueError(
                    f"centres: {', '.join(f'{n:g}' for n in numbers)}: give whole numbers of images, or shares that sum "
                    "to at most 1"
                )
        if (self.alpha is None) == (self.by in ("dirichlet", "quantity")):
            raise ValueError(
                f"by {self.by} needs alpha, such as 0.5" if self.alpha is None else f"by {self.by} takes no alpha"
            )
        return self

    def sizes(self, images: int) -> dict[str, float]:
        """Images of each centre. Raises DataError when the archive holds fewer."""
        numbers = {name: value for name, value in self.centres.items() if not isinstance(value, tuple)}
        sizes = {name: n * images if isinstance(n, float) else float(n) for name, n in numbers.items()}
        if sum(sizes.values()) > images * (1 + 1e-6):
            raise DataError(
                "partition_too_large",
                f"partition asks for {sum(sizes.values()):.0f} images and the archive has {images}; lower its numbers, "
                "or give shares",
                need=shown_count(round(sum(sizes.values()))), have=shown_count(images),
            )  # fmt: skip
        return sizes


@dataclass(frozen=True)
class Dealt:
    """patient -> centre (REST: no centre), counts of what was decided on the way, and who spanned centres (private)."""

    home: dict[str, str]
    report: dict = field(default_factory=dict)
    spanning: tuple[str, ...] = ()


def partition(cohort: Cohort, rule: PartitionRule, seed: int, breasts: Mapping[str, float]) -> Dealt:
    """Where every patient of an archive goes.

    breasts: name of an exam -> size of the breast on it, for breast_size only. Raises DataError.
    """
    members: dict[str, list[Exam]] = defaultdict(list)
    for exam in sorted(cohort.exams, key=lambda exam: exam.name):
        members[cohort.group(exam.patient)].append(exam)
    groups = [_group(name, exams, rule, breasts) for name, exams in members.items()]
    report: dict = {}
    spanning: list[str] = []
    if rule.by in BY_VALUE:
        home = _by_value(groups, rule)
        spanning = [name for name, exams in members.items() if len({_value(exam, rule.by) for exam in exams}) > 1]
        if spanning:
            report["spanning"] = len(spanning)
    else:
        home = _by_size(groups, rule, seed)
    left_out = sum(group.images for group in groups if home[group.name] == REST)
    if left_out:
        report["left_out"] = left_out
    return Dealt(
        {exam.patient: home[cohort.group(exam.patient)] for exam in cohort.exams}, report, tuple(sorted(spanning))
    )


def _by_size(groups: list[Group], rule: PartitionRule, seed: int) -> dict[str, str]:
    images = sum(group.images for group in groups)
    classes = {
        label: sum(group.images for group in groups if group.label == label)
        for label in sorted({group.label for group in groups})
    }
    if rule.by == "quantity":
        alpha, rng = float(rule.alpha or 0), stream(seed, "quantity")
        sizes = quantity_skew(list(rule.centres), images, alpha, min(rule.minimum, images // len(rule.centres)), rng)
        return deal(groups, proportional(sizes, classes), seed)
    sizes = rule.sizes(images)
    if rule.by == "breast_size":
        unknown = sum(np.isnan(group.size) for group in groups)
        if unknown:
            raise DataError(
                "bad_value", f"{unknown} patients have no image on which the breast can be measured; deal them out by size",
                field="partition",
            )  # fmt: skip
        return in_order(groups, sizes)
    if rule.by == "dirichlet":
        return deal(groups, label_skew(sizes, classes, float(rule.alpha or 0), stream(seed, "dirichlet")), seed)
    return deal(groups, proportional(sizes, classes), seed)


def _by_value(groups: list[Group], rule: PartitionRule) -> dict[str, str]:
    owner = {value: centre for centre, own in rule.centres.items() if isinstance(own, tuple) for value in own}
    found = {group.feature for group in groups}
    absent = sorted(set(owner) - found)
    if absent:
        raise DataError(
            "unknown_centre",
            f"partition: no patient has {rule.by} {absent[0]!r}; the archive has "
            f"{', '.join(sorted(value or 'none' for value in found))}",
            field="centres",
        )
    return {group.name: owner.get(group.feature, REST) for group in groups}


def _group(name: str, exams: list[Exam], rule: PartitionRule, breasts: Mapping[str, float]) -> Group:
    diagnoses = [
        word for exam in exams for word in (exam.diagnosis, *(lesion.diagnosis for lesion in exam.lesions)) if word
    ]
    if rule.classes == "diagnosis":
        label = _most(diagnoses) if diagnoses else "unknown"
    elif any(exam.malignant or any(lesion.malignant for lesion in exam.lesions) for exam in exams):
        label = "malignant"
    else:
        label = "lesion" if any(exam.lesions for exam in exams) else "healthy"
    feature, size = "", float("nan")
    if rule.by in BY_VALUE:
        feature = _most([_value(exam, rule.by) for exam in exams])
    elif rule.by == "breast_size":
        size = float(np.median([breasts[exam.name] for exam in exams]))
    return Group(name, len(exams), label, exams[0].density, feature, size)


def _value(exam: Exam, by: str) -> str:
    values: Mapping[str, str] = {"site": exam.site, "scanner": exam.scanner, "density": exam.density}
    return values[by]


def _most(values: list[str]) -> str:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))
