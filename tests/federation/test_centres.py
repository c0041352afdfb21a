"""Lanes, order, faults and timeouts, over the in-process grid with invented jobs."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from federation.flower.in_process import InProcessGrid
from federation.wire.errors import StudyError
from federation.wire.grid_centres import GridCentres, assign_lanes
from federation.wire.job import Job, Reply


def echo_app(log=None):
    app = ClientApp()

    @app.query()
    def handle(message, context):
        job = Job.from_record(message.content)
        if log is not None:
            log.append((job.unit, context.node_id))
        if job.body.get("fail"):
            return Message(Reply.error(job, "diverged", step=3).to_record(), reply_to=message)
        if job.body.get("raise"):
            raise RuntimeError("patient 4711")
        return Message(Reply(job.study, job.unit, job.centre, job.kind, body=job.body).to_record(), reply_to=message)

    return app


def a_job(unit, centre="A", **body):
    return Job("s", unit, centre, "learn", body)


def centres_over(app, nodes=2, centres=("A", "B"), **options):
    grid_options = {k: options.pop(k) for k in ("fault", "on_message") if k in options}
    return centres_on(InProcessGrid(app, nodes, {}, **grid_options), centres, **options)


def centres_on(grid, centres=("A", "B"), **options):
    return GridCentres(grid, assign_lanes(centres, list(grid.get_node_ids())), **options)


@pytest.fixture(autouse=True)
def _no_real_time(clock):
    """Polls and back-offs take no time of the machine's."""


@given(n_centres=st.integers(1, 6), n_nodes=st.integers(1, 12))
def test_every_centre_has_a_lane_and_every_node_is_used(n_centres, n_nodes):
    names = [f"c{i}" for i in range(n_centres)]
    lanes = assign_lanes(names, list(range(100, 100 + n_nodes)))
    assert all(lanes[c] for c in names)
    assert {n for nodes in lanes.values() for n in nodes} == set(range(100, 100 + n_nodes))
    if n_nodes >= n_centres:
        firsts = [lanes[c][0] for c in names]
        assert len(set(firsts)) == n_centres  # each has a node of its own
        for i, c in enumerate(names):
            assert not set(lanes[c]) & (set(firsts) - {firsts[i]})  # and none plays on another's


def test_gather_orders_by_job_not_by_arrival():
    class LastFirst(InProcessGrid):
        arrived = []

        def pull_messages(self, message_ids):
            replies = super().pull_messages(list(message_ids)[::-1])
            self.arrived += [reply.metadata.group_id for reply in replies]
            return replies

    grid = LastFirst(echo_app(), 4, {})
    jobs = [a_job(f"u{i}", "AB"[i % 2], i=i) for i in range(10)]
    assert [r.body["i"] for r in centres_on(grid).gather(jobs)] == list(range(10))
    assert grid.arrived != sorted(grid.arrived)


def test_a_centre_that_fails_does_not_stop_the_others():
    replies = centres_over(echo_app()).gather([a_job("u1"), a_job("u2", "B", fail=True), a_job("u3", "B")])
    assert [r.code for r in replies] == ["ok", "diverged", "ok"]
    assert replies[1].numbers == {"step": 3}


def test_an_exception_text_does_not_reach_the_caller():
    (reply,) = centres_over(echo_app(), retries=0).gather([a_job("u", **{"raise": True})])
    assert reply.code == "exception"
    assert "4711" not in repr(reply)


def test_a_lost_node_is_tried_again_and_then_given_up(clock):
    tries = []

    def fault(message):
        tries.append(1)
        return Message(Error(code=5, reason="node unavailable"), reply_to=message) if len(tries) < 3 else None

    events = []
    centres = centres_over(echo_app(), fault=fault, retries=2, on_event=lambda e, **f: events.append(e))
    (reply,) = centres.gather([a_job("u")])
    assert reply.ok and len(tries) == 3
    assert events.count("unit_retried") == 2 and 3 <= clock.now < 3.5, "after one second, and after two more"

    centres = centres_over(echo_app(), fault=lambda m: Message(Error(code=5, reason=""), reply_to=m), retries=1)
    (reply,) = centres.gather([a_job("u")])
    assert reply.code == "node_unavailable"


def test_a_dead_worker_poisons_the_simulation_and_is_fatal():
    def fault(message):
        return Message(Error(code=0, reason="<class 'ray.exceptions.ActorDiedError'>"), reply_to=message)

    with pytest.raises(StudyError, match="worker process died.*resume"):
        centres_over(echo_app(), fault=fault).gather([a_job("u")])


