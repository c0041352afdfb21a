"""A server that asks again, asks otherwise, or sends weights of its choice: the node answers each question of a study once.

Each attack works where its defence is switched off.
"""

import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch
from approved_node import ApprovedNode

from clients import answers, policy, received_weights
from clients.approval import DAYS, Approvals
from clients.digests import content_digest
from clients.member_keys import BadSignature
from clients.side import NodeSide
from strategies import KINDS
from strategies.dm_gan.local import DISCRIMINATOR
from strategies.members import GLOBAL, LOCAL

CLASSIFIER = "arms.classifier={strategy: fedavg_classifier, rounds: 3, local_steps: 2, secure_aggregation: false}"


@pytest.fixture(scope="module")
def scenario(federated):
    """Federations of each kind; B trains a generator for A, tests A's classifiers and trains with C."""
    return federated(
        "generators={b_gan: {centre: B, model: dcgan, width: 4, steps: 2, batch_size: 4}}",
        "arms.one={strategy: one_shot, generators: [b_gan]}",
        "arms.average.alone=true", "arms.average.fidelity={spaces: []}", "arms.average.transport=fp32",
        CLASSIFIER,
        "arms.swapped={strategy: md_gan, model: wgan_gp, conditional: true, width: 32, critic_steps: 1, batch_size: 2, updates: 4,"
        " batches_per_job: 1, swap_every: 2, classes: both, fidelity: {spaces: []}}",
        "study.test_on=[B]",
    )  # fmt: skip


@pytest.fixture
def node(centre_file, tmp_path, patch_cache, scenario):
    """Function: a centre of the scenario that has approved it."""
    return lambda centre="B", **settings: ApprovedNode(
        centre_file, tmp_path, scenario, centre, cache=str(patch_cache), **settings
    )


def initial(ask, **found):
    """The weights with which honest rounds begin, as they travel."""
    body = ask.kind.body.model_construct(**ask.fixed, **found)
    return {GLOBAL + name: array for name, array in ask.kind.start.initial(body).items()}


def moved(arrays, by):
    """Weights that lie elsewhere."""
    return {name: (array + np.float32(by)).astype(np.float32) for name, array in arrays.items()}


def same(first, second):
    """Whether two replies hold the same, byte for byte."""
    return first.ok and second.ok and content_digest(first) == content_digest(second)


def off(monkeypatch, *parts):
    """Switch defences off, by name."""
    if "weights" in parts:
        monkeypatch.setattr(received_weights, "check", lambda *_: None)
    if "answers" in parts:
        monkeypatch.setattr(answers.Answers, "_check", lambda *_: False)
    if "signatures" in parts:
        monkeypatch.setattr(NodeSide, "verify", lambda *_: None)
    if "covered" in parts:
        monkeypatch.setattr(policy, "covered", lambda *_: None)


# -- weights of the server's choice ------------------------------------------------------------------------------------

ROUNDS = [("train_round", "fedavg_gan"), ("train_round", "cyclic"), ("train_classifier_round", "fedavg_classifier")]


@pytest.mark.parametrize(("kind", "strategy"), ROUNDS)
def test_a_round_does_not_begin_with_weights_of_the_servers_choice(kind, strategy, node, monkeypatch):
    made = node()
    ask = made.asked(kind, strategy)
    honest = initial(ask)
    for chosen in (moved(honest, 0.01), {name: np.zeros_like(array) for name, array in honest.items()}):
        reply = made.ask(ask, chosen, state=0)
        assert (reply.code, reply.arrays) == ("foreign_weights", {})
        assert reply.numbers["number"] == 0 and reply.numbers["far"] > reply.numbers["allowed"]
    assert made.ask(ask, honest, state=0).ok
    off(monkeypatch, "weights", "answers")
    assert made.ask(ask, moved(honest, 0.01), state=0, federation="cd34").ok, "the defence is what refuses"


