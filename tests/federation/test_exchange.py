"""The driver of exchanges: whose reply resumes whom, what is done once, what is given up, and that order does not matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire.exchange import Step, gather, run_together


def units_of(replies):
    return [reply.unit for reply in replies]


@given(order=st.permutations(range(6)))
def test_gather_answers_in_the_order_of_its_jobs_whatever_comes_first(order, scripted, a_job):
    jobs = [a_job(f"u{i}", "AB"[i % 2]) for i in range(6)]
    centres = scripted(rank=lambda job: order[int(job.unit[1:])])
    done = run_together(centres, {"b": gather(jobs[3:]), "a": gather(jobs[:3])})
    assert list(done) == ["b", "a"]
    assert units_of(done["a"]) == ["u0", "u1", "u2"] and units_of(done["b"]) == ["u3", "u4", "u5"]


@given(order=st.permutations(range(4)))
def test_an_exchange_decides_from_its_own_replies_only(order, scripted, a_job):
    """A chain beside another exchange: what it sends does not depend on whose reply came first."""

    def chain(name, length):
        heard = []
        for number in range(length):
            heard += yield from gather([a_job(f"{name}{number}", after=units_of(heard))])
        return [reply.body["after"] for reply in heard]

    ranks = dict(zip("abcd", order, strict=True))
    done = run_together(scripted(rank=lambda job: ranks[job.unit[0]]), {name: chain(name, 3) for name in "abcd"})
    for name in "abcd":
        assert done[name] == [[], [f"{name}0"], [f"{name}0", f"{name}1"]]


def test_a_job_of_two_exchanges_is_done_once_and_answers_both(scripted, a_job):
    centres = scripted()
    done = run_together(centres, {1: gather([a_job("shared"), a_job("x")]), 2: gather([a_job("shared")])})
    assert centres.sent == {"shared": 1, "x": 1}
    assert units_of(done[1]) == ["shared", "x"] and units_of(done[2]) == ["shared"]


def test_a_shared_job_goes_on_when_one_of_its_exchanges_gives_it_up(scripted, a_job):
    def gives_up():
        yield Step([a_job("shared")])
        yield Step(cancel=["shared"])
        return "given up"

    centres = scripted()
    done = run_together(centres, {1: gather([a_job("shared")]), 2: gives_up()})
    assert units_of(done[1]) == ["shared"] and done[2] == "given up"
    assert centres.cancelled == []


def test_a_job_that_nobody_wants_any_more_is_cancelled(scripted, a_job):
    def gives_up():
        yield Step([a_job("u"), a_job("v")])
        reply = yield Step(cancel=["u"], wait_for=frozenset({"v"}))
        return reply.unit

    centres = scripted()
    assert run_together(centres, {1: gives_up()}) == {1: "v"}
    assert centres.cancelled == ["u"]


def test_an_exchange_that_ends_wants_no_further_reply(scripted, a_job):
    """Its jobs would keep workers from the others."""

    def ends_early():
        yield Step([a_job("unwanted"), a_job("shared")])
        return "ended"

    centres = scripted(rank=lambda job: job.unit != "unwanted")
    done = run_together(centres, {2: gather([a_job("shared"), a_job("own")]), 1: ends_early()})
    assert done[1] == "ended" and units_of(done[2]) == ["shared", "own"]
    assert centres.cancelled == ["unwanted"]


def test_a_reply_that_comes_before_it_is_waited_for_is_kept(scripted, a_job):
    def late_to_ask():
        yield Step([a_job("early"), a_job("late")])
        late = yield Step(wait_for=frozenset({"late"}))
        early = yield Step(wait_for=frozenset({"early"}))
        return [late.unit, early.unit]

    centres = scripted(rank=lambda job: job.unit == "late")
    assert run_together(centres, {1: late_to_ask()}) == {1: ["late", "early"]}


def test_time_that_is_up_resumes_with_none_and_leaves_the_others_alone(scripted, a_job, clock):
    def impatient():
        nothing = yield Step([a_job("silent", "B")], frozenset({"silent"}), timeout_s=30)
        reply = yield Step([a_job("other")], frozenset({"other"}), timeout_s=60)
        return nothing, reply.unit

    centres = scripted(never=["silent"], sleep=clock.sleep)
    done = run_together(centres, {1: impatient(), 2: gather([a_job("u")])})
    assert done[1] == (None, "other") and units_of(done[2]) == ["u"]
    assert clock.now == 30


def test_an_exchange_that_raises_closes_the_others_and_cancels_what_is_under_way(scripted, a_job):
    closed = []

    def fails():
        yield Step([a_job("a")], frozenset({"a"}))
        raise RuntimeError("broken")

    def waits():
        try:
            yield Step([a_job("b")], frozenset({"b"}))
        finally:
            closed.append("b")

    centres = scripted(rank=lambda job: job.unit)
    with pytest.raises(RuntimeError, match="broken"):
        run_together(centres, {1: waits(), 2: fails()})
    assert closed == ["b"] and centres.cancelled == ["b"]


@given(at_once=st.integers(1, 5))
def test_no_more_than_so_many_have_begun_and_not_ended(at_once, scripted, a_job):
    running, peaks = set(), []

    def one(number):
        running.add(number)
        peaks.append(len(running))
        yield from gather([a_job(f"{number}-0")])
        yield from gather([a_job(f"{number}-1")])
        running.remove(number)
        return number

    done = run_together(scripted(), {n: one(n) for n in range(5)}, at_once=at_once)
    assert list(done.values()) == list(range(5))
    assert max(peaks) == at_once


def test_an_exchange_that_asks_for_nothing_ends_at_once(scripted):
    assert run_together(scripted(), {"x": gather([])}) == {"x": []}


def test_a_wait_for_what_was_never_sent_is_an_error_of_ours(scripted):
    def waits_for_nothing():
        yield Step(wait_for=frozenset({"never sent"}))

    with pytest.raises(AssertionError, match="nothing is under way"):
        run_together(scripted(), {1: waits_for_nothing()})
