"""Images seen until the target: curves whose crossing is known, and what may be said where one is not."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.record_files import CONVERGENCE
from reports.sections.convergence.first_crossing import Bounds, convergences, first_crossing, quotient, smallest_centre
from reports.sections.convergence.section import convergence_section, training_images
from reports.study import read_study

STUDY = read_study("""
name: t
centres: {A: {}, B: {}, C: {}}
task: {label: lesion}
arms:
  average: {strategy: fedavg_gan, model: dcgan}
  both: {strategy: dm_gan, model: wgan_gp, conditional: true}
  central_wgan: {strategy: pooled_gan, model: wgan_gp}
  central: {strategy: pooled_gan, model: dcgan}
""")
CARDS = {
    ("lesion", name): {"boxes": {"train": {"lesion": positive, "healthy": 40}}}
    for name, positive in {"A": 200, "B": 30, "C": 80}.items()
}


def rows(arm, series, centre, values, *, images=100, metric="fd_texture", seconds=10.0):
    return [
        {"arm": arm, "task": "lesion", "series": series, "centre": centre, "round": r, "images_seen": images * (r + 1),
         "virtual_s": None if seconds is None else seconds * (r + 1), "metric": metric, "value": value, "floor": 1.0}
        for r, value in enumerate(values)
    ]  # fmt: skip


def table(*parts):
    return pd.DataFrame([row for part in parts for row in part], columns=list(CONVERGENCE.columns))


# -- crossings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "values", "target", "expected"),
    [
        ([100, 200, 300], [9, 5, 1], 3, Bounds(250, 250)),  # half way between two rounds
        ([100, 200, 300], [9, 5, 1], 5, Bounds(200, 200)),  # on a round
        ([300, 100, 200], [1, 9, 5], 3, Bounds(250, 250)),  # by x, not by the order given
        ([100, 200, 300, 400], [9, 3, 9, 1], 6, Bounds(150, 150)),  # the first crossing, whatever comes later
        ([100, 200], [9, 5], 3, Bounds(200, math.inf)),  # not reached
        ([100, 200], [2, 5], 3, Bounds(0, 100)),  # before the first measured round
        ([100], [9], 3, Bounds(100, math.inf)),
        ([100], [3], 3, Bounds(0, 100)),
        ([100, math.nan, 200], [9, 1, 5], 7, Bounds(150, 150)),  # what was not measured is left out
        ([100, 150, 200], [9, math.nan, 5], 7, Bounds(150, 150)),
        ([100, 100], [9, 3], 6, Bounds(100, 100)),  # improved by the others, this centre saw nothing
        ([], [], 3, None),
        ([math.nan], [3], 3, None),
        ([100, 200], [9, 5], math.nan, None),  # no target
    ],
)
def test_first_crossing(x, values, target, expected):
    assert first_crossing(x, values, target) == expected


def test_exponential_decay_crosses_where_its_logarithm_says():
    x = np.linspace(1, 5000, 20_000)
    crossing = first_crossing(x, 80 * np.exp(-x / 700), 5.0)
    assert crossing is not None and crossing.exact
    assert crossing.low == pytest.approx(700 * math.log(80 / 5), rel=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 100)), min_size=1, max_size=20, unique_by=lambda p: p[0]),
    st.floats(0, 100),
    st.floats(0, 50),
)
def test_a_lower_target_is_never_reached_sooner(points, target, less):
    x, values = zip(*points, strict=True)
    high, low = first_crossing(x, values, target), first_crossing(x, values, target - less)
    assert high is not None and low is not None
    assert low.high >= high.high and min(x) * (values[x.index(min(x))] > target) <= high.low <= max(x)


number = st.floats(0.01, 1000)


@given(number, number, number, number, number, number)
def test_the_quotient_of_bounds_holds_every_quotient(a, more_a, b, more_b, share_a, share_b):
    q = quotient(Bounds(a, a + more_a), Bounds(b, b + more_b))
    inside = (a + more_a * (share_a / 1000)) / (b + more_b * (share_b / 1000))
    assert q.low * (1 - 1e-9) <= inside <= q.high * (1 + 1e-9)
    assert quotient(Bounds(a, a), Bounds(b, b)) == Bounds(a / b, a / b)
    assert quotient(Bounds(a, math.inf), Bounds(b, b)) == Bounds(a / b, math.inf)
    assert quotient(Bounds(a, a), Bounds(b, math.inf)) == Bounds(0, a / b)
    assert quotient(Bounds(a, math.inf), Bounds(b, math.inf)) == Bounds(0, math.inf)
    assert quotient(Bounds(a, a), Bounds(0, 0)) == Bounds(0, math.inf)


# -- arms and centres ----------------------------------------------------------------------------------------------


def test_ratio_of_each_centre_against_its_own_training_alone():
    found = convergences(
        table(
            rows("average", "federation", "B", [9, 5, 1], images=100),  # 3 at 250
            rows("average", "federation", "A", [9, 5, 1], images=300),  # 3 at 750
            rows("average", "alone", "B", [9, 9, 9, 5, 1], images=100),  # 3 at 450
            rows("average", "alone", "A", [9, 7, 5], images=300),  # not within 900
            rows("central", "central", "A", [9, 4, 3], images=700),
        ),
        STUDY,
    )
    assert [(c.centre, c.central_arm, c.target) for c in found] == [("A", "central", 3), ("B", "central", 3)]
    a, b = found
    assert a.federation == Bounds(750, 750) and a.alone == Bounds(900, math.inf) and a.ratio == Bounds(1.2, math.inf)
    assert b.federation == Bounds(250, 250) and b.alone == Bounds(450, 450) and b.ratio == Bounds(1.8, 1.8)
    assert (a.seconds, b.seconds) == (Bounds(25, 25), Bounds(25, 25)) and b.floor == 1 and b.final == 1


def test_target_is_the_last_round_of_the_central_model_of_the_same_kind():
    central = rows("central", "central", "A", [9, 2, 4])
    other = rows("central_wgan", "central", "A", [9, 7])
    arms = [rows(arm, "federation", "A", [9, 1]) for arm in ("both", "average", "foreign")]
    found = {c.arm: (c.central_arm, c.target) for c in convergences(table(central[::-1], other, *arms), STUDY)}
    # The best value is not the last; an arm that the scenario does not have takes the first central model.
    assert found == {"average": ("central", 4), "both": ("central_wgan", 7), "foreign": ("central_wgan", 7)}
    alone = convergences(table(other, rows("average", "federation", "A", [9, 1])), STUDY)
    assert alone[0].target == 7


def test_metrics_and_tasks_do_not_mix():
    parts = [
        rows("average", "federation", "A", [9, 1]),
        rows("average", "federation", "A", [90, 10], metric="fd_randnet"),
        rows("central", "central", "A", [50], metric="fd_randnet"),
    ]
    texture, randnet = convergences(table(*parts), STUDY)
    assert (texture.metric, texture.federation, texture.central_arm) == ("fd_texture", None, "")
    assert randnet.federation == Bounds(150, 150) and math.isnan(texture.target)
    assert convergences(table(), STUDY) == [] and convergences(table(parts[2]), STUDY) == []


def test_smallest_centre():
    assert smallest_centre({"A": 5, "B": 3, "C": 3}, ["A", "C", "B"]) == "C"
    assert smallest_centre({"A": 5, "B": 3, "C": 3}, ["A"]) == "A"
    assert smallest_centre({"A": 5}, ["A", "B"]) is None and smallest_centre({}, []) is None


def test_training_images_are_those_the_generator_learns_from():
    assert training_images(STUDY, CARDS, "average", "lesion") == {"A": 200, "B": 30, "C": 80}
    assert training_images(STUDY, CARDS, "both", "lesion") == {"A": 240, "B": 70, "C": 120}
    assert training_images(STUDY, CARDS, "average", "mass") == {}
    few = {("lesion", "A"): {"boxes": {"train": {"lesion": "<5", "healthy": 3}}}, ("lesion", "B"): {}}
    assert training_images(STUDY, few, "average", "lesion") == {"A": 4}


# -- the section ---------------------------------------------------------------------------------------------------


def section(*parts, cards=CARDS):
    made = convergence_section(table(*parts), STUDY, cards)
    assert made is not None
    return made


@pytest.fixture
def no_figure(monkeypatch):
    """Drawing is what takes time, and the words do not depend on it."""
    monkeypatch.setattr("reports.sections.convergence.section.convergence_figure", lambda *_: None)


CENTRAL = rows("central", "central", "A", [9, 3], images=500)
TOGETHER = [rows("average", "federation", c, [9, 5, 1]) for c in "ABC"]  # 3 at 250


@pytest.mark.usefixtures("no_figure")
@pytest.mark.parametrize(
    ("alone", "words"),
    [
        (
            [9, 8, 7, 3],
            "The smallest centre (B, 30 images) reached the target 1.6 times faster than alone (paper: 1.6).",
        ),
        ([9, 1], "reached the target 1.4 times slower than alone (paper: 1.6)."),
        ([9, 5, 1.1], "reached the target as fast as alone (paper: 1.6)."),
        ([9, 8, 7, 6, 5], "reached the target more than 2.0 times faster than alone (paper: 1.6)."),
        ([2, 1], "reached the target more than 2.5 times slower than alone (paper: 1.6)."),
        ([9, 8], "cannot be said: alone it did not reach the target within 200 images."),
        ([], "cannot be said: B was not measured alone."),
    ],
)
def test_sentence_about_the_smallest_centre(alone, words):
    made = section(CENTRAL, *TOGETHER, rows("average", "alone", "B", alone), rows("average", "alone", "A", [9, 1]))
    (sentence,) = made["sentences"]
    assert words in sentence["text"] and sentence["about"] == "average, FD\N{NON-BREAKING HYPHEN}Texture"


@pytest.mark.usefixtures("no_figure")
def test_sentence_when_the_federation_never_got_there():
    slow = rows("average", "federation", "B", [9, 8, 7])
    made = section(CENTRAL, slow, rows("average", "alone", "B", [9, 8, 1]))
    assert "more than 1.1 times slower" in made["sentences"][0]["text"]  # 283 alone, over 300 together
    made = section(CENTRAL, slow, rows("average", "alone", "B", [9, 8]))
    assert (
        "in the federation it did not reach the target within 300 images and alone it did not reach the target within "
        "200 images"
    ) in made["sentences"][0]["text"]
    early = section(CENTRAL, rows("average", "federation", "B", [2, 1]), rows("average", "alone", "B", [2, 1]))
    assert (
        "in the federation it was below the target at the first measured round already" in early["sentences"][0]["text"]
    )
    at_once = [row | {"images_seen": 0} for row in rows("average", "alone", "B", [2])]
    assert "alone it was below" in section(CENTRAL, *TOGETHER, at_once)["sentences"][0]["text"]


@pytest.mark.usefixtures("no_figure")
def test_sentence_without_a_central_model_or_without_sizes():
    made = section(*TOGETHER, rows("average", "alone", "B", [9, 1]))
    assert "cannot be said: there is no target" in made["sentences"][0]["text"]
    made = section(CENTRAL, *TOGETHER, cards={})
    assert made["sentences"][0]["text"].startswith("Which centre is the smallest cannot be said")


@pytest.mark.usefixtures("no_figure")
def test_a_target_that_the_measure_cannot_tell_from_real_images_is_said_to_be_one():
    at_floor = rows("central", "central", "A", [9, 1])
    assert "within the floor" in section(at_floor, *TOGETHER)["sentences"][0]["text"]
    assert "within the floor" not in section(CENTRAL, *TOGETHER)["sentences"][0]["text"]


def test_table_says_what_was_not_reached():
    made = section(
        CENTRAL,
        *TOGETHER,
        rows("average", "alone", "A", [9, 5]),
        rows("average", "alone", "B", [9, 8, 7, 3], seconds=None),
    )
    header, by_centre = made["table"]["header"], {row[2]: row for row in made["table"]["rows"]}
    at = {
        name: header.index(name) for name in ("Training images", "Images, in the federation", "Images, alone", "Ratio")
    }
    assert [by_centre[c][at["Training images"]] for c in "ABC"] == ["200", "30", "80"]
    assert {row[at["Images, in the federation"]] for row in by_centre.values()} == {"250"}
    assert [by_centre[c][at["Images, alone"]] for c in "ABC"] == ["not reached (200 seen)", "400", "–"]
    assert [by_centre[c][at["Ratio"]] for c in "ABC"] == ["over 0.8", "1.6", "–"]
    assert by_centre["B"][-1] == "25 s"
    assert all(len(row) == len(header) == len(made["table"]["text"]) for row in by_centre.values())
    assert made["curves"].alt.count("average") == 3 and made["left_out"] == ""


def test_one_row_and_none():
    made = section(rows("average", "federation", "A", [5]), cards={})
    assert made["table"]["rows"][0][-4:] == ["–"] * 4 and made["curves"].uri.startswith("data:image/svg+xml")
    assert convergence_section(table(), STUDY, CARDS) is None
    assert convergence_section(table(CENTRAL), STUDY, CARDS) is None


def test_values_that_have_no_logarithm_are_not_drawn():
    curve = rows("average", "federation", "A", [9, 0.0, -1.0, 4])
    assert section(CENTRAL, curve)["curves"].uri == section(CENTRAL, [curve[0], curve[3]])["curves"].uri
    assert section(CENTRAL, rows("average", "federation", "A", [0.0]))["curves"].alt
    assert section(CENTRAL, rows("average", "federation", "A", [math.nan]))["curves"].alt


def test_of_many_centres_the_smallest_are_listed_and_all_are_counted():
    names = [f"c{i:03d}" for i in range(200)]
    cards = {("lesion", name): {"boxes": {"train": {"lesion": 500 - i}}} for i, name in enumerate(names)}
    parts = [rows("average", "federation", name, [9, 5, 1]) for name in names]
    # 50 reach it alone at 400 images, the others not within 400: the median is over 1.6.
    parts += [rows("average", "alone", name, [9, 8, 7, 3 if i < 50 else 4]) for i, name in enumerate(names)]
    made = section(CENTRAL, *parts, cards=cards)
    shown = [row[2] for row in made["table"]["rows"]]
    assert shown == [*reversed(names[-20:]), "all 200"]
    assert made["table"]["rows"][-1][-2] == "1.6 / over 1.6 / over 1.6"
    assert "reached by 50 of 200" in made["table"]["rows"][-1] and "reached by 200" in made["table"]["rows"][-1]
    assert (
        "up to 200 centres" in made["left_out"]
        and "c000 ends" in made["curves"].alt
        and "c199 ends" in made["curves"].alt
    )
    assert made["curves"].alt.count(" ends at ") == 6
