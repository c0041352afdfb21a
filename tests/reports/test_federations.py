"""What went wrong stands under every table that shows the arm, in words that say no more than the record."""

from __future__ import annotations

import pandas as pd
import pytest

from reports.federations import trouble_lines
from reports.kinds import Kinds
from reports.record_files import RESULTS
from reports.sections.selection import selection_table
from reports.study import read_study
from reports.table_md import markdown
from reports.tables import blocks, role_text, troubles_of, unplaced

STUDY = read_study(
    """
name: t
task: {label: lesion}
arms:
  none: {strategy: local}
  async: {strategy: dm_gan, model: dcgan, updates: 60}
  average: {strategy: fedavg_gan, model: dcgan, rounds: 20}
  central: {strategy: pooled_gan, model: dcgan, rounds: 20}
  once: {strategy: one_shot, generators: [g]}
""",
    Kinds(strategies={"pooled_gan": {"title": "a model of pooled images", "pixels": True}}),
)


def federation(**changes):
    entry = {"arm": "async", "task": "lesion", "strategy": "dm_gan", "rounds_or_updates": 28, "jobs": 40, "used": 40,
             "lost": 0, "late": 0, "stale": 0, "gone": [], "state_lost": [], "transport": None, "notes": [], "failed": ""}  # fmt: skip
    return entry | changes


def line(arm="async", **changes):
    return trouble_lines([federation(arm=arm, **changes)], STUDY).get((arm, "lesion"))


def test_a_line_with_everything():
    assert line(
        lost=12, gone=[{"centre": "C", "from_s": 310.0}], state_lost=[{"centre": "B", "number": 7}],
        transport={"how": "fp16", "relative_error": 1.2e-4},
    ) == (
        "async: 12 of 40 jobs were lost, C was gone from 310 s on, B came back with an empty state at update 7; "
        "the result is of what remained. Arrays travelled as fp16, with a relative error of 1.2e-4."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"transport": {"how": "fp32", "relative_error": 0.0}}, None),
        ({"lost": 1, "jobs": 1}, "async: 1 of 1 job was lost; the result is of what remained."),
        ({"late": 1}, "async: 1 of 40 jobs was too late; the result is of what remained."),
        (
            {"lost": 2, "late": 1, "stale": 3},
            "async: 2 of 40 jobs were lost, 1 was too late, 3 were too stale to be used; the result is of what remained.",
        ),
        ({"transport": {"how": "int8", "relative_error": None}}, "async: Arrays travelled as int8."),
        ({"lost": 2, "failed": "round 2 found no quorum; lower quorum."},
         "async: 2 of 40 jobs were lost, it has no result: round 2 found no quorum; lower quorum."),
        ({"notes": ["one centre\n had no lesions", "Two.", ""]}, "async: one centre had no lesions. Two."),
        ({"arm": "average", "state_lost": [{"centre": "B", "number": 3}]},
         "average: B came back with an empty state at round 3; the result is of what remained."),
    ],
)  # fmt: skip
def test_lines(changes, words):
    assert line(**changes) == words


def test_many_centres_are_counted_not_named():
    gone = [{"centre": f"c{i}", "from_s": 100.0 - i} for i in range(30)]
    lost = [{"centre": f"c{i}", "number": i + 5} for i in range(30)]
    said = line(gone=gone, state_lost=lost)
    assert said is not None and "30 centres were gone by the end, c29 as the first from 71 s on" in said
    assert "30 times a centre came back with an empty state, c0 as the first at update 5" in said and len(said) < 250


def test_order_and_names_of_tasks():
    several = read_study("tasks: [{label: lesion}, {name: mal, label: malignancy}]\narms: {b: {}, a: {}}")
    found = trouble_lines([federation(arm=a, task=t, lost=1) for a in "ab" for t in ("mal", "lesion")], several)
    assert list(found) == [("b", "lesion"), ("b", "mal"), ("a", "lesion"), ("a", "mal")]
    assert found["a", "mal"].startswith("a (mal): 1 of 40 jobs was lost")
    assert trouble_lines([], several) == {}


