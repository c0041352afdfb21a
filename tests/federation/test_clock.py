"""Simulated time: closed forms of a job's fate, an order that no worker can change, and what a restart goes on with."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire.availability import Availability, fate
from federation.wire.clock import VirtualClock
from federation.wire.exchange import run_together
from federation.wire.real_clock import RealClock

NOTICE = 7.0


def fate_of(centre, sent_s=0.0, work_s=10.0, transfer_s=0.0, seed=0):
    return fate(centre, sent_s, work_s, transfer_s, NOTICE, np.random.default_rng(seed))


# -- the fate of one job -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "started", "finished", "lost"),
    [
        (Availability(), 100, 110, ""),
        (Availability(speed=4), 100, 102.5, ""),
        (Availability(delay_s=3), 103, 116, ""),
        (Availability(outages=((0, 50),)), 100, 110, ""),
        (Availability(outages=((110, 200),)), 100, 110, ""),
        (Availability(outages=((50, 130),)), 130, 140, ""),  # a job sent to a centre that is out waits for it
        (Availability(outages=((104, 200),)), 100, 104 + NOTICE, "outage"),  # cut off; noticed some time later
        (Availability(outages=((50, 130), (135, 140))), 130, 135 + NOTICE, "outage"),
        (Availability(outages=((50, 130), (130, 150))), 150, 160, ""),
        (Availability(outages=((50, 130), (90, 150))), 150, 160, ""),
        (Availability(outages=((90, math.inf),)), 100, 100 + NOTICE, "outage"),
        (Availability(outages=((50, 130), (120, math.inf))), 100, 100 + NOTICE, "outage"),
        (Availability(delay_s=20, outages=((110, 115),)), 120, 150, ""),  # it was out while the job travelled
    ],
)
def test_a_job_sent_at_100_s_with_10_s_of_work(centre, started, finished, lost):
    found = fate_of(centre, 100.0)
    assert (found.sent_s, found.started_s, found.finished_s, found.lost) == (100, started, finished, lost)


def test_transfers_take_half_their_time_each_way():
    found = fate_of(Availability(speed=2), transfer_s=6)
    assert (found.started_s, found.finished_s) == (3, 3 + 5 + 3)


@given(dropout=st.sampled_from([0.0, 0.3, 0.9]))
def test_the_share_of_lost_jobs_is_the_probability_of_dropout(dropout):
    lost = [fate_of(Availability(dropout=dropout), seed=seed).lost == "lost" for seed in range(1500)]
    # Five standard deviations.
    assert abs(np.mean(lost) - dropout) <= 5 * math.sqrt(dropout * (1 - dropout) / len(lost))


def test_a_dropout_happens_anywhere_within_the_job():
    noticed = [
        found.finished_s - NOTICE
        for seed in range(800)
        if (found := fate_of(Availability(dropout=0.5), seed=seed)).lost
    ]
    assert min(noticed) >= 0 and max(noticed) <= 10
    assert np.histogram(noticed, bins=4, range=(0, 10))[0].min() > 60


outages = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), max_size=4).map(
    lambda pairs: tuple((float(start), float(start + length)) for start, length in pairs)
)


@given(
    outages=outages, sent_s=st.integers(0, 60), work_s=st.integers(0, 30), delay_s=st.integers(0, 9),
    speed=st.sampled_from([0.5, 1.0, 2.0]), transfer_s=st.sampled_from([0.0, 4.0]),
)  # fmt: skip
def test_no_work_is_done_in_an_outage_and_time_runs_forward(outages, sent_s, work_s, delay_s, speed, transfer_s):
    centre = Availability(speed, delay_s, None, 0.0, outages)
    found = fate_of(centre, sent_s, work_s, transfer_s)
    assert sent_s <= found.started_s <= found.finished_s
    assert centre.back_s(found.started_s) == found.started_s
    if not found.lost:
        done = found.started_s + work_s / speed
        assert found.finished_s == done + delay_s + transfer_s / 2
        assert not any(found.started_s <= start < done for start, _ in outages)


def test_gone_for_good_is_noticed_through_other_outages():
    centre = Availability(outages=((5, 20), (10, math.inf)))
    assert [centre.gone_from(at_s) for at_s in (0, 7, 12, 30)] == [False, True, True, True]


# -- the order of many ---------------------------------------------------------------------------------------

CENTRES = {
    "A": Availability(speed=2, delay_s=1),
    "B": Availability(dropout=0.4),
    "C": Availability(outages=((12, 30),)),
}


def a_clock(seed=1):
    return VirtualClock(CENTRES, seed=seed, purpose="p", notice_s=5)


def asynchronous(clock, a_job, jobs=4, chains=None):
    """Every centre has one job at a time; what arrived, as the sender sees it."""
    seen = []
    number = dict.fromkeys(CENTRES, 0)

    def send(centre):
        number[centre] += 1
        clock.send(a_job(f"{centre}{number[centre]}", centre), work_s=8, tag=number[centre])

    for centre in CENTRES:
        send(centre)
    while clock.outstanding:
        arrival = yield from clock.next()
        seen.append((arrival.unit, arrival.reply is not None, clock.now, arrival.tag))
        if number[arrival.centre] < jobs:
            send(arrival.centre)
    return seen


@given(order=st.permutations(range(12)))
def test_arrivals_are_in_simulated_order_whatever_the_order_of_workers(order, scripted, a_job):
    def position(job):
        return order["ABC".index(job.centre) * 4 + int(job.unit[-1]) - 1]

    expected = run_together(scripted(), {0: asynchronous(a_clock(), a_job)})[0]
    centres = scripted(rank=position)
    done = run_together(
        centres, {0: asynchronous(a_clock(), a_job), 1: asynchronous(a_clock(2), lambda u, c: a_job("x" + u, c))}
    )
    assert done[0] == expected
    times = [now for _, _, now, _ in expected]
    assert times == sorted(times) and len(expected) == 12
    computed = {unit for unit, there, _, _ in expected if there}
    assert 0 < len(computed) < 12
    assert {unit for unit in centres.sent if unit[0] != "x"} == computed, "a lost job is not computed"


def test_another_seed_or_purpose_loses_other_jobs(scripted, a_job):
    def losses(seed, purpose):
        clock = VirtualClock({"B": Availability(dropout=0.5)}, seed=seed, purpose=purpose)

        def exchange():
            for number in range(30):
                clock.send(a_job(f"u{number}", "B"), work_s=1)
            found = []
            while clock.outstanding:
                found.append((yield from clock.next()).reply is None)
            return tuple(found)

        return run_together(scripted(), {0: exchange()})[0]

    assert len({losses(1, "p"), losses(2, "p"), losses(1, "q")}) == 3
    assert losses(1, "p") == losses(1, "p")


def test_late_jobs_are_not_computed(scripted, a_job):
    clock = VirtualClock({"fast": Availability(), "slow": Availability(speed=0.1)}, seed=0, purpose="p")

    def exchange():
        clock.send(a_job("f", "fast"), work_s=2)
        clock.send(a_job("s", "slow"), work_s=2)
        first = yield from clock.next(until_s=5)
        nothing = yield from clock.next(until_s=5)
        return first.unit, nothing, clock.now, [arrival.unit for arrival in clock.drop_outstanding()], clock.outstanding

    centres = scripted()
    assert run_together(centres, {0: exchange()})[0] == ("f", None, 5, ["s"], 0)
    assert centres.sent == {"f": 1}


def test_a_late_job_is_computed_when_it_is_waited_for_after_all(scripted, a_job):
    clock = VirtualClock({"slow": Availability(speed=0.1)}, seed=0, purpose="p")

    def exchange():
        clock.send(a_job("s", "slow"), work_s=2)
        yield from clock.next(until_s=5)
        return (yield from clock.next()).unit, clock.now

    centres = scripted()
    assert run_together(centres, {0: exchange()})[0] == ("s", 20)
    assert centres.sent == {"s": 1}


def test_time_of_a_transfer_counts_both_ways(scripted, a_job):
    clock = VirtualClock({"A": Availability(bandwidth_mbit_s=8)}, seed=0, purpose="p")
    job = a_job("u", "A")

    def exchange():
        clock.send(job, work_s=1, bytes_up=2_000_000)
        yield from clock.next()
        return clock.now

    assert run_together(scripted(), {0: exchange()})[0] == pytest.approx(1 + 2 + job.nbytes / 1e6)


@given(stop=st.integers(0, 11))
def test_a_restart_goes_on_with_the_same_arrivals(stop, scripted, a_job):
    expected = run_together(scripted(), {0: asynchronous(a_clock(), a_job)})[0]
    first, number = a_clock(), {}

    def until_stop():
        seen, jobs = [], {}

        def send(centre):
            number[centre] = number.get(centre, 0) + 1
            jobs[centre] = a_job(f"{centre}{number[centre]}", centre)
            first.send(jobs[centre], work_s=8, tag=number[centre])

        for centre in CENTRES:
            send(centre)
        while len(seen) < stop:
            arrival = yield from first.next()
            seen.append((arrival.unit, arrival.reply is not None, first.now, arrival.tag))
            first.note(arrival, 0, "k", "used")
            if number[arrival.centre] < 4:
                send(arrival.centre)
        return seen

    seen = run_together(scripted(), {0: until_stop()})[0]
    state = json.loads(json.dumps(first.state()))
    second = a_clock()
    second.load_state(state)
    assert second.now == first.now and second.rows == first.rows
    for arrival in first.under_way:
        second.send_again(a_job(arrival.unit, arrival.centre), arrival.fate, arrival.tag)

    def rest():
        more = []
        while second.outstanding:
            arrival = yield from second.next()
            more.append((arrival.unit, arrival.reply is not None, second.now, arrival.tag))
            if number[arrival.centre] < 4:
                number[arrival.centre] += 1
                second.send(
                    a_job(f"{arrival.centre}{number[arrival.centre]}", arrival.centre),
                    work_s=8,
                    tag=number[arrival.centre],
                )
        return more

    assert seen + run_together(scripted(), {0: rest()})[0] == expected


def test_identity_tells_clocks_apart_and_is_json():
    same = json.dumps(a_clock().identity)
    assert json.dumps(a_clock().identity) == same
    assert json.dumps(a_clock(2).identity) != same
    other = VirtualClock({**CENTRES, "A": Availability(outages=((3, math.inf),))}, seed=1, purpose="p", notice_s=5)
    assert json.dumps(other.identity, allow_nan=False) != same


# -- a deployment's clock ------------------------------------------------------------------------------------


def test_a_real_clock_hands_out_what_comes(scripted, a_job, clock):
    real = RealClock()
    codes = {"u": "ok", "v": "node_unavailable", "w": "diverged"}

    def exchange():
        for unit in "uvw":
            real.send(a_job(unit, unit.upper()), work_s=99, tag=unit)
        clock.sleep(7)
        found = []
        while real.outstanding:
            arrival = yield from real.next()
            found.append((arrival.unit, arrival.reply.code if arrival.reply else None, arrival.fate.lost, arrival.tag))
        return found

    centres = scripted(rank=lambda job: -ord(job.unit), code=lambda job: codes[job.unit])
    assert run_together(centres, {0: exchange()})[0] == [
        ("w", "diverged", "", "w"),
        ("v", None, "lost", "v"),
        ("u", "ok", "", "u"),
    ]
    assert real.unreachable("V") and not real.unreachable("U") and not real.gone("V")
    assert real.now == 7, "the seconds that passed, not those of the work"


def test_a_real_clock_lets_time_run_out_and_takes_late_jobs_back(scripted, a_job, clock):
    real = RealClock()

    def exchange():
        real.send(a_job("silent"), work_s=0)
        nothing = yield from real.next(real.now + 40)
        late = real.drop_outstanding()
        real.send(a_job("other"), work_s=0)
        other = yield from real.next()
        return nothing, [arrival.unit for arrival in late], other.unit

    centres = scripted(never=["silent"], sleep=clock.sleep)
    assert run_together(centres, {0: exchange()})[0] == (None, ["silent"], "other")
    assert centres.cancelled == ["silent"]
    assert real.now == 40


def test_a_real_clock_goes_on_where_it_stood(scripted, a_job, clock):
    real = RealClock()
    real.load_state({"now": 1000.0, "rows": []})

    def exchange():
        real.send(a_job("u"), work_s=0)
        clock.sleep(5)
        yield from real.next()

    run_together(scripted(), {0: exchange()})
    assert real.now == 1005


def test_a_wait_for_nothing_takes_simulated_time_only():
    clock = a_clock()
    step = clock.next(40.0)
    assert next(step).send == []
    with pytest.raises(StopIteration) as end:
        step.send(None)
    assert end.value.value is None and clock.now == 40
