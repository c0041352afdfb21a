"""Messages are counted once each, and what was not as expected is marked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.kinds import Kinds
from reports.sections.messages.section import byte_bars, message_section
from reports.sections.messages.traffic import BODY_BYTES, Line, Predicted, Traffic, differs, lines, total, traffic

KINDS = Kinds(
    {"survey": {"title": "survey of the data", "rounds": False}, "gan_round": {"title": "gan round", "rounds": True}}
)


def finished(unit, centre="B", kind="gan_round", down=1000, up=100, **fields):
    return {"t": 1.0, "event": "unit_finished", "unit": unit, "kind": kind, "centre": centre, "cached": False,
            "bytes_down": down, "bytes_up": up, "seconds": 2.0} | fields  # fmt: skip


def started(t=0.0, resumed=False):
    return {"t": t, "event": "run_started", "run_id": "r", "resumed": resumed}


def predicted(centre="B", kind="gan_round", messages=2, down=2000, up=200, steps=60):
    return {"centre": centre, "kind": kind, "messages": messages, "bytes_down": down, "bytes_up": up, "steps": steps}


RESUMED = [
    started(),
    finished("s", "A", "survey", 50, 60),
    finished("a"),
    finished("stale", kind="learn"),  # of settings that the resumed run no longer has
    started(2.0, True),
    finished("s", "A", "survey", 50, 70),  # a survey is done in every session
    finished("a", cached=True),
    finished("b"),
]


def test_a_unit_counts_once_however_often_it_is_repeated():
    assert traffic(RESUMED, KINDS) == {
        ("A", "survey"): Traffic(1, 50, 70, 2.0),
        ("B", "gan_round"): Traffic(2, 2000, 200, 4.0),
    }
    again = [*RESUMED, started(3.0, True), *(e | {"cached": True} for e in RESUMED[5:])]
    assert traffic(again, KINDS) == traffic(RESUMED, KINDS)
    assert traffic([], KINDS) == {}


def test_rounds_that_a_resumed_session_does_not_meet_again_count_all_the_same():
    events = [started(), finished("a"), finished("l", kind="learn"), started(2.0, True), finished("b")]
    assert traffic(events, KINDS) == {("B", "gan_round"): Traffic(2, 2000, 200, 4.0)}
    assert traffic(events, Kinds()) == {("B", "gan_round"): Traffic(1, 1000, 100, 2.0)}, "an older run does not say so"


@pytest.mark.parametrize(
    ("measured", "expected", "allowance", "answer"),
    [
        (100, 100, 0, False),
        (105, 100, 0, False),
        (106, 100, 0, True),
        (95, 100, 0, False),
        (94, 100, 0, True),
        (0, 100, 0, True),
        (0, 0, 0, False),
        (1, 0, 0, True),
        (1, 0, 1, False),
        (999, None, 0, False),
        (106, 100, 1000, True),  # the allowance is for what was not predicted
    ],
)
def test_differs(measured, expected, allowance, answer):
    assert differs(measured, expected, allowance) is answer


def test_lines_are_of_everything_measured_or_expected():
    found = lines(traffic(RESUMED, KINDS), [predicted(), predicted("C", messages=3)], ["C", "B"])
    assert [(line.centre, line.kind, line.differing) for line in found] == [
        ("C", "gan_round", ("messages", "down", "up")),  # expected, never came
        ("B", "gan_round", ()),
        ("A", "survey", ("messages",)),  # came, was not expected; its few bytes are the body of a message
    ]
    assert all(line.predicted is None and line.differing == () for line in lines(traffic(RESUMED, KINDS), [], []))


def test_bytes_where_no_arrays_were_expected():
    def odd(size):
        line = Line("A", "learn", Traffic(2, 0, size, 1.0), Predicted(2, 0, 0, 0))
        return line.differing

    assert odd(2 * BODY_BYTES) == () and odd(2 * BODY_BYTES + 1) == ("up",)
    unknown = Line("A", "send_patches", Traffic(1, 10, 10**9, 1.0), Predicted(1, None, None, 0))
    assert unknown.differing == ()


amounts = st.tuples(st.integers(0, 99), st.integers(0, 10**6), st.integers(0, 10**6))


@given(st.dictionaries(st.tuples(st.sampled_from("ABC"), st.sampled_from("xyz")), amounts, max_size=9))
def test_total_is_the_sum_whatever_the_order(found):
    measured = {key: Traffic(*values) for key, values in found.items()}
    made = total(lines(measured, [], ["C"]))
    assert made.measured == Traffic(*(sum(v[i] for v in found.values()) for i in range(3))) and made.predicted is None


def test_total_of_what_could_not_be_known_is_not_known():
    made = total([
        Line("A", "x", Traffic(), Predicted(1, 10, None, 3)), Line("B", "x", Traffic(), Predicted(2, 20, 5, 4)),
    ])  # fmt: skip
    assert made.predicted == Predicted(3, 30, None, 7)


# -- the section ---------------------------------------------------------------------------------------------------


def test_expected_beside_measured():
    made = message_section(RESUMED, [predicted(messages=3), predicted("A", "survey", 1, 0, None, 0)], ["A", "B"], KINDS)
    assert made is not None
    assert made["table"]["header"] == [
        "Centre", "Work", "Messages", "expected", "To the centre", "expected", "From the centre", "expected",
        "Steps, expected", "Computing",
    ]  # fmt: skip
    assert made["table"]["rows"] == [
        ["A", "survey of the data", "1", "1", "50 B", "0 B", "70 B", "–", "0", "2 s"],
        ["B", "gan round", "≠ 2", "3", "2.0 kB", "2.0 kB", "200 B", "200 B", "60", "4 s"],
        ["All", "", "≠ 3", "4", "2.0 kB", "2.0 kB", "270 B", "–", "60", "6 s"],
    ]
    assert made["verdict"].startswith("1 of 2 lines differs by more than 5 %")
    right = message_section(RESUMED, [predicted(), predicted("A", "survey", 1, 0, 0, 0)], [], KINDS)
    assert right is not None and "are within 5 % of what was expected" in right["verdict"]


def test_old_runs_have_no_expectations():
    made = message_section(RESUMED, [], ["A", "B"], KINDS)
    assert made is not None and made["verdict"] == "" and not made["wide"]
    assert made["table"]["header"] == ["Centre", "Work", "Messages", "To the centre", "From the centre", "Computing"]
    assert made["table"]["rows"][-1] == ["All", "", "3", "2.0 kB", "270 B", "6 s"]
    assert made["bars"].alt == "Bytes by centre: A: 50 B to, 70 B from; B: 2.0 kB to, 200 B from"
    assert message_section([], [], [], KINDS) is None


def test_a_run_that_has_not_sent_anything_yet_shows_what_is_expected():
    made = message_section([], [predicted()], [], KINDS)
    assert made is not None and made["bars"] is None
    assert made["table"]["rows"][0][2:4] == ["≠ 0", "2"]


def test_many_centres_are_shown_by_kind():
    names = [f"c{i:03d}" for i in range(1000)]
    events = [
        started(),
        *(finished(f"{c}{r}", c, up=100 + i) for i, c in enumerate(names) for r in range(2 if i else 1)),
    ]
    made = message_section(events, [predicted(c, up=2 * (100 + i)) for i, c in enumerate(names)], names, KINDS)
    assert made is not None and made["wide"]
    measured, expected, everything = made["table"]["rows"]
    assert measured == ["gan round", "measured", "1\N{NARROW NO-BREAK SPACE}000", "≠ 1\N{NARROW NO-BREAK SPACE}999",
                        "1 / 2 / 2", "≠ 2.0 MB", "1.0 kB / 2.0 kB / 2.0 kB", "≠ 1.2 MB", "100 B / 1.2 kB / 2.2 kB",
                        "1 h 06 min"]  # fmt: skip
    assert expected[1:5] == ["expected", "1\N{NARROW NO-BREAK SPACE}000", "2\N{NARROW NO-BREAK SPACE}000", "2"]
    assert everything[0] == "All" and made["verdict"].endswith("Namely c000, gan round: 1 instead of 2 messages.")
    assert all(len(row) == len(made["table"]["header"]) == len(made["table"]["text"]) for row in made["table"]["rows"])
    assert made["bars"].alt.startswith("Bytes by centre, the 20 of 1000 centres with the most: c980")
    assert made["bars_caption"] == "The 20 of 1000 centres with the most."
    lost = message_section(events[:-40], [predicted(c, up=2 * (100 + i)) for i, c in enumerate(names)], names, KINDS)
    assert lost is not None and "The first 5: c000" in lost["verdict"] and lost["verdict"].count(";") == 1 + 4


def test_no_bars_without_bytes():
    assert byte_bars([]) is None and byte_bars([Line("A", "x", Traffic(1, 0, 0, 1.0), None)]) is None
