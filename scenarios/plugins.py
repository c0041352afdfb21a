"""Which plug-ins a scenario uses: those that the models, classifiers, sources, metrics and strategies it names come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from basics.plugins import GROUPS, Identity, PluginError, Table, canonical, clash, installed, offering
from data_partitions import SOURCES, DealtSource
from metrics import METRICS
from models import CLASSIFIERS, GENERATIVE_MODELS
from scenarios.scenario import Scenario
from scenarios.specs import read_package
from strategies import STRATEGIES

TABLES: dict[str, Table[Any]] = {
    table.group: table for table in (GENERATIVE_MODELS, CLASSIFIERS, SOURCES, METRICS, STRATEGIES)
}
assert set(TABLES) == set(GROUPS)


def named(scenario: Scenario, *, files: bool = True) -> Iterator[tuple[str, str, str]]:
    """(key of the scenario, group, name) of all that it names in one of the tables.

    Args:
        files: whether generator packages are at hand, whose models count, too.
    """
    for name, centre in scenario.centres.items():
        yield f"centres.{name}.data", "sources", centre.data.source
        if isinstance(centre.data, DealtSource):
            yield f"centres.{name}.data", "sources", centre.data.archive.source
    for name, generator in scenario.generators.items():
        if generator.model is not None:
            yield f"generators.{name}.model", "models", generator.model
        elif files:
            yield f"generators.{name}.package", "models", read_package(name, generator.package).spec.model
    for name, arm in scenario.arms.items():
        yield f"arms.{name}.strategy", "strategies", arm.strategy
        if (model := getattr(arm, "model", None)) is not None:
            yield f"arms.{name}.model", "models", model
    for choice in scenario.study.classifiers:
        yield "study.classifiers", "classifiers", choice.model
    for metric in scenario.study.metrics or ():
        yield "study.metrics", "metrics", metric


def uses(scenario: Scenario, *, files: bool = True) -> dict[Identity, list[str]]:
    """The plug-ins that a scenario uses, by name, with the digest of their files now, and what it uses of each.

    Raises:
        PluginError: two plug-ins offer one of the names.
    """
    used: dict[str, dict[str, None]] = {}
    plugins = {canonical(plugin.name): plugin for plugin in installed()}
    for _, group, name in named(scenario, files=files):
        plugin = TABLES[group].plugin_of(name)
        if plugin is not None:
            used.setdefault(canonical(plugin.name), {})[f"{GROUPS[group]} {name}"] = None
    return {plugins[key].identity: list(names) for key, names in sorted(used.items())}


def clashes(scenario: Scenario) -> Iterator[str]:
    """Names in a scenario that a plug-in offers although the project has them itself, each as "key: what to do"."""
    seen: set[tuple[str, str]] = set()
    for key, group, name in named(scenario, files=False):
        others = offering(group, name) if name in TABLES[group].builtin and (group, name) not in seen else []
        seen.add((group, name))
        if others:
            yield f"{key}: {clash(group, name, ['polycentre', *(plugin.name for plugin in others)])}"


def faults() -> Iterator[str]:
    """What is wrong with the plug-ins that are installed: names that are taken, entry points that cannot be used. Imports all."""
    for plugin in installed():
        for group, name, _ in plugin.offers:
            table = TABLES[group]
            if name in table.builtin:
                yield clash(group, name, ["polycentre", plugin.name])
                continue
            try:
                table[name]
            except PluginError as problem:
                yield str(problem)


def changed(recorded: list[Mapping[str, Any]], scenario: Scenario) -> list[str]:
    """How the plug-ins of a run differ from those that are here now, a line each.

    A plug-in of whose names the scenario names none any more may be gone, or another.

    Args:
        recorded: `plugins` of the run's environment.json.

    Raises:
        PluginError: see `uses`.
    """
    used, lines = uses(scenario), []
    now = {one.key: one for one in used}
    provider = {name: f"plug-in {one}" for one, names in used.items() for name in names}
    wanted = {f"{GROUPS[group]} {name}" for _, group, name in named(scenario)}
    for entry in recorded:
        before = Identity(entry["name"], entry["version"], entry["digest"])
        found = now.get(before.key)
        if found is None:
            lines += [
                f"the run was recorded with {name} of plug-in {before}, and here it is of {provider.get(name, 'polycentre itself')}; "
                "install what was recorded, or start a new run"
                for name in entry.get("uses", ()) if name in wanted
            ]  # fmt: skip
        if found is not None and (found.version, found.digest) != (before.version, before.digest):
            lines.append(
                f"the run was recorded with plug-in {before}, and here is {found}; install what was recorded, or start a new run"
            )
    return lines


def missing(recorded: list[Mapping[str, Any]]) -> list[str]:
    """The plug-ins of a run that are not installed here, a line each."""
    here = {canonical(plugin.name) for plugin in installed()}
    gone = [Identity(entry["name"], entry["version"], entry["digest"]) for entry in recorded]
    return [
        f"the run was recorded with plug-in {one}, which is not installed here; install that version, or start a new run"
        for one in gone if one.key not in here
    ]  # fmt: skip