@pytest.mark.parametrize(("kind", "strategy"), ROUNDS)
def test_later_rounds_lie_within_what_the_optimizers_can_do(kind, strategy, node, monkeypatch):
    made = node()
    ask = made.asked(kind, strategy)
    first = made.ask(ask, initial(ask), state=0)
    mean = {GLOBAL + name.removeprefix(LOCAL): array for name, array in first.arrays.items()}
    later = {"round": 1, "from_step": 2, "state_unit": first.unit}
    far = made.ask(ask, moved(mean, 1.5 * ask.reach), state=1, **later)
    assert (far.code, far.numbers["number"]) == ("foreign_weights", 1)
    assert made.ask(ask, mean, state=1, **later).ok
    # A round that this centre missed leaves room for two.
    assert made.ask(ask, moved(mean, 3.5 * ask.reach), state=2, round=2, from_step=4).code == "foreign_weights"
    off(monkeypatch, "weights")
    assert made.ask(ask, moved(mean, 3.5 * ask.reach), state=2, round=2, from_step=4).ok


def test_statistics_of_batch_norm_are_not_compared_and_cannot_hide_weights(node):
    made = node()
    ask = made.asked("train_round", "fedavg_gan")
    honest = initial(ask)
    free = ask.kind.start.free(ask.kind.body.model_construct(**ask.fixed))
    assert free and all(name.endswith(("running_mean", "running_var")) for name in free)
    other = {name: array + 1 if name.removeprefix(GLOBAL) in free else array for name, array in honest.items()}
    assert made.ask(ask, other, state=0).ok


# -- repetition --------------------------------------------------------------------------------------------------------


def test_one_round_is_answered_once_whatever_is_changed(node, monkeypatch):
    made = node()
    ask = made.asked("train_round", "fedavg_gan")
    honest = initial(ask)
    first = made.ask(ask, honest, state=0)
    # Asked again, also as another attempt under another id, or to introduce itself: the same bytes.
    for change in ({}, {"attempt": 3}, {"attempt": 1, "unit": "cd34"}, {"introduce": True}):
        assert same(first, made.ask(ask, honest, state=0, **change))
    within = moved(honest, 5e-5)
    changes = {"weights": (within, {}), "fresh": (honest, {"fresh": 1}), "state": (honest, {"state_unit": "x"})}
    for name, (arrays, found) in changes.items():
        assert made.ask(ask, arrays, state=0, **found).code == "answered_before", name
    off(monkeypatch, "answers")
    other = made.ask(ask, within, state=0, fresh=1)
    assert other.ok and not same(first, other)


def test_a_round_under_a_new_name_of_its_federation_is_refused_beyond_those_of_the_study(node):
    """The arm has a federation of all members, and one of this centre alone: two, whatever the server calls them."""
    made = node()
    ask = made.asked("train_round", "fedavg_gan")
    honest, asked = initial(ask), [one for one in made.plan.asks() if one.series == ask.series]
    replies = [made.ask(ask, honest, state=0, federation=f"name{number}") for number in range(len(asked) + 2)]
    assert [reply.code for reply in replies] == ["ok"] * len(asked) + ["answered_before"] * 2


def test_what_was_answered_before_the_last_two_is_refused(node):
    made = node()
    ask = made.asked("train_round", "fedavg_gan")
    arrays, jobs, replies, unit = initial(ask), [], [], ""
    for number in range(4):
        jobs.append(made.job(ask, arrays, number, round=number, from_step=2 * number, state_unit=unit))
        replies.append(made.answer(jobs[-1]))
        assert replies[-1].ok
        arrays = {GLOBAL + name.removeprefix(LOCAL): array for name, array in replies[-1].arrays.items()}
        unit = replies[-1].unit
    again = [made.answer(job, unit=f"again{number}") for number, job in enumerate(jobs)]
    assert [reply.code for reply in again] == ["answered_before", "answered_before", "ok", "ok"]
    assert same(again[2], replies[2]) and same(again[3], replies[3])


def test_a_kept_answer_is_not_worked_out_again_where_it_is_gone(node):
    made = node()
    ask = made.asked("train_round", "fedavg_gan")
    job = made.job(ask, initial(ask), 0)
    assert made.answer(job).ok
    shutil.rmtree(made.file.workspace / "studies" / made.digest / "states")
    assert made.answer(job).code == "answered_before"


