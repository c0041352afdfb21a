"""Does a job keep to the minimums of this hospital? Patients are counted in its own data, as the study splits them.

Shown line by line on a study's page (`polycentre centre plan`), and checked before each job is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from clients.centre_file import Minimums
from clients.node import Node, Refusal
from clients.policy import minimums_of
from clients.side import load_patches
from data_partitions import PatchDataset
from strategies import Kind
from strategies.kind import Purpose
from strategies.terms import patients, used_by

_PATIENTS: dict[Purpose, str] = {"training": "training_patients", "sum": "sum_patients", "test": "test_patients"}
_OF_WHOM: dict[Purpose, str] = {"sum": " in each sum", "test": " of each class", "training": ""}


@dataclass(frozen=True)
class Line:
    """One minimum beside what a job has.

    Attributes:
        rule: key in `minimums`.
        asks: what it asks for, in words.
        values: what the job has; empty where patients were not counted.
        met: None where nobody can tell.
        counted: whether it is a number of patients, which stays here.
    """

    rule: str
    asks: str
    values: tuple[float, ...]
    met: bool | None
    counted: bool = False

    @property
    def has(self) -> str:
        """What the job has, in words."""
        return ", ".join(f"{value:g}" for value in dict.fromkeys(self.values))


def lines(minimums: Minimums, kind: Kind, body: Any, patches: Callable[[], PatchDataset] | None) -> Iterator[Line]:
    """All minimums that concern a job.

    Args:
        patches: all of the centre for the job's task; None: they are not at hand.
    """
    for use in used_by(kind):
        if use.where(body):
            rule, of_whom = _PATIENTS[use.purpose], _OF_WHOM[use.purpose]
            found = () if patches is None else (patients(use.groups(patches(), body)),)
            yield _at_least(minimums, rule, found, f" patients{of_whom}", counted=True)
    terms = kind.trains(body)
    if terms is None:
        return
    yield _at_least(minimums, "batch_size", (terms.batch_size,))
    yield _at_least(minimums, "steps", (terms.steps,))
    for rule, values in terms.settings.items():
        if rule == "width":
            yield _at_least(minimums, rule, values)
            continue
        low, high = getattr(minimums, rule)
        yield Line(rule, f"{low:g} to {high:g}", values, all(low <= value <= high for value in values))


def _at_least(
    minimums: Minimums, rule: str, values: tuple[float, ...], what: str = "", *, counted: bool = False
) -> Line:
    least = getattr(minimums, rule)
    met = min(values) >= least if values else None
    return Line(rule, f"at least {least}{what}", values, met, counted)


def check(node: Node, kind: Kind, body: Any) -> None:
    """Refuse a job that stays below a minimum. A simulation has none.

    Raises:
        Refusal: "below_minimum". How many patients there are is not told.
    """
    if not node.deployed:
        return
    for line in lines(minimums_of(node), kind, body, lambda: load_patches(node, body, body.task)):
        if not line.met:
            raise Refusal(
                "below_minimum", rule=f"minimums.{line.rule}", asks=line.asks, has="fewer" if line.counted else line.has
            )