def test_a_reply_that_cannot_be_trusted_is_an_error_of_that_job_only():
    app = ClientApp()

    @app.query()
    def handle(message, context):
        job = Job.from_record(message.content)
        unit = "other" if job.unit == "u1" else job.unit
        return Message(Reply(job.study, unit, job.centre, job.kind).to_record(), reply_to=message)

    assert [r.code for r in centres_over(app).gather([a_job("u1"), a_job("u2")])] == ["foreign_reply", "ok"]


class SilentGrid(InProcessGrid):
    """Never answers jobs of centre B."""

    def pull_messages(self, message_ids):
        answered = (
            [i for i in message_ids if Job.from_record(self._waiting[i].content).centre != "B"] if message_ids else []
        )
        return super().pull_messages(answered)


def test_a_job_timeout_frees_the_caller_but_not_the_node(clock):
    centres = centres_on(SilentGrid(echo_app(), 2, {}))
    (reply,) = centres.gather([Job("s", "u", "B", "learn", {}, timeout_s=30)])
    assert reply.code == "timeout" and 30 < clock.now < 31
    centres.send(a_job("v", "B"))
    assert centres.receive(30) is None  # the only lane of B is still busy with the first job


class Counting(InProcessGrid):
    """Notes how many messages were under way at once, with how many bytes, and that each was at a node of its own."""

    peak = most = 0

    def push_messages(self, messages):
        ids = super().push_messages(messages)
        waiting = list(self._waiting.values())
        assert len({m.metadata.dst_node_id for m in waiting}) == len(waiting)
        self.peak = max(self.peak, len(waiting))
        sent = [Job.from_record(m.content) for m in waiting]
        self.most = max(self.most, sum(array.nbytes for job in sent for array in job.arrays.values()))
        return ids


def peak_of(*kinds_seconds, nodes=60, workers=3, jobs=40, **fields):
    """How many messages were under way at once, of jobs of kinds that take so many seconds."""
    app = ClientApp()

    @app.query()
    def handle(message, context):
        job = Job.from_record(message.content)
        took = dict(kinds_seconds)[job.kind]
        reply = Reply(job.study, job.unit, job.centre, job.kind, started=1e9, finished=1e9 + took)
        return Message(reply.to_record(), reply_to=message)

    grid = Counting(app, nodes, {})
    kinds = [kind for kind, _ in kinds_seconds for _ in range(jobs)]
    sent = [Job("s", f"u{i}", "AB"[i % 2], kind, {}, **fields) for i, kind in enumerate(kinds)]
    assert all(r.ok for r in centres_on(grid, workers=workers).gather(sent))
    return grid


def test_at_most_one_message_a_node():
    assert peak_of(("short", 0.0), nodes=6).peak == 6


def test_long_jobs_are_sent_when_a_worker_is_free():
    assert peak_of(("long", 30.0)).peak == 3


def test_short_jobs_are_sent_ahead_for_as_long_as_the_pauses_of_flower_and_no_longer():
    assert peak_of(("short", 0.001)).peak == 3 + 32, "there is a limit to the number"
    assert peak_of(("some", 0.25)).peak == 3 + 6, "half a second of work for each of three workers"


def learns_from(first, then, **options):
    """The most messages under way once `first`, a (job, code, seconds), is answered and ten jobs like `then` follow."""
    job, code, seconds = first
    app = ClientApp()

    @app.query()
    def handle(message, context):
        asked = Job.from_record(message.content)
        took = seconds if asked.unit == job.unit else 0.001
        reply = Reply(asked.study, asked.unit, asked.centre, asked.kind, code, started=1e9, finished=1e9 + took)
        return Message(reply.to_record(), reply_to=message)

    grid = Counting(app, 60, {}, **options)
    centres = centres_on(grid, workers=1)
    centres.gather([job])
    for i in range(10):
        centres.send(replace(then, unit=f"v{i}"))
    return grid.peak


def test_only_work_of_the_same_sort_that_was_done_tells_how_long_the_next_takes():
    job = replace(a_job("u", generator={"training": {"steps": 20}}), strategy="one_shot")
    assert learns_from((job, "ok", 0.001), job) == 10
    assert learns_from((job, "diverged", 0.0), job) == 1, "a refusal takes no time"
    for other in (
        replace(job, kind="test"), replace(job, strategy="md_gan"), replace(job, body={"generator": {"training": {"steps": 2000}}}),
    ):  # fmt: skip
        assert learns_from((job, "ok", 0.001), other) == 1
    lost = []

    def once(message):
        lost.append(1)
        return Message(Error(code=5, reason=""), reply_to=message) if len(lost) == 1 else None

    assert learns_from((job, "ok", 0.0), job, fault=once) == 1, "sent again, it may be answered from what was kept"