def test_a_generator_is_trained_once_and_sent_again_as_it_was(node, monkeypatch):
    made = node()
    ask = made.asked("train_generator")
    first = made.ask(ask)
    worked = []
    monkeypatch.setattr("clients.app._done", lambda *args, **named: worked.append(args))
    assert same(first, made.ask(ask, unit="another")) and not worked


def test_the_survey_looks_again_and_other_data_are_not_told_of(node, tmp_path):
    made = node()
    ask = made.asked("survey_data")
    assert made.ask(ask).ok and made.ask(ask).ok
    body = made.path.read_text()
    made.path.write_text(body + "data: {source: phantom, patients: 25, scanner: film}\n")
    assert made.ask(ask).code == "data_changed"
    made.approvals.add(made.resolved, again=True)
    assert made.ask(ask).ok


# -- a test as an oracle -----------------------------------------------------------------------------------------------


def classifier(made):
    """A classifier that A learned for a cell that B tests, with A's signature."""
    learner = made("A")
    ask = learner.asked("learn_classifier", "local")
    reply = learner.ask(ask)
    assert reply.ok and reply.body["signature"]
    return {name.removeprefix("classifier."): array for name, array in reply.arrays.items()}, reply.body["signature"]


def test_only_a_members_own_classifier_is_tested_and_once(node, monkeypatch):
    weights, signature = classifier(node)
    tester = node()
    ask = tester.asked("test_classifier", "local")
    chosen = {name: np.zeros_like(array) for name, array in weights.items()}
    for arrays, sign in ((chosen, signature), (weights, ""), (weights, "zz"), (weights, signature[:-2] + "00")):
        reply = tester.ask(ask, arrays, signature=sign)
        assert (reply.code, reply.numbers) == ("not_signed", {"member": "A", "what": "a classifier"})
    first = tester.ask(ask, weights, signature=signature)
    assert first.ok and same(first, tester.ask(ask, weights, signature=signature))
    off(monkeypatch, "signatures")
    assert tester.ask(ask, chosen, signature=signature).code == "answered_before"
    off(monkeypatch, "answers")
    assert not same(first, tester.ask(ask, chosen, signature=signature))


def brightest(weights, threshold):
    """A classifier that says whether the brightest pixel of the upper left quarter exceeds a grey level: one bit of each image."""
    found = {name: np.zeros_like(array) for name, array in weights.items()}
    for name, array in found.items():
        if name.endswith("running_var"):
            array[...] = 1
    for block in range(4):
        found[f"block{block}.0.weight"][0, 0, 1, 1] = 1
        found[f"block{block}.1.weight"][0] = (1 + 1e-5) ** 0.5
        found[f"block{block}.0.bias"][0] = 1.0 if block == 0 else 0.0
    found["hidden.0.weight"][:2, 0] = 1, -1
    found["hidden.0.bias"][:2] = -threshold, threshold
    found["hidden.1.weight"][:2] = (1 + 1e-5) ** 0.5
    found["output.weight"][1, 0] = found["output.weight"][0, 1] = 1e4
    return found


def test_without_the_two_defences_a_few_tests_read_a_grey_level_of_a_patient(
    node, monkeypatch, federated, centre_file, tmp_path, patch_cache
):
    scenario = federated("study.classifiers=[cnn]", "study.test_on=[B]", "arms={real: {strategy: local}}")
    made = ApprovedNode(centre_file, tmp_path, scenario, cache=str(patch_cache))
    ask = made.asked("test_classifier")
    body = ask.kind.body.model_construct(**ask.fixed, signature="")
    weights = {name: np.zeros(one.shape, one.dtype) for name, one in ask.kind.layout_in(body).items()}
    assert made.ask(ask, brightest(weights, 1.0)).code == "not_signed"
    off(monkeypatch, "signatures", "answers")
    side = NodeSide(policy_node(made), made.job(ask))
    images = side.patches(ask.kind.parse(made.job(ask).body)).select(split="test")
    truth = images.stored(np.arange(len(images)))[:, 0, :16, :16].max(axis=(1, 2)).max()
    low, high = 0.0, 255.0

    def told(threshold):
        metrics = made.ask(ask, brightest(weights, threshold / 127.5)).body["metrics"]
        return metrics["accuracy"], metrics["f1"]

    none = told(3 * 127.5)
    for _ in range(8):
        middle = (low + high) / 2
        above = told(middle) != none
        low, high = (middle, high) if above else (low, middle)
    assert abs((low + high) / 2 - truth) < 1.5


