"""The plug-ins of a study, compared with what is installed at a centre and with what its `centre.yaml` lists.

Nothing of a plug-in is imported for it. Their code never travels: each side runs what is installed there.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from basics.plugins import Gate, Identity, Plugin, canonical, gate, installed, only
from clients.centre_file import CentreFile
from clients.node import Node, Refusal
from federation.wire.errors import EnvelopeError
from federation.wire.job import Job

# Plug-ins that a job may name; each is compared file by file.
_MOST = 64


def allowed_at(node: Node) -> AbstractContextManager[None]:
    """Within this, the plug-ins whose code may run at a node: those that its file lists; in a simulation whatever is installed."""
    if not node.deployed:
        return nullcontext()
    return only(node.file.allowed if node.file is not None else ())


def check(node: Node, job: Job) -> None:
    """Refuse a job of a study whose plug-ins this centre does not have and allow, exactly.

    Raises:
        Refusal: with the first of them.
        EnvelopeError: the job does not say which plug-ins it means.
    """
    here = (gate() or Gate(())) if node.deployed else None
    for wanted in named_in(job):
        try:
            compare(here, wanted)
        except Refusal as refusal:
            raise Refusal(refusal.code, **refusal.numbers, at=node.centre) from None


def named_in(job: Job) -> list[Identity]:
    """The plug-ins of a job's study.

    Raises:
        EnvelopeError: something else stands there, one of them twice, or more than a study could use.
    """
    if len(job.plugins) > _MOST:
        raise EnvelopeError("malformed", f"the envelope names {len(job.plugins)} plug-ins; at most {_MOST}")
    for one in job.plugins:
        values = (
            [one.get(key) for key in ("name", "version", "digest")] if isinstance(one, dict) and len(one) == 3 else []
        )
        if not values or not all(isinstance(value, str) and 0 < len(value) <= 128 for value in values):
            raise EnvelopeError("malformed", f"the envelope's plugins hold {one!r}"[:200])
    found = [Identity(**one) for one in job.plugins]
    if len({one.key for one in found}) < len(found):
        raise EnvelopeError("malformed", "the envelope names a plug-in twice")
    return found


def compare(here: Gate | None, wanted: Identity) -> None:
    """Whether a plug-in of a study may run at a centre.

    Args:
        here: what the centre's file lists; None in a simulation, which needs no list.

    Raises:
        Refusal: "plugin_missing", "plugin_not_listed", "plugin_altered" (not the files that are listed), or "plugin_differs"
            (not the plug-in of the study).
    """
    plugin = next((one for one in installed() if canonical(one.name) == wanted.key), None)
    if here is not None and not here.lists(wanted.key):
        raise Refusal("plugin_not_listed", plugin=wanted.name, version=wanted.version)
    if plugin is None:
        raise Refusal("plugin_missing", plugin=wanted.name, version=wanted.version)
    if here is not None and not here.lets_through(plugin):
        raise Refusal("plugin_altered", plugin=wanted.name)
    found = plugin.identity_by_times if here is None else here.identity(plugin)
    if (found.version, found.digest) != (wanted.version, wanted.digest):
        raise Refusal("plugin_differs", plugin=wanted.name, ours=_which(wanted), theirs=_which(found))


def _which(plugin: Identity) -> str:
    return f"version {plugin.version}, digest {plugin.digest[:16]}"


def verdicts(file: CentreFile, wanted: Iterable[Identity]) -> list[tuple[Identity, Refusal | None]]:
    """Each plug-in of a study, and why it may not run at a centre."""
    found: list[tuple[Identity, Refusal | None]] = []
    here = Gate(file.allowed)
    for one in wanted:
        try:
            compare(here, one)
            found.append((one, None))
        except Refusal as refusal:
            found.append((one, refusal))
    return found


def unlisted(file: CentreFile) -> list[Plugin]:
    """Installed plug-ins that a centre's file does not list."""
    listed: set[Any] = {one.key for one in file.allowed}
    return [plugin for plugin in installed() if canonical(plugin.name) not in listed]
