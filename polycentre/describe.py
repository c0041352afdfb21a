"""What a scenario asks for, in words and tables: `polycentre scenarios` and `polycentre validate`."""

from __future__ import annotations

from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from data_partitions import DealtSource
from models import ClassifierSpec, GeneratorSpec
from scenarios.plan import Plan
from scenarios.reader import shipped
from scenarios.scenario import LocalArm, Scenario


def scenario_lines() -> list[str]:
    """One line per shipped scenario: its name and the first sentence of its description."""
    lines = []
    for name, path in shipped().items():
        description = str((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("description", "")).strip()
        lines.append(f"{name:<28} {description.split('. ')[0].splitlines()[0] if description else ''}")
    return lines


def expected_units(scenario: Scenario) -> int:
    """Units of work of a run."""
    return sum(count for count, _, _ in messages(Plan(scenario)).values())


def messages(plan: Plan) -> dict[str, tuple[int, int, int]]:
    """Expected (jobs, bytes to centres, bytes from centres) by kind. Small JSON bodies are not counted.

    A provider's reply holds the generator and a preview; the receiver is sent the generator; a classifier travels
    where another centre tests it. Pixels of a pooled arm cannot be known before the survey.
    """
    orders = plan.orders()
    trained = [order for order in orders if order.centre is not None]
    size = {(o.generator, o.task): _generator_bytes(o.spec) for o in orders}
    preview = sum(_preview_bytes(order.spec) for order in trained)
    synthesised, moved = plan.synthesised(), plan.moved()
    cells = plan.cells()
    tests = [(cell, centre) for cell in cells for centre in plan.test_centres(cell)]
    bytes_of = {key: _classifier_bytes(plan, *key) for key in {(cell.classifier.model, cell.task) for cell in cells}}
    sent = sum(bytes_of[cell.classifier.model, cell.task] for cell in cells if plan.test_centres(cell))
    tested = sum(bytes_of[cell.classifier.model, cell.task] for cell, _ in tests)
    return {
        "survey": (len(plan.scenario.centres), 0, 0),
        "train_generator": (len(trained), 0, sum(size[o.generator, o.task] for o in trained) + preview),
        "synthesise": (len(synthesised), sum(size[g, task] for _, g, task, _ in synthesised), 0),
        "send_patches": (len(moved), 0, 0),
        "receive_patches": (len(moved), 0, 0),
        "learn": (len(cells), 0, sent),
        "test": (len(tests), tested, 0),
    }


def print_plan(console: Console, scenario: Scenario) -> None:
    """The resolved plan of a scenario."""
    plan = Plan(scenario)
    console.print(f"[bold]{scenario.name}[/bold]  seed {scenario.seed}, {scenario.repeats} repeats, "
                  f"{scenario.compute.workers} workers x {scenario.compute.threads_per_job} threads", highlight=False)  # fmt: skip
    table = Table("centre", "roles", "data", title="centres", title_justify="left")
    for name, centre in scenario.centres.items():
        table.add_row(name, ", ".join(centre.roles), _data_words(centre.data))
    console.print(table)
    table = Table("task", "label", "lesions", "patch", title="tasks", title_justify="left")
    for task in scenario.all_tasks:
        table.add_row(task.name, task.label, task.lesions, f"{task.image_size} px x {task.channels}")
    console.print(table)
    table = Table(
        "generator", "trained at", "model", "tasks", "classes", "parameters", title="generators", title_justify="left"
    )
    for order in plan.orders():
        parameters = _generator_bytes(order.spec) // 4
        where = order.centre or f"package {scenario.generators[order.generator].package}"
        classes = "both" if order.spec["conditional"] else "positives"
        table.add_row(order.generator, where, order.spec["model"], order.task, classes, f"{parameters / 1e6:.2f} M")
    console.print(table)
    table = Table("arm", "strategy", "runs at", "learns from", title="arms", title_justify="left")
    for name, arm in scenario.arms.items():
        settings = arm.settings(scenario.study)
        foreign = getattr(arm, "generators", None) or getattr(arm, "centres", None)
        text = f"{', '.join(foreign)}: {settings.classes}, {settings.use}" if foreign else "own patches"
        if isinstance(arm, LocalArm) and arm.oversample:
            text += f", {arm.oversample} own positives drawn again"
        places = dict.fromkeys(cell.receiver for cell in plan.cells() if cell.arm == name)
        table.add_row(name, arm.strategy + (" (control)" if arm.control else ""), ", ".join(places) or "nowhere", text)
    console.print(table)
    table = Table("messages", "jobs", "MB to centres", "MB from centres", title="units of work", title_justify="left")
    for kind, (jobs, down, up) in messages(plan).items():
        pixels = kind in ("send_patches", "receive_patches") and jobs
        table.add_row(
            kind, str(jobs), "pixels" if pixels else f"{down / 1e6:.1f}", "pixels" if pixels else f"{up / 1e6:.1f}"
        )
    console.print(table)
    console.print(f"{expected_units(scenario)} units of work; run it with: polycentre run", highlight=False)


def _data_words(data: Any) -> str:
    """A centre's data in a cell of a table: what is not left at its default."""
    if isinstance(data, DealtSource):
        own = data.partition.centres[data.centre]
        part = ", ".join(own) if isinstance(own, tuple) else f"{own:.1%}" if isinstance(own, float) else f"{own} images"
        if data.partition.by == "quantity":
            part = f"Dirichlet({data.partition.alpha:g})"
        return f"by {data.partition.by} ({part}) of: {_data_words(data.archive)}"
    return ", ".join(f"{k}={v}" for k, v in data.model_dump(mode="json", exclude_defaults=True).items())


def _generator_bytes(spec: dict) -> int:
    """Size of what a provider shares: one set of weights per member of the checkpoint ensemble."""
    parsed = GeneratorSpec.model_validate(spec)
    with torch.device("meta"):  # shapes without memory
        model = parsed.build(0)
    tensors = [
        t for name, t in model.sampler.state_dict().items() if not name.endswith("num_batches_tracked")
    ]  # as `weights_of`
    one = sum(t.numel() * t.element_size() for t in tensors)
    every = parsed.training.snapshot_every
    return one * (1 + (parsed.training.steps - max(1, parsed.training.snapshot_from)) // every if every else 1)


def _preview_bytes(spec: dict) -> int:
    return (64 if spec["conditional"] else 32) * spec["channels"] * spec["image_size"] ** 2


def _classifier_bytes(plan: Plan, classifier: str, task: str) -> int:
    choice = next(c for c in plan.scenario.study.classifiers if c.model == classifier)
    spec = ClassifierSpec.model_validate(plan.classifier_spec(choice, task) | {"pretrained": None})
    with torch.device("meta"):
        network = spec.build(0)
    return sum(t.numel() * t.element_size() for t in network.state_dict().values())
