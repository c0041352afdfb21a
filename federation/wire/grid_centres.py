"""The centres behind a Flower `Grid`: which node does which job, retries, timeouts, and nodes that are lost and come back.

A centre maps to one or more nodes, its *lanes*. In simulation any node can play any centre: nodes beyond
one per centre are extra lanes (a receiver's cells then fill all workers), and with fewer nodes than
centres a node plays several. In a deployment each centre has one node, which may be lost and come back
under another number; see `federation.wire.roll_call`. In simulation each node has at most one message in
flight, because Flower loses state updates otherwise.

Flower's simulation looks for messages only every 0.1 s, and asks for each node one after the other. So short jobs are sent ahead:
a few wait at Flower, and a worker that finishes one goes on with the next at once. And a simulation has as many nodes as messages
may be under way (`nodes_for`), not one for each of a thousand centres.

Flower itself never sends a message again.

Longer than most files, because it is one class: a queue of jobs, and everything that can happen to one.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from federation.wire.centres import Centres
from federation.wire.durations import Durations
from federation.wire.errors import EnvelopeError, StudyError
from federation.wire.job import MESSAGE_TYPE, Job, Reply

# Flower's codes (flwr ErrorCode) for a lost node or process, after which the job is sent again.
NODE_UNAVAILABLE = 5
_REPLY_LOST, _CLIENT_DIED, _UNKNOWN = 3, 8, 0
_TRANSPORT = {
    NODE_UNAVAILABLE: "node_unavailable",
    _REPLY_LOST: "node_unavailable",  # the node was lost while it handed over its reply
    _CLIENT_DIED: "client_died",
    _UNKNOWN: "client_died",
}
# Seconds before the first retry, doubled before each further one; and between two looks for a lost node.
_BACK_OFF_S = 1.0
_LOOK_S = 1.0
# Of jobs that are sent ahead: seconds of work that may wait for each worker (Flower's pause and ours, several times), how many
# they are at most, and the bytes of all that is under way. More would bring nothing, and what is cancelled there is computed.
_AHEAD_S = 0.5
_AHEAD = 32
_AHEAD_BYTES = 64 * 2**20

OnEvent = Callable[..., None]


@dataclass
class _InFlight:
    job: Job
    node: int
    pushed: float
    deadline: float | None
    attempt: int
    dropped: bool = False
    timed_out: bool = False


class GridCentres(Centres):
    """Centres behind a Flower `Grid` (simulation, deployment, or the in-process engine).

    Args:
        grid: Flower's grid.
        lanes: nodes that may play each centre, the centre's own node first.
        workers: in simulation, how many jobs are done at once; beyond them only short jobs are sent ahead. By default every
            node works at once.
        per_node: messages under way at once to one node; in simulation it must be 1. A deployed node does one job after
            the other, but a node that finds no message waiting pauses for three seconds before it asks again.
        ttl_s: time to live of a message; Flower's default of 12 h would hide a dead node.
        retries: how often a job is sent again after its node or process was lost.
        poll_s: seconds between polls.
        relocate: in a deployment: the nodes of each centre that are online now. Work of a centre whose node was lost
            waits until one is back.
        patience_s: how long it waits; then the jobs queued for the centre fail, and later ones fail at once unless its
            node is back.
        on_event: called with ("unit_started" | "unit_retried" | "note", **fields) as jobs leave and nodes come and go.
    """

    def __init__(
        self,
        grid: Grid,
        lanes: Mapping[str, Sequence[int]],
        *,
        workers: int = 1_000_000,
        per_node: int = 1,
        ttl_s: float = 24 * 3600.0,
        retries: int = 2,
        poll_s: float = 0.05,
        simulated: bool = True,
        relocate: Callable[[], Mapping[str, Sequence[int]]] | None = None,
        patience_s: float = 60.0,
        on_event: OnEvent = lambda event, **fields: None,
    ):
        self.names = list(lanes)
        self._grid = grid
        self._lanes = {centre: list(nodes) for centre, nodes in lanes.items()}
        self._workers = workers
        self._durations = Durations()
        self._per_node = per_node
        self._ttl_s = ttl_s
        self._retries = retries
        self._poll_s = poll_s
        self._simulated = simulated
        self._relocate = relocate
        self._patience_s = patience_s
        self._away: dict[str, float] = {}  # centres without a node: when waiting for it ends (monotonic)
        self._next_look = 0.0
        self._on_event = on_event
        self._queue: deque[tuple[Job, int, float]] = deque()  # job, attempt, not before (monotonic)
        self._in_flight: dict[str, _InFlight] = {}  # by message id
        self._ready: deque[Reply] = deque()

    def send(self, job: Job) -> None:
        if job.centre not in self._lanes:
            raise ValueError(f"no centre {job.centre!r}; centres: {', '.join(self.names)}")
        self._queue.append((job, 0, 0.0))
        self._dispatch()

    def receive(self, timeout_s: float | None = None) -> Reply | None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._ready:
            if not self._queue and not any(not f.dropped for f in self._in_flight.values()):
                return None
            self._collect()
            self._look_for_lost()
            self._dispatch()
            if self._ready:
                break
            if deadline is not None and time.monotonic() >= deadline:
                return None
            time.sleep(self._poll_s)
        return self._ready.popleft()

    def cancel(self, units: Iterable[str]) -> None:
        dropped = set(units)
        self._queue = deque(item for item in self._queue if item[0].unit not in dropped)
        for flight in self._in_flight.values():
            flight.dropped |= flight.job.unit in dropped
        self._ready = deque(reply for reply in self._ready if reply.unit not in dropped)

    def _dispatch(self) -> None:
        if not self._queue or not self._room_for(self._queue[0][0]):
            return
        busy = Counter(flight.node for flight in self._in_flight.values())
        stateful = {_state_of(flight.job) for flight in self._in_flight.values()} - {None}
        waiting: deque[tuple[Job, int, float]] = deque()
        now = time.monotonic()
        # In their order: a long job must not wait for the end of all short ones that came after it.
        while self._queue and self._room_for(self._queue[0][0]):
            job, attempt, not_before = self._queue.popleft()
            lanes = self._lanes[job.centre] if job.centre not in self._away else []
            node = next((n for n in lanes if busy[n] < self._per_node), None)
            # Jobs that build on the same state of a centre run one after the other, whatever the number of lanes.
            blocked = _state_of(job) in stateful
            if node is None or blocked or now < not_before:
                waiting.append((job, attempt, not_before))
                continue
            busy[node] += 1
            if (state := _state_of(job)) is not None:
                stateful.add(state)
            self._push(job, node, attempt)
        self._queue.extendleft(reversed(waiting))

    def _room_for(self, job: Job) -> bool:
        """Whether a worker is free for a job, or it is short enough to wait for one at Flower."""
        ahead = len(self._in_flight) - self._workers + 1
        if ahead <= 0:
            return True
        # The clock of a job with a time limit starts when it is sent.
        took = self._durations.longest(job) if job.timeout_s is None else None
        if ahead > _AHEAD or took is None or ahead * took > self._workers * _AHEAD_S:
            return False
        return sum(_bytes_of(one) for one in (job, *(f.job for f in self._in_flight.values()))) <= _AHEAD_BYTES

    def _push(self, job: Job, node: int, attempt: int) -> None:
        message = Message(job.to_record(), node, MESSAGE_TYPE, ttl=self._ttl_s, group_id=job.unit)
        (message_id,) = list(self._grid.push_messages([message])) or [""]
        if not message_id:
            self._lost(_InFlight(job, node, time.time(), None, attempt), NODE_UNAVAILABLE, "push refused")
            return
        deadline = None if job.timeout_s is None else time.monotonic() + job.timeout_s
        self._in_flight[message_id] = _InFlight(job, node, time.time(), deadline, attempt)
        self._on_event("unit_started", unit=job.unit, kind=job.kind, centre=job.centre, label=job.label)

    def _collect(self) -> None:
        if not self._in_flight:
            return
        for message in self._grid.pull_messages(list(self._in_flight)):
            message_id = message.metadata.reply_to_message_id
            flight = self._in_flight.pop(message_id, None)
            if flight is None:
                continue
            self._restart_clocks(flight.node)
            if flight.dropped or flight.timed_out:
                continue  # a late reply: the job was given up; the lane is free again
            if message.has_error():
                self._lost(flight, message.error.code, message.error.reason or "")
            else:
                reply = self._accept(flight, message)
                if reply.ok and not flight.attempt:  # sent again, it may be answered from what its centre kept
                    self._durations.add(flight.job, reply.finished - reply.started)
                self._ready.append(reply)
        now = time.monotonic()
        for flight in self._in_flight.values():
            if flight.deadline is not None and now > flight.deadline and not (flight.timed_out or flight.dropped):
                # The node stays busy until its reply comes or its message expires.
                flight.timed_out = True
                self._ready.append(Reply.error(flight.job, "timeout", timeout_s=flight.job.timeout_s))

    def _restart_clocks(self, node: int) -> None:
        """A job that waited at its node behind another begins only now."""
        for flight in self._in_flight.values():
            if flight.node == node and flight.job.timeout_s is not None:
                flight.deadline = time.monotonic() + flight.job.timeout_s

    def _accept(self, flight: _InFlight, message: Message) -> Reply:
        try:
            return Reply.from_record(message.content, flight.job)
        except EnvelopeError as problem:
            return replace(
                Reply.error(flight.job, problem.code, **problem.numbers), started=flight.pushed, finished=time.time()
            )

    def _lost(self, flight: _InFlight, code: int, reason: str) -> None:
        job = flight.job
        if self._simulated and ("ActorDied" in reason or "ActorUnavailable" in reason or "WorkerCrashed" in reason):
            # A dead actor blocks Flower's pool: later jobs would wait for ever.
            raise StudyError(
                f"a worker process died while centre {job.centre!r} worked on {job.label or job.kind} (out of memory, "
                "or killed); finished work is kept: resume the run, if need be with fewer compute.workers"
            )
        if code == NODE_UNAVAILABLE and self._relocate is not None and job.centre not in self._away:
            self._away[job.centre] = time.monotonic() + self._patience_s
            text = f"its node was lost; waiting up to {self._patience_s:.0f} s for it"
            self._on_event("note", centre=job.centre, text=text, node="lost")
        if code in _TRANSPORT and flight.attempt < self._retries:
            self._on_event("unit_retried", unit=job.unit, kind=job.kind, centre=job.centre, label=job.label, code=code)
            self._queue.append((job, flight.attempt + 1, time.monotonic() + _BACK_OFF_S * 2**flight.attempt))
            return
        self._ready.append(Reply.error(job, _TRANSPORT.get(code, "exception"), reference=f"flower-{code}"))

    def _look_for_lost(self) -> None:
        """Take a lost node back when it is online again, or give up the jobs that wait for it."""
        if not self._away or self._relocate is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_S
        found = self._relocate()
        for centre, until in list(self._away.items()):
            if found.get(centre):
                self._lanes[centre] = list(found[centre])
                del self._away[centre]
                self._on_event("note", centre=centre, text="its node is back", node="back")
            elif time.monotonic() > until:
                given_up = [job for job, _, _ in self._queue if job.centre == centre]
                self._queue = deque(item for item in self._queue if item[0].centre != centre)
                self._ready.extend(Reply.error(job, _TRANSPORT[NODE_UNAVAILABLE]) for job in given_up)


def _state_of(job: Job) -> tuple[str, str] | None:
    """Which local state a job builds on: (centre, federation)."""
    return None if job.expects_state is None else (job.centre, str(job.body.get("federation", "")))


def _bytes_of(job: Job) -> int:
    return sum(array.nbytes for array in job.arrays.values())


def nodes_for(workers: int) -> int:
    """How many nodes a simulation needs: one for every message that may be under way."""
    return workers + _AHEAD


def assign_lanes(centres: Sequence[str], nodes: Sequence[int]) -> dict[str, list[int]]:
    """Lanes in simulation: node i plays centre i, and nodes beyond the centres play any centre.

    With fewer nodes than centres every node plays every centre, and each centre prefers its own.
    """
    if not nodes:
        raise StudyError("Flower started no nodes; see the log of its SuperLink")
    ordered = sorted(nodes)
    if len(ordered) < len(centres):
        return {c: [*ordered[i % len(ordered) :], *ordered[: i % len(ordered)]] for i, c in enumerate(centres)}
    spare = ordered[len(centres) :]
    return {centre: [ordered[i], *spare] for i, centre in enumerate(centres)}


def wait_for_nodes(grid: Grid, timeout_s: float) -> list[int]:
    """Ids of a simulation's nodes. Flower registers them one after the other, in milliseconds, while this process starts."""
    deadline = time.monotonic() + timeout_s
    nodes: list[Any] = []
    while time.monotonic() < deadline:
        before, nodes = nodes, list(grid.get_node_ids())
        if nodes and len(nodes) == len(before):
            break
        time.sleep(0.1)
    return sorted(nodes)
