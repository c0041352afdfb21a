"""Groups: one entry of a scenario that means many centres, or the generators that they train.

    centres:
      c: {count: 49, roles: [provider], data: {source: phantom, patients: 16, scanner: [film, digital]}}
    generators:
      g: {centre: c, model: dcgan, steps: 20}
    arms:
      all: {strategy: one_shot, generators: [g]}

means centres c01 to c49 with film, digital, film, ..., a generator g01 to g49 at each, and an arm that uses them all.
Where the schema wants one value, the members take those of a list in turn; where it wants a list, every member has that
list. In lists of names, and only there, a group's name means its members.

Groups are written out in the YAML's tree, after overrides and before the schema sees it: schema, plan and resolved
scenario know only members, and no result depends on how they were written.
"""

from __future__ import annotations

import re
import types
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from models import GENERATIVE_MODELS, GenerativeTraining
from scenarios.sections import LONGEST_NAME, Centre, Generator

# More is a slip of the finger: every member has at least one job.
LARGEST_GROUP = 10_000

# Keys of an arm, `study` and `partition` that hold lists of names, and the section that the names are from.
_NAMES_IN_ARMS = {"centres": "centres", "receivers": "centres", "generators": "generators"}
_NAMES_IN_STUDY = {"test_on": "centres"}
_NAMES_IN_PARTITION = {"centres": "centres"}

_Entry = dict[str, Any]
_Groups = dict[str, list[str]]  # name of a group: its members in order


class GroupError(ValueError):
    """A group that cannot be written out: "key: what is wrong and what would be right"."""


def write_out_groups(tree: _Entry) -> tuple[_Entry, dict[str, str]]:
    """The tree without groups, and the group of each member (centres and generators).

    Everything else stays as it is, mistakes included, which the schema reports.

    Raises:
        GroupError: a count is not a number, a name is taken or too long, a list of values is empty, a group's name stands
            alone where a list is wanted, or a member is named as well as its group.
    """
    sections = {key: tree[key] if isinstance(tree.get(key), dict) else {} for key in ("centres", "generators")}
    groups: dict[str, _Groups] = {"centres": {}, "generators": {}}
    for name, entry in sections["centres"].items():
        if isinstance(entry, dict) and "count" in entry:
            groups["centres"][name] = _members(f"centres.{name}", name, _count(name, entry["count"]))
    for name, entry in sections["generators"].items():
        at = entry.get("centre") if isinstance(entry, dict) else None
        if isinstance(at, str) and at in groups["centres"]:
            groups["generators"][name] = _members(f"generators.{name}", name, len(groups["centres"][at]))
    if not groups["centres"]:
        return tree, {}

    def centre(name: str, index: int) -> _Entry:
        entry = {key: value for key, value in sections["centres"][name].items() if key != "count"}
        return _in_turn(f"centres.{name}", entry, index, [Centre])

    def generator(name: str, index: int) -> _Entry:
        entry = sections["generators"][name]
        schema: list[type[BaseModel]] = [Generator, GenerativeTraining]
        model = _pick(f"generators.{name}.model", entry.get("model"), index)
        if isinstance(model, str) and model in GENERATIVE_MODELS:
            schema.append(GENERATIVE_MODELS[model])
        own = {"centre": groups["centres"][entry["centre"]][index]}
        return _in_turn(f"generators.{name}", entry, index, schema) | own

    written = dict(tree)
    written["centres"] = _write_out("centres", sections["centres"], groups["centres"], centre)
    if sections["generators"]:
        written["generators"] = _write_out("generators", sections["generators"], groups["generators"], generator)
    if isinstance(tree.get("arms"), dict):
        written["arms"] = {
            name: _with_members(f"arms.{name}", arm, _NAMES_IN_ARMS, groups) for name, arm in tree["arms"].items()
        }
    for key, lists in (("study", _NAMES_IN_STUDY), ("partition", _NAMES_IN_PARTITION)):
        if key in tree:
            written[key] = _with_members(key, tree[key], lists, groups)
    return written, {member: name for kind in groups.values() for name, members in kind.items() for member in members}