def policy_node(made):
    from clients.node import Node

    return Node(
        made.centre, made.file.workspace, made.file.cache_folder, deployed=True, file=made.file, study=made.digest
    )


def averaged(ask, by=0.0):
    """The weights with which rounds begin, as they travel to the receiver."""
    body = ask.kind.body.model_construct(**ask.fixed)
    return moved({"weights." + name: array for name, array in ask.kind.start.initial(body).items()}, by)


def test_a_federated_classifier_is_validated_as_often_as_it_has_rounds(node, monkeypatch):
    made = node("A")
    ask = made.asked("validate_classifier")
    off(monkeypatch, "weights")
    replies = [made.ask(ask, averaged(ask, number), round=min(number + 1, 3)) for number in range(ask.limit + 2)]
    assert [reply.code for reply in replies] == ["ok"] * ask.limit + ["answered_before"] * 2


def test_only_weights_of_the_rounds_are_validated(node, monkeypatch):
    made = node("A")
    ask = made.asked("validate_classifier")
    assert made.ask(ask, averaged(ask, 1.5 * ask.reach), round=1).code == "foreign_weights"
    assert made.ask(ask, averaged(ask, 0.9 * ask.reach), round=1).ok
    # The next ones lie near these, and not only near the first.
    assert made.ask(ask, averaged(ask, -0.9 * ask.reach), round=2).code == "foreign_weights"
    off(monkeypatch, "weights")
    assert made.ask(ask, averaged(ask, 50.0), round=2).ok, "the defence is what refuses"


def test_only_weights_that_came_before_are_adopted(node, monkeypatch):
    made = node("A")
    validation, adoption = made.asked("validate_classifier"), made.asked("adopt_classifier")
    found = {
        "history": {"step": [2], "val_auprc": [0.5], "stage": ["federated"]},
        "best": {"step": 2, "val_auprc": 0.5},
    }
    one, other = averaged(validation), averaged(validation, 0.5 * validation.reach)
    assert made.ask(adoption, one, **found).code == "unknown_weights"
    assert made.ask(validation, one, round=1).ok
    assert made.ask(adoption, other, **found).code == "unknown_weights"
    assert made.ask(adoption, one, **found).ok
    off(monkeypatch, "weights", "answers")
    assert made.ask(adoption, other, **found).ok, "the defence is what refuses"


# -- weights of a file -------------------------------------------------------------------------------------------------


@pytest.fixture
def begun_from_a_file(federated, tmp_path):
    """(scenario whose classifier begins with the weights of a file, that file)."""
    from safetensors.torch import save_file

    from models import ClassifierSpec

    spec = ClassifierSpec(model="cnn_small", image_size=32, channels=1, num_classes=2)
    save_file(
        {name: tensor.contiguous() for name, tensor in spec.build(99).state_dict().items()},
        tmp_path / "begin.safetensors",
    )
    scenario = federated(
        CLASSIFIER, f"study.classifiers=[{{model: cnn_small, pretrained: {tmp_path}/begin.safetensors}}]"
    )
    return scenario, tmp_path / "begin.safetensors"


