"""Time is counted once: overlapping work, several sessions, units that came out of the record, clocks that disagree."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.timeline import (
    current_units,
    failures,
    lanes,
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
