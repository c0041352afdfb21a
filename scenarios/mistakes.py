"""What is wrong with a scenario, as pydantic found it, in one line each: file, key, value, what would be right."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from basics.plugins import Table
from data_partitions import SOURCES, SplitRule
from models import ClassifierTraining
from scenarios.scenario import Compute, Scenario
from scenarios.sections import (
    Centre,
    ClassifierChoice,
    Outage,
    Partition,
    SimulatedAvailability,
    SimulatedClock,
    Study,
    Task,
)
from strategies import STRATEGIES
from strategies.keys import FidelityChoice, Schedule


def lines_of(problem: ValidationError, source: str) -> list[str]:
    """A line for each mistake: source, key, value, and what would be right."""
    lines = []
    errors = problem.errors(include_url=False)
    for error in errors:
        place = error["loc"]
        if error["type"] == "too_short" and any(e["loc"][: len(place)] == place != e["loc"] for e in errors):
            continue  # pydantic does not count items with a mistake; each of those has a line of its own
        keys = [str(key) for depth, key in enumerate(place) if not _is_tag(place, depth)]
        key = ".".join(keys)
        text = _words(error)
        if error["type"] == "extra_forbidden":
            lines.append(f"{source}: {key}: unknown key; {_known_keys(error['loc'])}")
        elif error["type"] == "missing":
            lines.append(f"{source}: {key}: is missing")
        elif error["type"] == "value_error" and not keys:
            lines += [f"{source}: {part}" for part in text.split("\n")]  # `Scenario` reports several at once
        else:
            shown = "" if isinstance(error["input"], dict | list) else f"{error['input']!r}: "
            lines.append(f"{source}: {key}: {shown}{text[0].lower() + text[1:]}")
    return lines


def _words(error: Any) -> str:
    """What pydantic says, in words that need no knowledge of it."""
    kind, context = error["type"], error.get("ctx", {})
    key = str(context.get("discriminator", "")).strip("'")
    if kind == "union_tag_invalid":
        table: Table[Any] = SOURCES if key == "source" else STRATEGIES
        more = "".join(f", {name!r}" for name in table if name not in table.builtin)
        return f"{key} is {context['tag']!r}; must be one of {context['expected_tags']}{more}; {table.hint}"
    if kind == "union_tag_not_found":
        return f"{key} is missing"
    if kind == "too_short":
        return f"needs at least {context['min_length']}, and there are {context['actual_length']}"
    if kind in ("model_type", "dict_type"):
        return "must have keys of its own"
    return str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")


def _is_tag(location: tuple[Any, ...], place: int) -> bool:
    """Whether a part of an error's path is the tag of a tagged union (phantom, local, ...), not a key of the YAML.

    Centres may have the name of a source: only what follows `data`, or an arm's name, is a tag.
    """
    before = location[:place]
    if before[-1:] == ("data",):
        return location[place] in SOURCES
    return len(before) == 2 and before[0] == "arms" and location[place] in STRATEGIES


def _known_keys(location: tuple[Any, ...]) -> str:
    """The known keys where an unknown one was found."""
    sections: dict[str, Any] = {
        "partition": Partition,
        "study": Study,
        "compute": Compute,
        "split": SplitRule,
        "task": Task,
        "tasks": Task,
        "clock": SimulatedClock,
        "availability": SimulatedAvailability,
        "outages": Outage,
        "fidelity": FidelityChoice,
    }
    owner: Any = Scenario
    for place, part in enumerate(location[:-1]):
        if _is_tag(location, place):
            owner = SOURCES[part] if location[place - 1] == "data" else STRATEGIES[part].keys
        elif part == "centres":
            owner = Centre
        elif part == "schedule":
            owner = Schedule
        elif part == "training":
            owner = ClassifierTraining
        elif part == "classifiers":
            owner = ClassifierChoice
        elif part in sections:
            owner = sections[part]
    return f"known keys: {', '.join(owner.model_fields)}"
