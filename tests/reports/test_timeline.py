"""Time is counted once: overlapping work, several sessions, units that came out of the record, clocks that disagree."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.timeline import (
    absences,
    computing_share,
    current_units,
    deployment,
    failures,
    lanes,
    node_jobs,
    node_seconds,
    resumptions,
    sessions,
    start_up_seconds,
    status,
    union,
    union_seconds,
    wall_seconds,
    work,
    working_share,
)


def finished(t, started=None, centre="B", kind="learn", unit="u", **fields):
    return {
        "t": t, "event": "unit_finished", "unit": unit, "kind": kind, "centre": centre, "label": unit, "cached": False,
        "started": started, "finished": t, "bytes_down": 10, "bytes_up": 3,
    } | fields  # fmt: skip


ONE = [
    {"t": 100.0, "event": "run_started", "run_id": "r", "resumed": False},
    {"t": 104.0, "event": "unit_started", "unit": "a", "kind": "survey", "centre": "A"},
    finished(130.0, 110.0, unit="a", centre="A", kind="survey"),
    finished(150.0, 120.0, unit="b"),
    finished(190.0, 160.0, unit="c"),
    {"t": 200.0, "event": "run_finished", "status": "completed", "seconds": 100.0, "text": ""},
]
KILLED_AND_RESUMED = [
    *ONE[:4],
    {"t": 155.0, "event": "unit_started", "unit": "c", "kind": "learn", "centre": "B"},  # killed here
    {"t": 9_000.0, "event": "run_started", "run_id": "r", "resumed": True},
    finished(9_001.0, None, unit="a", cached=True),
    finished(9_001.0, None, unit="b", cached=True),
    finished(9_040.0, 9_005.0, unit="c"),
    {"t": 9_045.0, "event": "run_finished", "status": "completed"},
]


def test_one_session():
    assert wall_seconds(ONE) == 100
    assert working_share(ONE) == pytest.approx((150 - 110 + 190 - 160) / 100)
    assert start_up_seconds(ONE) == 10
    assert status(ONE) == "completed" and resumptions(ONE) == []


def test_resumed_run_sums_its_sessions_and_skips_the_night_between():
    assert [s.status for s in sessions(KILLED_AND_RESUMED)] == ["interrupted", "completed"]
    assert wall_seconds(KILLED_AND_RESUMED) == 55 + 45
    assert working_share(KILLED_AND_RESUMED) == pytest.approx((40 + 35) / 100)
    assert start_up_seconds(KILLED_AND_RESUMED) == 5
    assert resumptions(KILLED_AND_RESUMED) == [55]
    assert current_units(KILLED_AND_RESUMED) == {"a", "b", "c"} and current_units(KILLED_AND_RESUMED[:5]) == {"a", "b"}
    last = work(KILLED_AND_RESUMED)[-1]
    assert (last.start, last.end) == (60, 95)


def test_failed_then_repaired():
    failed = [
        {"t": 0.0, "event": "run_started"},
        {"t": 2.0, "event": "unit_started", "unit": "a", "kind": "train_generator", "centre": "B"},
        {"t": 7.0, "event": "unit_failed", "unit": "a", "kind": "train_generator", "centre": "B", "code": "nan_loss"},
        {"t": 10.0, "event": "run_finished", "status": "failed"},
    ]
    assert status(failed) == "failed" and [e["code"] for e in failures(failed)] == ["nan_loss"]
    assert [(w.start, w.end, w.failed) for w in work(failed)] == [(2, 7, True)]
    assert working_share(failed) == 0
    repaired = [
        *failed,
        {"t": 20.0, "event": "run_started"},
        finished(29.0, 21.0, unit="a"),
        {"t": 30.0, "event": "run_finished"},
    ]
    assert status(repaired) == "completed" and failures(repaired) == []


def test_nothing_yet():
    assert math.isnan(working_share([])) and math.isnan(start_up_seconds([])) and status([]) == "interrupted"
    begun = [{"t": 5.0, "event": "run_started"}]
    assert wall_seconds(begun) == 0 and math.isnan(working_share(begun)) and failures(begun) == []


def test_a_clock_that_is_wrong_cannot_make_more_than_all_of_the_time():
    events = [
        {"t": 0.0, "event": "run_started"},
        finished(8.0, -500.0, finished=900.0),
        {"t": 10.0, "event": "run_finished"},
    ]
    assert working_share(events) == 1


def test_a_clock_that_is_wrong_cannot_move_a_job_away_from_its_sending_and_its_answer():
    sent = {"t": 4.0, "event": "unit_started", "unit": "u", "kind": "learn", "centre": "B"}
    for off, start in ((-500.0, 4), (0.0, 6), (500.0, 11)):
        events = [{"t": 0.0, "event": "run_started"}, sent, finished(16.0, 6.0 + off, finished=11.0 + off)]
        (w,) = work(events)
        assert (w.start, w.end) == (start, start + 5)


# -- nodes -----------------------------------------------------------------------------------------------------------


def sent(t, unit, centre="B"):
    return {"t": t, "event": "unit_started", "unit": unit, "kind": "train_round", "centre": centre, "label": unit}


def answered(t, unit, started, seconds, centre="B", **fields):
    return finished(t, started, centre, "train_round", unit, seconds=seconds, **fields)


DEPLOYED = [
    {"t": 100.0, "event": "run_started", "deployment": "hospitals"},
    sent(110.0, "a"),
    sent(110.0, "b"),  # waits at the node until a is done
    answered(125.0, "a", 114.0, 10.0),
    sent(125.0, "c"),
    answered(140.0, "b", 128.0, 11.0),
    {"t": 141.0, "event": "note", "centre": "B", "text": "its node was lost", "node": "lost"},
    sent(150.0, "x", centre="C"),
    {"t": 161.0, "event": "note", "centre": "B", "text": "its node is back", "node": "back"},
    sent(161.0, "c"),  # once more
    answered(180.0, "c", 164.0, 14.0),
    {
        "t": 182.0,
        "event": "unit_failed",
        "unit": "x",
        "kind": "train_round",
        "centre": "C",
        "code": "policy",
        "text": "",
    },
    {"t": 183.0, "event": "note", "centre": "C", "text": "its node was lost", "node": "lost"},
    {"t": 200.0, "event": "run_finished", "status": "failed"},
]


def test_a_nodes_time_and_what_of_it_is_computing():
    jobs = node_jobs(DEPLOYED)
    assert [(j.unit, j.sent, j.turn, j.start, j.end, j.answered, j.code) for j in jobs] == [
        ("a", 10, 10, 14, 24, 25, ""),
        ("b", 10, 25, 28, 39, 40, ""),  # its turn came when a was answered
        ("c", 25, 40, 64, 78, 80, ""),  # sent for the first time at 25
        ("x", 50, 50, 82, 82, 82, "policy"),
    ]
    assert [j.latency for j in jobs] == [5, 4, 26, 32]
    own = [j for j in jobs if j.centre == "B"]
    assert node_seconds(own) == 70 and computing_share(own) == pytest.approx((10 + 11 + 14) / 70)
    # Nodes are added up: C's 32 seconds came to nothing.
    assert node_seconds(jobs) == 102 and computing_share(jobs) == pytest.approx(35 / 102)
    assert computing_share(jobs[3:]) == 0 and math.isnan(computing_share([]))


def test_the_night_between_two_sessions_is_no_nodes_time():
    resumed = [
        *DEPLOYED,
        {"t": 90_000.0, "event": "run_started", "deployment": "hospitals"},
        answered(90_001.0, "a", None, None, cached=True),
        sent(90_010.0, "y"),
        answered(90_030.0, "y", 90_012.0, 15.0),
        {"t": 90_040.0, "event": "run_finished"},
    ]
    jobs = node_jobs(resumed)
    assert len(jobs) == 5 and (jobs[-1].sent, jobs[-1].answered) == (110, 130), "cached units are no jobs"
    assert node_seconds([j for j in jobs if j.centre == "B"]) == 70 + 20
    assert deployment(resumed) == "hospitals" and deployment(ONE) == "" and deployment([]) == ""
    simulated_since = [*resumed, {"t": 95_000.0, "event": "run_started", "deployment": ""}]
    assert deployment(simulated_since) == ""


def test_a_nodes_clock_does_not_count():
    """An hour ahead or behind: the same shares, and every job between its turn and its answer."""
    for off in (-3600.0, 3600.0):
        events = [e | {"started": e["started"] + off} if "started" in e else e for e in DEPLOYED]
        jobs = node_jobs(events)
        assert computing_share(jobs) == computing_share(node_jobs(DEPLOYED))
        assert all(j.turn <= j.start <= j.end <= j.answered for j in jobs)
        assert [j.latency for j in jobs] == [5, 4, 26, 32]


def test_times_without_a_node():
    assert [(a.centre, a.start, a.end, a.found_again) for a in absences(DEPLOYED)] == [
        ("B", 41, 61, True),
        ("C", 83, 100, False),
    ]


intervals = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda x: (float(x[0]), float(sum(x)))), max_size=30
)


@given(intervals)
def test_union_counts_each_second_once(found):
    covered = {s for start, end in found for s in range(int(start), int(end))}
    assert union_seconds(found) == len(covered)
    parts = union(found)
    assert all(a[1] < b[0] for a, b in zip(parts, parts[1:], strict=False)) and all(a < b for a, b in parts)


@given(intervals)
def test_lanes_do_not_overlap_and_are_as_few_as_possible(found):
    chosen = lanes(found)
    for lane in set(chosen):
        own = sorted(i for i, k in zip(found, chosen, strict=True) if k == lane)
        assert all(a[1] <= b[0] for a, b in zip(own, own[1:], strict=False))
    solid = [i for i in found if i[1] > i[0]]
    at_once = max((sum(start <= s < end for start, end in solid) for s in range(70)), default=0)
    assert len({k for i, k in zip(found, chosen, strict=True) if i in solid}) <= max(at_once, 1) + (
        len(solid) < len(found)
    )