def merge_alike(lines: Iterable[str], group_of: Mapping[str, str]) -> list[str]:
    """Merge lines that differ only in the member of a group that they name: the first, and how many more there are."""
    first: dict[tuple[str, ...], str] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        words = tuple(group_of.get(word, word) for word in re.findall(r"[A-Za-z0-9_\-]+|\S", line))
        first.setdefault(words, line)
        counts[words] += 1
    return [
        line + (f" (and {counts[words] - 1} more of its group)" if counts[words] > 1 else "")
        for words, line in first.items()
    ]


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_GROUP:
        raise GroupError(f"centres.{name}.count: {value!r} must be a whole number from 1 to {LARGEST_GROUP}")
    return value


def _members(key: str, name: Any, count: int) -> list[str]:
    """Names of equal length, so that their alphabetical order is their order."""
    members = [f"{name}{number:0{len(str(count))}d}" for number in range(1, count + 1)]
    if len(members[0]) > LONGEST_NAME:
        raise GroupError(
            f"{key}: its members are called {members[0]!r} and so on, {len(members[0])} characters; "
            f"shorten the group's name, {LONGEST_NAME} are allowed"
        )
    return members


def _write_out(section: str, entries: _Entry, groups: _Groups, member: Callable[[str, int], _Entry]) -> _Entry:
    """Each group's members in its place."""
    written: _Entry = {}
    owner: dict[str, str] = {}
    for name, entry in entries.items():
        for index, own in enumerate(groups.get(name, [name])):
            if own in written:
                group, other = (name, owner[own]) if name in groups else (owner[own], name)
                raise GroupError(
                    f"{section}.{other}: {own!r} is also the name of a member of the group {section}.{group}; "
                    "rename one of them (write what differs between members as a list in the group)"
                )
            written[own], owner[own] = member(name, index) if name in groups else entry, name
    return written


def _with_members(key: str, entry: Any, lists: Mapping[str, str], groups: Mapping[str, _Groups]) -> Any:
    """An arm, the study or the partition with members in place of groups in its lists of names.

    A value given by name (`partition.centres: {c: 200}`) counts for each member: 200 images each.
    """
    if not isinstance(entry, dict):
        return entry
    written = dict(entry)
    for name, section in lists.items():
        value, known = entry.get(name), groups[section]
        if isinstance(value, str) and value in known:
            raise GroupError(
                f"{key}.{name}: {value!r} is a group of {len(known[value])}, and a list is wanted; write [{value}]"
            )
        if not isinstance(value, list | dict) or not any(isinstance(item, str) and item in known for item in value):
            continue
        members = [(own, i) for i in value for own in (known.get(i, [i]) if isinstance(i, str) else [i])]
        twice = [own for own, times in Counter(str(own) for own, _ in members).items() if times > 1]
        if twice:
            raise GroupError(f"{key}.{name}: {twice[0]!r} is repeated, by itself or in a group; name it once")
        written[name] = (
            {own: value[i] for own, i in members} if isinstance(value, dict) else [own for own, _ in members]
        )
    return written


def _in_turn(key: str, entry: _Entry, index: int, schema: list[type[BaseModel]]) -> _Entry:
    """The settings of member number `index`: one value of each list where the schema wants one value."""
    own = {}
    for name, value in entry.items():
        wanted = [model.model_fields[name].annotation for model in schema if name in model.model_fields]
        inner = [model for annotation in wanted for model in _models_in(annotation)]
        if isinstance(value, list) and wanted and not any(_is_list(annotation) for annotation in wanted):
            value = _pick(f"{key}.{name}", value, index)
        elif isinstance(value, dict) and inner:
            value = _in_turn(f"{key}.{name}", value, index, [m for m in inner if _is_meant(m, value, index)] or inner)
        own[name] = value
    return own


def _pick(key: str, value: Any, index: int) -> Any:
    if value == []:
        raise GroupError(f"{key}: is an empty list; give values for the members to take in turn")
    return value[index % len(value)] if isinstance(value, list) else value


def _parts(annotation: Any) -> list[Any]:
    """Members of a union, or the annotation itself."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for member in get_args(annotation) for part in _parts(member)]
    return [annotation]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    return [part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]


def _is_list(annotation: Any) -> bool:
    return any(part is Any or (get_origin(part) or part) in (list, tuple) for part in _parts(annotation))


def _is_meant(model: type[BaseModel], value: _Entry, index: int) -> bool:
    """Whether the tag in `value` (`source: phantom`) is this model's."""
    tags = {n: get_args(f.annotation) for n, f in model.model_fields.items() if get_origin(f.annotation) is Literal}
    return all(len(tag) > 1 or _pick(name, value.get(name), index) in tag for name, tag in tags.items())
