"""Read a scenario from YAML, apply overrides, check it; every problem is one line (see `scenarios.mistakes`).

Paths in a scenario may use `${NAME}` or `${NAME:-default}` (environment). A relative path starts at the
scenario's folder; one from the environment starts at the current folder.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from basics.bounded_text import SCENARIO, TextProblem, TooMuch, load_yaml, read_text
from basics.file_hash import sha256_of
from basics.words import listed
from scenarios.checks import file_problems, model_problems
from scenarios.groups import GroupError, merge_alike, write_out_groups
from scenarios.mistakes import lines_of
from scenarios.plugins import clashes
from scenarios.scenario import Scenario

SHIPPED = Path(__file__).parent
DEFAULT = "demo"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
# Keys whose values are paths, in whatever section.
_PATH_KEYS = {"path", "exclude", "package", "pretrained"}


class ScenarioError(ValueError):
    """A scenario that cannot be used; one line per problem."""


# libyaml where it is installed, as it is in PyYAML's wheels: a thousand centres written out take 1 s instead of 15.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _StrictLoader(_Loader):
    """YAML without silent overwriting: a repeated key is an error."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue  # `<<: *anchor`; keys written here win over merged ones
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool):
            raise yaml.MarkedYAMLError(problem="a key is a list or a mapping", problem_mark=key_node.start_mark)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"key {key!r} is repeated", problem_mark=key_node.start_mark)
        seen.add(key)
    return yaml.constructor.SafeConstructor.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def shipped() -> dict[str, Path]:
    """Name and file of every scenario that comes with the project."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file meant by `name`: a path, or the name of a shipped scenario.

    Raises:
        ScenarioError: there is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path.absolute()
    by_name = shipped()
    stem = path.name.removesuffix(".yaml")
    if stem in by_name and path.parent.name in ("", "scenarios"):
        return by_name[stem]
    raise ScenarioError(f"{name}: no such file; shipped scenarios: {', '.join(by_name)}")


def read(file: str | Path, overrides: list[str] | None = None) -> Scenario:
    """Read and check one scenario.

    Args:
        file: path or shipped name.
        overrides: "key.path=value" strings as given to --set; values are YAML.

    Raises:
        ScenarioError: with one line per problem.
    """
    path = find(str(file))
    try:
        text = read_text(path, SCENARIO)
    except TooMuch as problem:
        raise ScenarioError(f"{file}: {problem}; a scenario is far shorter") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise ScenarioError(f"{file}: cannot be read as UTF-8 text ({problem}); save it again as UTF-8") from None
    return parse(text, source=str(file), base=path.parent, overrides=overrides or [])


def parse(text: str, *, source: str, base: Path, overrides: list[str] | None = None) -> Scenario:
    """Like `read`, from text; relative paths start at `base`."""
    try:
        tree = load_yaml(text, SCENARIO, _StrictLoader)
    except TextProblem as problem:
        where = f"line {problem.line}: " if problem.line else ""
        raise ScenarioError(f"{source}: {where}{problem}; correct the YAML there") from None
    if not isinstance(tree, dict):
        raise ScenarioError(f"{source}: holds no settings; start from one of: {', '.join(shipped())}")
    # Keys that begin with x- are a place for what several sections share through YAML's anchors.
    tree = {key: value for key, value in tree.items() if not str(key).startswith("x-")}
    for override in overrides or []:
        _override(tree, override)
    try:
        tree, group_of = write_out_groups(_expand(tree, base, source))
    except GroupError as problem:
        raise ScenarioError(f"{source}: {problem}") from None
    _hash_weights(tree)
    try:
        scenario = Scenario.model_validate(tree)
    except ValidationError as problem:
        raise ScenarioError("\n".join(merge_alike(lines_of(problem, source), group_of))) from None
    problems = [f"{source}: {problem}" for problem in (*clashes(scenario), *model_problems(scenario))]
    if problems:
        raise ScenarioError("\n".join(merge_alike(problems, group_of)))
    return scenario


def check_files(scenario: Scenario, source: str, data_here: bool = True) -> None:
    """Check the files that a scenario names: packages that fit their tasks, weights, folders of images.

    Args:
        data_here: whether the folders of images must be on this machine, too.

    Raises:
        ScenarioError: with one line per file that is missing or does not fit.
    """
    problems = [f"{source}: {problem}" for problem in file_problems(scenario, data_here)]
    if problems:
        raise ScenarioError("\n".join(problems))


def resolved_yaml(scenario: Scenario) -> str:
    """The scenario with every default written out; reading it gives the same scenario."""
    tree = scenario.model_dump(mode="json", exclude_none=True)
    for section, entries in (("generators", scenario.generators), ("arms", scenario.arms)):
        for name, entry in entries.items():
            if written := entry.written():
                own = entry.model_dump(mode="json", exclude_none=True, include=set(type(entry).model_fields))
                tree[section][name] = own | written
    for name, arm in scenario.arms.items():
        if arm.schedule is not None:
            tree["arms"][name]["schedule"] = arm.settings(scenario.study).schedule.model_dump(mode="json")
    for key in ("augmentation", "normalise"):  # settings of the study and its arms
        tree["study"]["training"].pop(key)
    for name in scenario.partition.centres if scenario.partition else ():
        tree["centres"][name].pop("data")  # follows from the partition
    if not scenario.tasks:
        tree.pop("tasks")
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ScenarioError(f"--set {override}: must look like key.path=value, for example study.synthetic=600")
    parts = key.strip().split(".")
    place: Any = tree
    for depth, part in enumerate(parts[:-1]):
        if isinstance(place, list):
            child = place[_index(place, part, override)]
        else:
            child = place.get(part)
            if child is None:
                child = place[part] = {}
        if not isinstance(child, dict | list):
            raise ScenarioError(
                f"--set {override}: {'.'.join(parts[: depth + 1])} is {child!r}, it has no keys of its own"
            )
        place = child
    try:
        parsed = load_yaml(value, SCENARIO, _StrictLoader)
    except TextProblem:
        raise ScenarioError(f"--set {override}: the value is not valid YAML; quote it") from None
    if isinstance(place, list):
        place[_index(place, parts[-1], override)] = parsed
    elif parsed is None:
        place.pop(parts[-1], None)
    else:
        place[parts[-1]] = parsed


def _index(place: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise ScenarioError(f"--set {override}: {part!r} must be a position from 0 to {len(place) - 1} in a list")
    return int(part)


def _expand(tree: dict[str, Any], base: Path, source: str) -> dict[str, Any]:
    """The tree with every path absolute and its environment variables filled in.

    Raises:
        ScenarioError: one line for each variable that is not set, with the keys that need it.
    """
    unset: dict[str, dict[str, str]] = {}  # variable: {key: path as written}

    def expand(value: Any, keys: tuple[str, ...] = (), name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: expand(inner, (*keys, str(key)), str(key)) for key, inner in value.items()}
        if isinstance(value, list):  # of paths, where it stands under the name of one
            return [expand(inner, (*keys, str(place)), name) for place, inner in enumerate(value)]
        if not isinstance(value, str) or name not in _PATH_KEYS:
            return value
        from_environment = False

        def variable(match: re.Match[str]) -> str:
            nonlocal from_environment
            found = os.environ.get(match[1])
            from_environment = bool(found)
            if not found and match[2] is None:
                unset.setdefault(match[1], {})[".".join(keys)] = value
            return found or match[2] or ""

        path = Path(_VARIABLE.sub(variable, value)).expanduser()
        return str(path if path.is_absolute() else ((Path.cwd() if from_environment else base) / path).resolve())

    expanded: dict[str, Any] = expand(tree)
    if unset:
        raise ScenarioError("\n".join(f"{source}: {_unset_words(*item)}" for item in unset.items()))
    return expanded


def _hash_weights(tree: dict[str, Any]) -> None:
    """Write down the hash of each file of weights, so that whoever approves the scenario approves their content."""
    study = tree.get("study")
    choices = study.get("classifiers") if isinstance(study, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("pretrained_sha256") is None:
            with contextlib.suppress(OSError, TypeError):  # what is not there, or no path, is named later
                choice["pretrained_sha256"] = (
                    sha256_of(Path(choice["pretrained"])) if choice.get("pretrained") else None
                )


def _unset_words(variable: str, paths: dict[str, str]) -> str:
    """What an environment variable should point to, and how to do without it."""
    below = dict.fromkeys(path.partition(f"${{{variable}}}")[2].strip("/") for path in paths.values())
    holds = f"the folder that holds {listed(name for name in below if name)}" if any(below) else "this path"
    instead = " ".join(f"--set {key}=PATH" for key in paths)
    return f"environment variable {variable} is not set; set it to {holds}, or use {instead}"