@pytest.mark.parametrize("kind", ["train_classifier_round", "learn_classifier"])
def test_a_study_opens_no_file_of_weights_that_the_hospital_does_not_list(
    kind, centre_file, begun_from_a_file, tmp_path, patch_cache
):
    scenario, file = begun_from_a_file
    centre = "B" if kind == "train_classifier_round" else "A"
    plain = ApprovedNode(centre_file, tmp_path / "plain", scenario, centre, cache=str(patch_cache))
    ask = plain.asked(kind)
    assert ask.fixed["classifier"].pretrained_sha256 is not None, "the scenario that is approved names the content"
    arrays, state = (initial(ask), 0) if kind == "train_classifier_round" else ({}, None)
    refused = plain.ask(ask, arrays, state)
    assert (refused.code, refused.numbers) == ("no_weights", {"sha256": ask.fixed["classifier"].pretrained_sha256})
    # Its own copy has another name.
    own = file.rename(tmp_path / "own.safetensors")
    listed = ApprovedNode(
        centre_file, tmp_path / "listed", scenario, centre, cache=str(patch_cache), weights=[str(own)]
    )
    assert listed.ask(listed.asked(kind), arrays, state).ok


def test_the_first_weights_of_a_file_are_compared_with_the_hospitals_own(
    centre_file, begun_from_a_file, tmp_path, patch_cache, monkeypatch
):
    scenario, file = begun_from_a_file
    made = ApprovedNode(centre_file, tmp_path, scenario, "B", cache=str(patch_cache), weights=[str(file)])
    ask = made.asked("train_classifier_round")
    honest = initial(ask)
    assert made.ask(ask, moved(honest, 0.01), state=0).code == "foreign_weights"
    assert made.ask(ask, honest, state=0).ok
    off(monkeypatch, "weights", "answers")
    assert made.ask(ask, moved(honest, 0.01), state=0, federation="cd34").ok, "the defence is what refuses"


# -- discriminators ----------------------------------------------------------------------------------------------------


def fakes(ask, **found):
    body = ask.kind.body.model_construct(**ask.fixed, **found)
    return {
        name: np.ones(one.shape, one.dtype)
        for name, one in ask.kind.layout_in(body).items()
        if name.startswith("fake.")
    }


def discriminator(ask, change=lambda name, array: array):
    from models.federated_parts import averaged_state
    from strategies.dm_gan.phases import build_gan

    own = averaged_state(build_gan(ask.fixed["generator"], 0).networks["discriminator"])
    return {DISCRIMINATOR + name: change(name, tensor.numpy()) for name, tensor in own.items()}


HERE = {"labels": (0, 1), "discriminator_of": "", "batches": 1}


def test_a_discriminator_is_not_taken_over_where_none_changes_places(node):
    made = node()
    ask = made.asked("train_discriminator", "dm_gan")
    found = {"batches": 1, "labels": (1,), "discriminator_of": ""}
    brought = fakes(ask, **found) | discriminator(ask)
    assert made.ask(ask, brought, state=0, **found).code == "wrong_arrays"
    said = found | {"discriminator_of": "C"}
    reply = made.ask(ask, brought, state=0, **said)
    assert (reply.code, reply.numbers) == ("not_in_study", {"key": "discriminator_of"})


def test_a_discriminator_changes_places_when_it_is_due_and_with_the_signature_of_who_trained_it(node, monkeypatch):
    made, other = node(), node("C")
    ask, theirs = made.asked("train_discriminator", "md_gan"), other.asked("train_discriminator", "md_gan")
    sent = other.ask(theirs, fakes(theirs, **HERE), state=0, **HERE, version=1, send_discriminator=True)
    assert sent.ok, sent.code
    signature = sent.body["signature"]
    brought = {name: array for name, array in sent.arrays.items() if name.startswith(DISCRIMINATOR)}
    images = fakes(ask, **HERE)
    due = HERE | {"discriminator_of": "C", "signature": signature, "version": 2, "state": 0}
    early = made.ask(ask, images | brought, **(due | {"version": 1}))
    assert (early.code, early.numbers) == ("not_in_study", {"key": "discriminator_of"})
    for change, arrays in (
        ({"signature": ""}, brought), ({}, discriminator(ask)), ({"discriminator_of": "A"}, brought), ({"version": 4}, brought),
        ({"federation": "other"}, brought),
    ):  # fmt: skip
        reply = made.ask(ask, images | arrays, **(due | change))
        assert reply.code in ("not_signed", "not_in_study"), (change, reply.code)
    assert made.ask(ask, images | brought, **due).ok
    off(monkeypatch, "signatures")
    chosen = made.ask(ask, images | discriminator(ask), **(due | {"version": 3, "from_step": 1, "state": 1}))
    assert chosen.ok, "the signature is what refuses"


