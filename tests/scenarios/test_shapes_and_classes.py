"""Rectangles, depths and classes in a scenario: what is planned, and each mistake in one line before anything runs."""

import pytest
from yaml_changes import with_values

from scenarios.plan import Plan
from scenarios.reader import ScenarioError, parse

BASE = """
name: many
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 20}}
  B: {roles: [provider], data: {source: phantom, patients: 20}}
  C: {roles: [provider], data: {source: phantom, patients: 20}}
task: {classes: [healthy, mass, calcification], others: leave_out, image_size: [160, 128]}
generators:
  all: {centre: B, model: dcgan, width: 2, conditional: true, steps: 3, batch_size: 6}
  mass: {centre: B, model: wgan_gp, width: 2, makes: [mass], steps: 3, batch_size: 4}
  two: {centre: C, model: dcgan, width: 2, conditional: true, makes: [mass, healthy], steps: 3, batch_size: 4}
arms:
  none: {strategy: local}
  one: {strategy: one_shot, generators: [all]}
  each: {strategy: one_shot, generators: [mass, two], classes: [mass, healthy], synthetic: 11}
  average: {strategy: fedavg_gan, model: dcgan, width: 2, conditional: true, rounds: 2, local_steps: 2, batch_size: 6}
study: {classifiers: [cnn_small], synthetic: 10}
"""


def read(tmp_path, **places):
    return parse(with_values(BASE, **places), source="x.yaml", base=tmp_path, overrides=[])


def test_generators_say_their_classes_and_share_out_what_is_wanted(tmp_path):
    plan = Plan(read(tmp_path))
    specs = {name: plan.generator_spec(name, "lesion") for name in ("all", "mass", "two", "average")}
    assert {name: spec.labels for name, spec in specs.items()} == {
        "all": (0, 1, 2), "mass": (1,), "two": (0, 1), "average": (0, 1, 2)
    }  # fmt: skip
    assert specs["mass"].num_classes is None and specs["two"].num_classes == 3
    assert all(spec.shape == (1, 160, 128) for spec in specs.values())
    counts = {arm: delivery.counts for (arm, _, _), delivery in plan.deliveries.items()}
    assert counts["one"] == ({0: 10, 1: 10, 2: 10},)
    # Two make masses, one makes healthy patches.
    assert counts["each"] == ({1: 6}, {0: 11, 1: 5})
    assert plan.classifier_spec("cnn_small", "lesion").num_classes == 3
    for ask in plan.asks():
        assert ask.kind.name


def test_a_chosen_generator_makes_as_many_as_all_together(tmp_path):
    plan = Plan(read(tmp_path, arms__each__choose={"by": "distance"}))
    assert plan.deliveries["each", "A", "lesion"].counts == ({1: 11}, {0: 11, 1: 11})


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"task__image_size": [160, 130]}, r"generators\.all: image_size is 160x130 px; dcgan makes sides of 4 to 8 times"),
        ({"task__image_size": [160, 96]}, r"arms\.average: image_size is 160x96 px; dcgan makes sides of 4 to 8 times"),
        ({"task__image_size": [160, 130]}, r"study\.classifiers: cnn_small: image_size is 160x130 px; cnn_small takes a smaller side"),
        ({"task__image_size": [2000, 128]}, r"task\.image_size: .*has height 2000; sides lie between 16 and 1280 pixels"),
        ({"task__image_size": "64x64"}, r"task\.image_size: .*give a number of pixels such as 64, or \[height, width\]"),
        ({"task__classes": ["healthy"]}, r"classes are 1; name 2 to 100"),
        ({"task__classes": ["healthy", "mass", "mass"]}, r"classes name 'mass' twice"),
        ({"task__label": "malignancy"}, r"classes of label malignancy are benign, malignant in this order, not healthy, mass, calcif"),
        ({"task__labels": ["a", "b"]}, r"no multi-label, no tabular data"),
        ({"generators__mass__makes": ["Mass"]}, r"generators\.mass: no class 'Mass'; the task's classes are healthy, mass, calcification"),
        ({"generators__mass__makes": None}, r"generators\.mass: the task has 3 classes and the model is not conditional; set conditional"),
        ({"generators__two__conditional": False}, r"generators\.two: makes healthy, mass without labels"),
        ({"generators__all__quarter_turns": True}, r"generators\.all: quarter_turns is true, but images are 160x128 px"),
        ({"arms__average__conditional": False}, r"arms\.average: the task has 3 classes and the model is not conditional"),
        ({"arms__average__makes": ["mass"]}, r"arms\.average\.classes: 'healthy' is shared, but its model makes mass only"),
        ({"arms__one__classes": "lesion"}, r"arms\.one\.classes: lesion, but the task has 3 classes .*; set classes: all, or list some"),
        ({"arms__one__classes": ["masses"]}, r"arms\.one\.classes: no class 'masses'; the task's classes are healthy, mass, calcification"),
        ({"arms__each__classes": ["calcification"]}, r"arms\.each\.classes: no generator makes 'calcification' \(mass makes mass; two "),
        ({"arms__one__use": "only", "arms__one__classes": ["mass"]}, r"arms\.one\.use: only, but healthy, calcification is not shared"),
        ({"study__classes": "lesion"}, r"classes: lesion, but the task has 3 classes"),
        ({"arms__none__oversample": 10}, r"arms\.none\.oversample: draws own positives again, and task 'lesion' has 3 classes"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(places, words, tmp_path):
    with pytest.raises(ScenarioError, match=words):
        read(tmp_path, **places)


def test_mistakes_are_said_once_each(tmp_path):
    with pytest.raises(ScenarioError) as refused:
        read(tmp_path, generators__mass__makes=["Mass"])
    assert len(str(refused.value).splitlines()) == 1
