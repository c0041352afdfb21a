"""What a scenario asks for, in words and tables: `polycentre scenarios` and `polycentre validate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from basics.words import listed
from data_partitions import DealtSource
from federation.wire.units import scenario_digest
from scenarios.messages import Expected, expected_messages
from scenarios.plan import Plan
from scenarios.plugins import uses
from scenarios.reader import resolved_yaml, shipped
from scenarios.scenario import Scenario
from strategies import KINDS, STRATEGIES
from strategies.kind import layout_bytes
from strategies.layouts import generator_layout
from strategies.planned import Training

# More centres (or generators) than this are shown together where they are alike.
_MANY = 12


def scenario_lines() -> list[str]:
    """One line per shipped scenario: its name and the first sentence of its description."""
    lines = []
    for name, path in shipped().items():
        description = str((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("description", "")).strip()
        lines.append(f"{name:<28} {description.split('. ')[0].splitlines()[0] if description else ''}")
    return lines


def expected_units(scenario: Scenario) -> int:
    """Units of work of a run."""
    return sum(row.messages for row in expected_messages(Plan(scenario)))


def print_plan(console: Console, scenario: Scenario, run: str) -> None:
    """The resolved plan of a scenario, and the command that runs it."""
    plan = Plan(scenario)
    console.print(f"[bold]{scenario.name}[/bold]  seed {scenario.seed}, {scenario.repeats} repeats, "
                  f"{scenario.compute.workers} workers x {scenario.compute.threads_per_job} threads", highlight=False)  # fmt: skip
    table = Table("centre", "roles", "data", title="centres", title_justify="left")
    centres = []
    for name, centre in scenario.centres.items():
        centres.append((name, ", ".join(centre.roles), _data_words(centre.data)))
    _add_rows(table, centres, named=1)
    console.print(table)
    table = Table("task", "label", "classes", "lesions", "patch", title="tasks", title_justify="left")
    for task in scenario.all_tasks:
        depth = "" if task.storage == "uint8" else f" ({task.storage})"
        table.add_row(task.name, task.label, ", ".join(task.classes), task.lesions, f"{task.shape}{depth}")
    console.print(table)
    table = Table(
        "generator", "trained at", "model", "tasks", "classes", "parameters", title="generators", title_justify="left"
    )
    made = [
        (training.name, _where(training), training.task, training.spec)
        for planned in plan.exchanges if (training := planned.describes) is not None
    ]  # fmt: skip
    made += [
        (name, f"package {scenario.generators[name].package}", task, g.spec)
        for (name, task), g in plan.packages().items()
    ]
    generators = []
    for name, where, task_name, spec in made:
        classes = ", ".join(spec.made)
        size = f"{(layout_bytes(generator_layout(spec)) or 0) / 4e6:.2f} M"
        generators.append((name, where, spec.model, task_name, classes, size))
    # Generators of one centre each may be shown together; those that an arm trains are few, and each is of its own.
    own = [row for row in generators if row[0] in scenario.generators]
    _add_rows(table, own, named=2)
    for row in generators:
        if row[0] not in scenario.generators:
            table.add_row(*row)
    console.print(table)
    table = Table("arm", "strategy", "runs at", "learns from", title="arms", title_justify="left")
    for name, arm in scenario.arms.items():
        settings = arm.settings(scenario.study)
        strategy = STRATEGIES[arm.strategy]
        foreign = strategy.learns_from(plan, arm)
        shared = dict.fromkeys(
            task.classes[label] for task in scenario.all_tasks for label in settings.labels(task.classes)
        )
        text = f"{listed(foreign)}: {', '.join(shared)}, {settings.use}" if foreign else "own patches"
        if again := strategy.oversample(arm):
            text += f", {again} own positives drawn again"
        places = dict.fromkeys(receiver for arm_name, _, receiver, _ in plan.arm_places if arm_name == name)
        table.add_row(
            name, arm.strategy + (" (control)" if arm.control else ""), listed(places) if places else "nowhere", text
        )
    console.print(table)
    for plugin, names in uses(scenario).items():
        console.print(f"plug-in {plugin}: {', '.join(names)}", highlight=False, markup=False, soft_wrap=True)
    rows = expected_messages(plan)
    console.print(_messages_table(rows))
    digest = scenario_digest(resolved_yaml(scenario))
    console.print(f"scenario {digest} (what centres approve)", highlight=False, soft_wrap=True)
    units = sum(row.messages for row in rows)
    console.print(f"{units} units of work; run it with: {run}", highlight=False, markup=False, soft_wrap=True)


def _where(training: Training) -> str:
    names = listed(training.where)
    return f"server, with {names}" if training.at_server else names


def _add_rows(table: Table, rows: Sequence[tuple[str, ...]], named: int) -> None:
    """Add rows; where there are many, those that differ in their first `named` cells alone become one."""
    alike: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for row in rows:
        alike.setdefault(row[named:] if len(rows) > _MANY else row, []).append(row)
    for members in alike.values():
        names = zip(*(row[:named] for row in members), strict=True)
        table.add_row(*map(listed, names), *members[0][named:])


def _messages_table(rows: list[Expected]) -> Table:
    """By kind and centre; with many centres by kind alone."""
    many = len({row.centre for row in rows}) > _MANY
    groups: dict[tuple[str, str], list[Expected]] = {}
    for row in rows:
        groups.setdefault((row.kind, "" if many else row.centre), []).append(row)
    table = Table(
        "messages", "centre", "jobs", "MB to centre", "MB from centre", title="units of work", title_justify="left"
    )
    for (kind, centre), members in groups.items():
        down, up = (_megabytes([getattr(row, side) for row in members]) for side in ("bytes_down", "bytes_up"))
        table.add_row(
            KINDS[kind].title, centre or f"{len(members)} centres", str(sum(row.messages for row in members)),
            down, up,
        )  # fmt: skip
    return table


def _megabytes(sizes: list[int | None]) -> str:
    known = [size for size in sizes if size is not None]
    return f"{sum(known) / 1e6:.1f}" if len(known) == len(sizes) else "after survey"


def _data_words(data: Any) -> str:
    """A centre's data in a cell of a table: what is not left at its default."""
    if isinstance(data, DealtSource):
        own = data.partition.centres[data.centre]
        part = ", ".join(own) if isinstance(own, tuple) else f"{own:.1%}" if isinstance(own, float) else f"{own} images"
        if data.partition.by == "quantity":
            part = f"Dirichlet({data.partition.alpha:g})"
        return f"by {data.partition.by} ({part}) of: {_data_words(data.archive)}"
    return ", ".join(f"{k}={v}" for k, v in data.model_dump(mode="json", exclude_defaults=True).items())