def test_a_discriminator_leaves_only_when_it_is_due(node):
    made = node()
    ask = made.asked("train_discriminator", "md_gan")
    for version, code in ((0, "not_in_study"), (2, "not_in_study"), (1, "ok")):
        reply = made.ask(ask, fakes(ask, **HERE), state=0, **HERE, version=version, send_discriminator=True)
        assert reply.code == code


SMALL = 1e-5  # weights of a layer: so small that Adam's step stays proportional to the gradient


def trap(made, ask):
    """A discriminator whose step after one real batch is that batch: convolutions that fold the picture into channels."""
    arrays = discriminator(ask, lambda name, array: np.zeros_like(array))
    plain = {name.removeprefix(DISCRIMINATOR): array for name, array in arrays.items()}
    folds = [name for name, array in plain.items() if name.startswith("layers.") and array.ndim == 4][:-1]
    channels = 1
    for name in folds:
        for channel in range(channels):
            for row in range(2):
                for column in range(2):
                    plain[name][channel * 4 + row * 2 + column, channel, 2 + row, 2 + column] = SMALL
        channels *= 4
    plain[folds[0]][:4, 1] = plain[folds[0]][:4, 0]  # the image of the label is added to the picture
    # Label 1 opens (2 everywhere), label 0 shuts (the flat side of the activation).
    plain["label_image.0.weight"][1, 0], plain["label_image.0.weight"][0, 0] = 1.0, -1.0
    plain["label_image.1.weight"][:, 0], plain["label_image.1.bias"][:] = 11.0, -9.0
    return arrays, len(folds)


def test_without_the_signature_the_gradient_of_the_images_is_a_real_patch(node, monkeypatch):
    made = node()
    ask = made.asked("train_discriminator", "md_gan")
    arrays, layers = trap(made, ask)
    found = HERE | {"discriminator_of": "C", "version": 2, "state": 0}
    assert made.ask(ask, fakes(ask, **found) | arrays, **found).code == "not_signed"
    off(monkeypatch, "signatures")
    reply = made.ask(ask, fakes(ask, **found) | arrays, **found)
    assert reply.ok, reply.code
    scale = SMALL**layers
    weights = -2 * reply.arrays["gradient.images"][0][1, 0].astype(np.float64) / scale
    opened = weights / float(ask.fixed["generator"].training.learning_rate) * 1e-8 / scale * 2
    flat = 0.1**layers
    picture = (opened + 3.0 - flat - 2.0 + 2.0 * flat + 1) * 127.5
    body = ask.kind.parse(made.job(ask, **found).body)
    own = NodeSide(policy_node(made), made.job(ask, **found)).patches(body).select(split="train")
    truth = own.stored(np.arange(len(own)))[:, 0].astype(np.float64)
    turned = [picture, picture[::-1], picture[:, ::-1], picture[::-1, ::-1]]
    error = min(np.abs(truth - one).mean(axis=(1, 2)).min() for one in turned)
    assert error < 0.5, "a real patch, to half a grey level"


# -- approvals ---------------------------------------------------------------------------------------------------------


def test_results_of_a_revoked_study_do_not_leave_under_another_approval(
    node, federated, centre_file, tmp_path, patch_cache
):
    made = node()
    ask = made.asked("train_round", "fedavg_gan")
    first = made.ask(ask, initial(ask), state=0, unit="shared")
    kept = made.file.workspace / "studies" / made.digest
    assert first.ok and any((kept / "states").rglob("*.safetensors"))
    made.approvals.remove(made.digest)
    assert made.ask(ask, initial(ask), state=0, unit="shared").code == "study_not_approved"
    assert [path.name for path in kept.iterdir()] == ["answers.json"], "what was answered stays known, nothing else"
    other = ApprovedNode(
        centre_file, tmp_path, federated("name=other", CLASSIFIER),
        cache=str(patch_cache),
    )  # fmt: skip
    theirs = other.asked("train_classifier_round")
    reply = other.ask(theirs, initial(theirs), state=0, unit="shared")
    assert reply.ok and not set(reply.arrays) & set(first.arrays) - set(initial(theirs))
    assert content_digest(reply) != content_digest(first)


