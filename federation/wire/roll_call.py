"""Which node is which centre: in a deployment Flower knows nodes by numbers, and every node is asked who it is.

A restarted node may come back under a new number (without a registered key it always does), and a dead one counts as
online until its heartbeats have failed for a minute. So the roll is called again when a node is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from basics.words import one_line
from federation.wire.errors import EnvelopeError, StudyError, explain
from federation.wire.grid_centres import NODE_UNAVAILABLE
from federation.wire.job import IDENTIFY, MESSAGE_TYPE, Job, Reply

# How long a node may take to answer, for which it starts a process; and how long a study with all its centres still waits
# for the answers of further nodes.
_ANSWER_S = 60.0
_STRAGGLERS_S = 10.0
_TTL_S = 600.0
_POLL_S = 0.25
# Flower refuses the signatures of a node whose clock is more than 5 s ahead of the SuperLink's or 305 s behind.
_CLOCK_S = 60.0
_LATEST_S = 1e11  # of clocks: seconds of 3,000 years
_VERSIONS = 16  # that a node may tell


def _short(said: object, at_most: int = 64) -> str:
    """What a node says, for a person."""
    return one_line(str(said)[:at_most])


class RollCall:
    """Asks every node that is online which centre it is, and remembers the answers.

    Args:
        grid: Flower's grid.
        centres: of the scenario.
        code: digest of the server's computing code; a node that runs other code cannot take part.
        plugins: those that the study uses; a node that does not have and allow them cannot take part.
        on_note: called with a sentence about a node that cannot take part, or whose clock is off.
        on_node: called with what a node says about itself: centre, code, versions, clock_off_s (positive: ahead of the server).
    """

    def __init__(
        self,
        grid: Grid,
        centres: Sequence[str],
        *,
        code: str,
        plugins: Sequence[Mapping[str, str]] = (),
        on_note: Callable[[str], None] = lambda text: None,
        on_node: Callable[..., None] = lambda **what: None,
    ):
        self._grid = grid
        self._centres = list(centres)
        self._code, self._on_note, self._on_node = code, on_note, on_node
        self._plugins = [dict(one) for one in plugins]
        self._asked: dict[str, tuple[int, Job, float]] = {}  # by message id; the last: when it was asked
        self._centre_of: dict[int, str | None] = {}  # in the order of the answers; None: cannot take part
        self._problems: list[str] = []
        self._unable: set[str] = set()  # centres whose node says that it cannot take part

    def lanes(self) -> dict[str, list[int]]:
        """The nodes of each centre that are online, starting with the one that answered last. Does not wait for answers."""
        online = set(self._grid.get_node_ids())
        self._ask(online - set(self._centre_of) - {node for node, *_ in self._asked.values()})
        self._listen()
        nodes = [node for node in reversed(self._centre_of) if node in online]
        return {centre: [node for node in nodes if self._centre_of[node] == centre] for centre in self._centres}

    def wait(self, timeout_s: float) -> dict[str, list[int]]:
        """The one node of each centre.

        Args:
            timeout_s: how long nodes may take to come online; those that are have time to answer.

        Raises:
            StudyError: when time is up a centre has no node, or its node cannot take part; or two nodes say that they are
                the same centre.
        """
        began = time.monotonic()
        complete: float | None = None
        while True:
            lanes = self.lanes()
            now = time.monotonic()
            absent = [centre for centre, nodes in lanes.items() if not nodes]
            complete = None if absent else complete or now
            if complete is not None and (not self._asked or now - complete > _STRAGGLERS_S):
                break
            if absent and self._unable.issuperset(absent) and not self._asked:
                raise StudyError(f"{'; '.join(self._problems)}; correct this, restart the SuperNode, then resume")
            if absent and now - began > timeout_s + (_ANSWER_S if self._asked else 0.0):
                raise StudyError(
                    f"no node of {', '.join(absent)} came within {timeout_s:.0f} s (online: "
                    f"{', '.join(c for c in lanes if c not in absent) or 'none'}); start the SuperNode of each centre, then resume"
                    + "".join(f"; {problem}" for problem in self._problems)
                )
            time.sleep(_POLL_S)
        for centre, nodes in lanes.items():
            if len(nodes) > 1:
                raise StudyError(
                    f"nodes {' and '.join(map(str, nodes))} both say that they are centre {centre!r}; "
                    "stop one, or correct its node configuration", 2,
                )  # fmt: skip
        return lanes

    def _ask(self, nodes: set[int]) -> None:
        for node in sorted(nodes):
            job = Job(
                "roll-call", f"node-{node}", "unknown", IDENTIFY, {}, label="the roll call", plugins=self._plugins
            )
            message = Message(job.to_record(), node, MESSAGE_TYPE, ttl=_TTL_S)
            (message_id,) = list(self._grid.push_messages([message])) or [""]
            if message_id:
                self._asked[message_id] = (node, job, time.time())

    def _listen(self) -> None:
        for message in self._grid.pull_messages(list(self._asked)) if self._asked else []:
            found = self._asked.pop(message.metadata.reply_to_message_id, None)
            if found is None:
                continue
            node, job, asked = found
            if message.has_error() and message.error.code == NODE_UNAVAILABLE:
                continue  # it went offline before it answered; it is asked again when it is back
            centre, problem = self._read(node, job, message, asked)
            self._centre_of[node] = centre
            if problem:
                self._problems.append(problem)
                self._on_note(problem)

    def _read(self, node: int, job: Job, message: Message, asked: float) -> tuple[str | None, str]:
        """(centre, why it cannot take part); one of the two is empty."""
        if message.has_error():
            return None, f"node {node} could not run this project's code (Flower's error {message.error.code})"
        try:
            reply = Reply.from_record(message.content, job)
        except EnvelopeError as problem:
            reply = Reply.error(job, problem.code, **problem.numbers)
        if not reply.ok:
            at = ""
            if "at" in reply.numbers:
                there = one_line(reply.numbers["at"], 64)
                self._unable.add(there)
                at = f" (centre {there!r})"
            return None, explain(f"{node}", reply.code, job.label, reply.numbers, subject="node") + at
        centre = _short(reply.body.get("centre"))
        if centre not in self._centres:
            return None, f"node {node} is centre {centre!r}, which this scenario does not have"
        theirs = _short(reply.body.get("code"))
        if theirs != self._code:
            self._unable.add(centre)
            return None, (
                f"node {node} (centre {centre!r}) runs other code (digest {theirs}) than the server (digest {self._code}); update "
                "the older of the two installations to the other's version"
            )
        off_s = self._compare_clocks(centre, reply.body.get("clock"), asked)
        said = reply.body.get("versions")
        some = list(said.items())[:_VERSIONS] if isinstance(said, dict) else []
        versions = {_short(name, 32): _short(version, 32) for name, version in some}
        self._on_node(centre=centre, code=theirs, versions=versions, clock_off_s=off_s)
        return centre, ""

    def _compare_clocks(self, centre: str, clock: Any, asked: float) -> float | None:
        """By how many seconds a clock lies outside the time between question and answer; a large difference is noted."""
        if type(clock) not in (int, float) or not 0 <= clock <= _LATEST_S:
            return None
        behind, ahead = asked - clock, clock - time.time()
        if max(behind, ahead) > _CLOCK_S:
            off = f"{behind:.0f} s behind" if behind > 0 else f"{ahead:.0f} s ahead of"
            self._on_note(
                f"the clock of centre {centre!r} is {off} the server's; Flower refuses a node 5 s ahead of the "
                "SuperLink or 305 s behind it: set it (NTP)"
            )
        return round(ahead if ahead > 0 else min(0.0, -behind), 1)
