"""A section of the page, declared once, and what sections are built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.federations import trouble_lines
from reports.findings import Finding, findings
from reports.kinds import Kinds
from reports.pictures import arm_colours
from reports.run_record import RunRecord
from reports.study import Study, read_study
from reports.tables import Block, EvaluationSet, Troubles, blocks, evaluation_sets
from reports.timeline import Event, current_units

Unit = dict[str, Any]
# What a centre says about its own data, as it says it: small counts are suppressed there.
Card = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """A run, read once for all sections.

    Attributes:
        units: the infos of the newest session's units; those of settings that it no longer has are left out.
        judged: (number of the block, test centre) -> what each arm did there.
        cards: (task, centre) -> data card.
        colours: of the arms, the same in all figures.
    """

    record: RunRecord
    study: Study
    kinds: Kinds
    environment: dict[str, Any]
    events: list[Event]
    units: list[Unit]
    blocks: list[Block]
    judged: dict[tuple[int, str], list[Finding]]
    sets: dict[tuple[str, str], EvaluationSet]
    federations: list[dict[str, Any]]
    troubles: Troubles
    cards: dict[tuple[str, str], Card]
    colours: dict[str, str]

    @property
    def centres(self) -> list[str]:
        """In the scenario's order."""
        return list(self.study.centres)


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        anchor: its id in the page.
        name: its name in the navigation.
        title: its heading.
        build: what `template` shows, by name; None where there is nothing to show, and the section is left out.
        template: Jinja2, with the macros of `reports.template`; the heading is not in it.
    """

    anchor: str
    name: str
    title: str
    build: Callable[[Context], Mapping[str, Any] | None]
    template: str


def read_context(record: RunRecord) -> Context:
    """Read what is recorded so far."""
    kinds = Kinds.of(record.kinds())
    study = read_study(record.scenario_yaml, kinds)
    events = record.events()
    current = current_units(events)
    units = [info for info in record.units() if info["unit"] in current]
    found, predictions = blocks(record.results(), study), record.predictions()
    federations = record.federations()
    return Context(
        record=record,
        study=study,
        kinds=kinds,
        environment=record.environment,
        events=events,
        units=units,
        blocks=found,
        judged=_judged(found, predictions, kinds),
        sets=evaluation_sets(predictions),
        federations=federations,
        troubles=trouble_lines(federations, study),
        cards=data_cards(units),
        colours=arm_colours(list(study.arms), study.baseline.name if study.baseline else None),
    )


def _judged(found: Sequence[Block], predictions: pd.DataFrame, kinds: Kinds) -> dict[tuple[int, str], list[Finding]]:
    return {
        (i, centre): findings(block, centre, predictions, kinds)
        for i, block in enumerate(found)
        for centre in block.tested_on
    }


def data_cards(units: Sequence[Unit]) -> dict[tuple[str, str], Card]:
    """(task, centre) -> data card, from the units whose result is {"tasks": {task: {"card": ...}}}."""
    return {
        (task, str(info.get("centre"))): entry["card"]
        for info in units
        for task, entry in ((info.get("result") or {}).get("tasks") or {}).items()
        if "card" in entry
    }