def test_one_quick_job_among_long_ones_does_not_open_the_window():
    app, took = ClientApp(), iter([30.0, 0.001])

    @app.query()
    def handle(message, context):
        job = Job.from_record(message.content)
        reply = Reply(job.study, job.unit, job.centre, job.kind, started=1e9, finished=1e9 + next(took))
        return Message(reply.to_record(), reply_to=message)

    grid = Counting(app, 60, {})
    centres = centres_on(grid, workers=1)
    centres.gather([a_job("u"), a_job("v")])
    for i in range(10):
        centres.send(a_job(f"w{i}"))
    assert grid.peak == 1


def test_a_job_with_a_time_limit_is_not_sent_ahead():
    assert peak_of(("short", 0.001), timeout_s=60).peak == 3, "its clock starts when it is sent"


def test_jobs_with_large_arrays_are_not_piled_up():
    grid = peak_of(("short", 0.001), jobs=12, arrays={"w": np.zeros(2**22, np.float32)})
    assert grid.peak == 4 and grid.most == 64 * 2**20


def test_a_long_job_does_not_wait_for_all_short_ones_behind_it(clock):
    order = []
    app = ClientApp()

    @app.query()
    def handle(message, context):
        job = Job.from_record(message.content)
        order.append(job.unit)
        return Message(Reply(job.study, job.unit, job.centre, job.kind).to_record(), reply_to=message)

    jobs = [Job("s", f"first{i}", "A", "short", {}) for i in range(4)]
    jobs += [Job("s", "long", "B", "long", {})] + [Job("s", f"short{i}", "A", "short", {}) for i in range(40)]
    centres_on(InProcessGrid(app, 60, {}), workers=2).gather(jobs)
    assert order.index("long") == 4


def test_two_messages_a_node_where_the_node_does_one_after_the_other():
    class Two(InProcessGrid):
        peak = 0

        def push_messages(self, messages):
            ids = super().push_messages(messages)
            Two.peak = max(Two.peak, len(self._waiting))
            return ids

    grid = Two(echo_app(), 2, {})
    centres = centres_on(grid, per_node=2)
    assert all(r.ok for r in centres.gather([a_job(f"u{i}") for i in range(8)])) and Two.peak == 2


def test_the_time_of_a_job_that_waits_at_its_node_begins_when_the_one_before_is_done(clock):
    class Slow(InProcessGrid):
        def pull_messages(self, message_ids):
            clock.sleep(10)
            return super().pull_messages(message_ids)

    centres = centres_on(Slow(echo_app(), 1, {}), ["A"], per_node=4)
    jobs = [Job("s", f"u{i}", "A", "learn", {}, timeout_s=25) for i in range(4)]
    assert [r.code for r in centres.gather(jobs)] == ["ok"] * 4


def test_jobs_on_a_centres_state_run_one_after_the_other():
    class Overlap(InProcessGrid):
        def push_messages(self, messages):
            ids = super().push_messages(messages)
            stateful = [
                j
                for j in map(lambda m: Job.from_record(m.content), self._waiting.values())
                if j.expects_state is not None
            ]
            assert len(stateful) <= 1
            return ids

    grid = Overlap(echo_app(), 5, {})
    centres = centres_on(grid, ["A"])
    jobs = [Job("s", f"u{i}", "A", "learn", {}, expects_state=i) for i in range(4)]
    assert all(r.ok for r in centres.gather(jobs))


def test_unknown_centre_is_named():
    with pytest.raises(ValueError, match="no centre 'Z'; centres: A, B"):
        centres_over(echo_app()).send(a_job("u", "Z"))


def test_receive_returns_none_at_once_when_nothing_is_under_way(clock):
    assert centres_over(echo_app()).receive() is None
    assert clock.now == 0


def test_a_cancelled_job_is_not_received_even_if_its_reply_is_here():
    class AllAtOnce(InProcessGrid):
        """As Ray's workers do: several replies in one poll."""

        def pull_messages(self, message_ids):
            return [
                reply
                for message_id in list(message_ids)
                for reply in super(AllAtOnce, self).pull_messages([message_id])
            ]

    grid = AllAtOnce(echo_app(), 2, {})
    centres = centres_on(grid)
    for unit, centre in (("u", "A"), ("v", "B")):
        centres.send(a_job(unit, centre))
    assert centres.receive().unit == "u"
    centres.cancel(["v"])
    assert centres.receive() is None