@pytest.mark.parametrize("end", ["revoked", "paused"])
def test_an_approval_that_ends_while_a_job_runs_keeps_its_answer_here(end, node, monkeypatch):
    made = node()
    ask = made.asked("train_generator")
    real = KINDS["train_generator"].work

    def meanwhile(*args):
        answer = real(*args)
        if end == "paused":
            (made.file.workspace / policy.PAUSED).touch()
        else:
            made.approvals.remove(made.digest)
        return answer

    monkeypatch.setattr("clients.app.KINDS", {**KINDS, "train_generator": with_work(meanwhile)})
    reply = made.ask(ask)
    assert reply.code == ("paused" if end == "paused" else "study_not_approved") and not reply.arrays
    monkeypatch.setattr("clients.app.KINDS", KINDS)
    if end == "paused":  # after the pause it is answered from what was kept
        (made.file.workspace / policy.PAUSED).unlink()
        monkeypatch.setattr("clients.app._done", None)
        assert made.ask(ask).ok
    else:
        kept = made.file.workspace / "studies" / made.digest
        assert not list(kept.glob("*.safetensors"))


def with_work(work):
    from dataclasses import replace

    return replace(KINDS["train_generator"], work=work)


def test_without_the_second_look_the_answer_leaves(node, monkeypatch):
    made = node()
    ask = made.asked("train_generator")
    real, covered, looked = KINDS["train_generator"].work, policy.covered, []

    def meanwhile(*args):
        answer = real(*args)
        made.approvals.remove(made.digest)
        return answer

    monkeypatch.setattr("clients.app.KINDS", {**KINDS, "train_generator": with_work(meanwhile)})
    monkeypatch.setattr(policy, "covered", lambda *args: covered(*args) if not looked else None)
    monkeypatch.setattr(answers.Answers, "keep", lambda *_: looked.append(1))
    assert made.ask(ask).ok


def test_an_approval_ends_by_itself_and_may_be_prolonged(node):
    made = node()
    job, later = made.job(made.asked("survey_data")), datetime.now(UTC) + timedelta(days=DAYS, minutes=1)
    from clients.node import Refusal

    policy.accept(policy_node(made), job)
    with pytest.raises(Refusal) as refusal:
        policy.accept(policy_node(made), job, later)
    assert refusal.value.code == "approval_ended"
    made.approvals.add(made.resolved, days=2 * DAYS)
    policy.accept(policy_node(made), job, later)


def test_an_approval_of_an_earlier_version_says_no_end_and_is_not_enough(node):
    made = node()
    (made.file.workspace / "approved" / f"{made.digest}.until.json").unlink()
    assert made.ask(made.asked("survey_data")).code == "approval_ended"


def test_a_node_that_lost_its_memory_waits_for_its_administrator(node):
    made = node()
    ask = made.asked("train_generator")
    assert made.ask(ask).ok
    shutil.rmtree(made.file.workspace / "studies")
    assert made.ask(ask, unit="other").code == "counts_lost"
    Approvals(made.file.workspace).add(made.resolved)
    assert made.ask(ask, unit="other").ok


def test_who_is_not_listed_has_signed_nothing(node):
    made = node(members={})
    ask = made.asked("test_classifier", "local")
    body = ask.kind.body.model_construct(**ask.fixed, signature="")
    weights = {name: np.zeros(one.shape, one.dtype) for name, one in ask.kind.layout_in(body).items()}
    assert made.ask(ask, weights).code == BadSignature.code


torch.set_num_threads(1)