def test_what_an_arm_counts():
    assert {name: arm.step for name, arm in STUDY.arms.items() if arm.shares} == {
        "async": "update", "average": "round", "central": "round", "once": "training",
    }  # fmt: skip


# -- under the table -----------------------------------------------------------------------------------------------


def results(**arms):
    rows = [
        {"arm": arm, "strategy": "", "task": "lesion", "classifier": classifier, "real_fraction": 1.0, "repeat": 0,
         "tested_on": centre, "metric": "auroc", "value": value, "receiver": "A", "n_real": 100, "n_synthetic": 0}
        for classifier in ("cnn", "swin")
        for arm, value in arms.items()
        for centre in "AC"
    ]  # fmt: skip
    return blocks(pd.DataFrame(rows, columns=list(RESULTS.columns)), STUDY)


TROUBLES = {
    ("average", "lesion"): "average: trouble",
    ("async", "lesion"): "async: trouble",
    ("async", "mal"): "elsewhere",
}


def test_troubles_stand_under_the_tables_that_show_the_arm():
    found = results(none=0.7, average=0.8)
    assert [troubles_of(block, TROUBLES) for block in found] == [["average: trouble"]] * 2
    assert unplaced(TROUBLES, found) == ["async: trouble", "elsewhere"]
    text = markdown(found, STUDY, {}, TROUBLES)
    first, second = text.split("## ")[1:]
    assert first.count("average: trouble") == 1 and first.index("average: trouble") > first.rindex("| average")
    assert second.count("average: trouble") == 1 and "async: trouble" not in first
    assert text.index("async: trouble") < text.index("elsewhere") < text.index("Own: the receiver's")
    assert "trouble" not in markdown(found, STUDY, {})


def test_troubles_are_said_before_any_classifier_is_tested():
    text = markdown([], STUDY, {}, TROUBLES)
    assert text.index("No classifier was tested yet.") < text.index("average: trouble") and "elsewhere" in text
    assert markdown([], STUDY, {}) == "# t\n\nNo classifier was tested yet.\n"


def test_a_model_of_pooled_data_is_an_upper_bound():
    assert STUDY.arms["central"].role == "upper bound" and role_text(STUDY.arms["central"]) != ""
    assert STUDY.arms["average"].role == "candidate"


# -- which generators were chosen ----------------------------------------------------------------------------------


def cell(arm, selected, *, receiver="A", kind="learn"):
    return {
        "kind": kind,
        "result": {"cell": {"arm": arm, "receiver": receiver, "task": "lesion"}, "selected": selected},
    }


def test_selection_counts_cells_and_averages_shares():
    made = selection_table(
        [
            cell("average", {"g": 1.0}),
            cell("average", {"g": 0.25, "h": 0.75}),
            cell("average", {"h": 0.0}),
            cell("average", {}),
            cell("async", {"g": 1.0}),
            cell("average", {"g": 1.0}, receiver="B"),
            cell("async", None),
            cell("async", {"g": 0.0}, kind="another_kind"),
            {"kind": "learn", "result": {"selected": {"x": 1.0}}},  # of no cell
            {"kind": "learn", "result": {}},
            {"kind": "learn"},
        ],
        STUDY,
    )
    assert made is not None
    assert made["rows"] == [
        ["async", "A", "lesion", "g", "1 of 2", "50 %"],
        ["average", "A", "lesion", "g", "2 of 4", "31 %"],
        ["average", "A", "lesion", "h", "1 of 4", "19 %"],
        ["average", "B", "lesion", "g", "1 of 1", "100 %"],
    ]
    assert len(made["header"]) == len(made["text"]) == 6


def test_selection_of_nothing():
    assert selection_table([], STUDY) is None and selection_table([cell("async", None)], STUDY) is None
    made = selection_table([cell("async", {}), cell("async", {})], STUDY)
    assert made is not None and made["rows"] == [["async", "A", "lesion", "none", "0 of 2", "–"]]
