"""A study that is approved and asks for models of a few patients, in a few large steps: the node compares it with its minimums.

Each attack works where the minimums are not looked at.
"""

import pytest
from approved_node import ApprovedNode

from clients import minimums
from clients.centre_file import TRIAL_MINIMUMS

LOW = TRIAL_MINIMUMS.model_dump(mode="json")
B_GAN = "generators={b_gan: {centre: B, model: dcgan, width: 4, steps: 2, batch_size: 4}}"
ONE = "arms.one={strategy: one_shot, generators: [b_gan]}"


@pytest.fixture
def node(centre_file, tmp_path, patch_cache, federated):
    """Function: centre B, with some minimums above those of a trial, and a study that it has approved."""

    def make(overrides=(), **asked):
        scenario = federated(B_GAN, ONE, "study.test_on=[B]", *overrides)
        return ApprovedNode(
            centre_file, tmp_path, scenario, minimums=LOW | asked, cache=str(patch_cache), data=scenario.centres["B"].data.model_dump(
                mode="json"
            ),
        )  # fmt: skip

    return make


def off(monkeypatch):
    monkeypatch.setattr(minimums, "check", lambda *_: None)


# -- patients ----------------------------------------------------------------------------------------------------------

FEW = ["split={train: 0.1, val: 0.45, test: 0.45}"]


@pytest.mark.parametrize("overrides", [FEW, [*FEW, "task.crops=16"]])
def test_a_split_that_leaves_few_patients_trains_no_model(overrides, node, monkeypatch):
    made = node(overrides, training_patients=8)
    ask = made.asked("train_generator")
    reply = made.ask(ask)
    assert (reply.code, reply.arrays) == ("below_minimum", {})
    asked = {"rule": "minimums.training_patients", "asks": "at least 8 patients", "has": "fewer"}
    assert reply.numbers == asked, "how many there are is not told"
    off(monkeypatch)
    reply = made.ask(ask)
    assert reply.ok and reply.arrays, "the defence is what refuses"


def test_patients_are_counted_and_not_their_crops(node):
    """The same study has many more crops than patients."""
    made = node(["task.crops=16"], training_patients=30)
    assert made.ask(made.asked("train_generator")).code == "below_minimum"
    made = node(["task.crops=16"], training_patients=3)
    assert made.ask(made.asked("train_generator")).ok


def test_sums_of_few_patients_do_not_leave(node, monkeypatch):
    made = node(["task.crops=16"], sum_patients=40)
    ask = made.asked("feature_sums", "dm_gan")
    reply = made.ask(ask)
    assert (reply.code, reply.arrays) == ("below_minimum", {})
    assert reply.numbers["rule"] == "minimums.sum_patients" and reply.numbers["has"] == "fewer"
    off(monkeypatch)
    assert made.ask(ask).code != "below_minimum", "the defence is what refuses"


def test_a_class_of_few_test_patients_is_not_measured(node, monkeypatch):
    made = node(test_patients=20)
    ask = made.asked("test_classifier")
    network = ask.fixed["classifier"].build(0)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    reply = made.ask(ask, weights)
    assert (reply.code, reply.numbers["rule"]) == ("below_minimum", "minimums.test_patients")
    off(monkeypatch)
    assert made.ask(ask, weights).code == "not_signed", "refused for another reason, which comes after"


# -- how it is trained -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "asked", "rule", "has"),
    [
        ("batch_size=2", {"batch_size": 16}, "batch_size", "2"),
        ("steps=1", {"steps": 50}, "steps", "1"),
        ("learning_rate=0.5", {"learning_rate": [1e-6, 1e-2]}, "learning_rate", "0.5"),
        ("betas=[0.5, 1.0]", {"betas": [0, 0.9999]}, "betas", "0.5, 1"),
        ("smoothing=[0.0, 0.1]", {"smoothing": [0.7, 1.2]}, "smoothing", "0, 0.1"),
        ("width=1", {"width": 4}, "width", "1"),
    ],
)
def test_training_that_brings_out_single_images_is_refused(change, asked, rule, has, node, monkeypatch):
    made = node([f"generators.b_gan.{change}"], **asked)
    ask = made.asked("train_generator")
    reply = made.ask(ask)
    assert (reply.code, reply.numbers["rule"], reply.numbers["has"]) == ("below_minimum", f"minimums.{rule}", has)
    off(monkeypatch)
    assert made.ask(ask).code != "below_minimum", "the defence is what refuses"


def test_every_step_between_what_comes_in_and_what_leaves_counts(node):
    """A round of one local step is the gradient of a batch, however many rounds there are."""
    made = node(["arms.average.rounds=400", "arms.average.local_steps=1"], steps=50)
    kind = made.asked("train_round", "fedavg_gan").kind
    (line,) = [line for line in minimums.lines(made.file.minimums, kind, made.asked(kind.name, "fedavg_gan").outline, None)
               if line.rule == "steps"]  # fmt: skip
    assert (line.values, line.met) == ((1,), False)


def test_steps_of_jobs_that_answer_after_each_batch_are_counted_together(node):
    for updates, met in ((10, False), (60, True)):
        made = node([f"arms.remote.updates={updates}"], steps=50)
        ask = made.asked("train_discriminator")
        (line,) = [
            line for line in minimums.lines(made.file.minimums, ask.kind, ask.outline, None) if line.rule == "steps"
        ]
        assert line.values == (updates,) and line.met is met
