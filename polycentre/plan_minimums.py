"""The minimums of a hospital beside what a study asks of it, for the page of `polycentre centre plan`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from basics.plugins import PluginError, only
from clients.centre_file import CentreFile
from clients.minimums import Line, lines
from clients.node import Node
from clients.side import load_patches
from data_partitions import SOURCES, DataError, PatchDataset
from strategies.ask import Ask, distinct
from strategies.kind import Kind


@dataclass(frozen=True)
class Judged:
    """One minimum beside all jobs of a kind: `line.values` are the smallest and the largest, where they differ."""

    kind: Kind
    line: Line

    @property
    def verdict(self) -> str:
        """In a word."""
        return {True: "kept", False: "**refused**", None: "not counted"}[self.line.met]

    @property
    def has(self) -> str:
        """What the study has, in words; of numbers of patients, on which a job depends, the smallest comes first."""
        return " to ".join(f"{value:g}" for value in self.line.values) or "?"


def judged(file: CentreFile, asks: list[Ask], counts: Counts | None) -> list[Judged]:
    """All minimums that concern a study, by kind of job.

    Args:
        counts: how patients are counted; None: they are not.
    """
    found: dict[tuple[str, str], list[tuple[Kind, Line]]] = {}
    for ask in distinct(asks):
        at_hand = None if counts is None else counts.of(ask)
        for line in lines(file.minimums, ask.kind, ask.outline, at_hand):
            found.setdefault((ask.kind.name, line.rule), []).append((ask.kind, line))
    return [Judged(group[0][0], _together([line for _, line in group])) for group in found.values()]


def _together(group: list[Line]) -> Line:
    values = [value for line in group for value in line.values]
    verdicts = {line.met for line in group}
    met = False if False in verdicts else None if None in verdicts else True
    return Line(
        group[0].rule, group[0].asks, tuple(sorted({min(values), max(values)})) if values else (), met, group[0].counted
    )


@dataclass
class Counts:
    """The patches of a centre's own data, made as a survey would make them, so that patients can be counted.

    Attributes:
        problem: why some could not be made.
    """

    file: CentreFile
    problem: str = ""
    _known: dict[str, PatchDataset | None] = field(default_factory=dict)

    def of(self, ask: Ask) -> Callable[[], PatchDataset] | None:
        """The patches of a job; None where there are none."""
        if ask.task is None:
            return None
        if ask.task not in self._known:
            self._known[ask.task] = self._made(ask.outline)
        patches = self._known[ask.task]
        return None if patches is None else lambda: patches

    def _made(self, body: Any) -> PatchDataset | None:
        file = self.file
        own = body if file.data is None else body.model_copy(update={"data": file.data})
        try:
            with only(file.allowed):
                node = Node(file.centre, file.workspace, file.cache_folder, deployed=True, file=file)
                return load_patches(node, own, own.task)
        except (DataError, PluginError) as problem:
            self.problem = str(problem)
        except KeyError as missing:
            self.problem = f"no source of data {missing} is known here"
        return None


def unit_of(file: CentreFile, data: dict[str, Any]) -> str:
    """What counts as a patient here: the archive may name none.

    Args:
        data: the scenario's own section, for a node that has none.
    """
    section = file.data or data
    with only(file.allowed):
        try:
            found: Any = SOURCES[section["source"]]
        except (KeyError, PluginError):  # of a plug-in that does not run here, which the page says
            return "patient"
        source: Any = TypeAdapter(found).validate_python(section)
    return source.counted_as


def refusals(found: list[Judged]) -> Iterator[str]:
    """What is refused, one sentence each."""
    for one in found:
        if one.line.met is False:
            yield f"{one.kind.title}: minimums.{one.line.rule} asks for {one.line.asks}, and the study has {one.has}"
