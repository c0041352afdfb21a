"""A federated classifier: rounds are local training, centres are averaged, validation decides, fine-tuning may only help."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from federation.wire.availability import Availability
from federation.wire.exchange import run_together
from federation.wire.transport import decode
from metrics import METRICS
from models import ClassifierSpec, ClassifierTraining, Stage, predict
from models.federated_parts import averaged_state
from models.fit_classifier import StageTrainer
from models.stages import BalancedDraws
from strategies import learning
from strategies.ask import Ask, anything
from strategies.bodies import CellName, Size
from strategies.centre_side import as_arrays
from strategies.fedavg_classifier.local import ADOPT, TRAIN_ROUND, VALIDATE, local_steps, proximal, validated
from strategies.fedavg_classifier.server import ClassifierFederation, ClassifierTrainedTogether
from strategies.members import Member, RoundSettings, round_ask

SPEC = ClassifierSpec.model_validate({"model": "cnn_small", "image_size": 32, "channels": 1, "num_classes": 2})
CELL = CellName(
    arm="arm", strategy="fedavg_classifier", task="task", classifier="c", real_fraction=1.0, real_images=None, repeat=0,
    receiver="A",
)  # fmt: skip


def training(**changes):
    return ClassifierTraining(**{"batch_size": 8, "learning_rate": 0.01, "validate_every": 2} | changes)


def initial(seed=5):
    return {name: tensor.numpy() for name, tensor in averaged_state(SPEC.build(seed)).items()}


def a_round(patches, weights, state, *, number=0, steps=3, rounds=4, how=None, optimizer="keep", mu=0.0, seed=9):
    return local_steps(
        SPEC, patches, weights, state, how or training(), optimizer=optimizer, proximal_mu=mu, seed=seed,
        from_step=number * steps, steps=steps, of_steps=rounds * steps, device="cpu", precision="fp32",
    )  # fmt: skip


@pytest.fixture(scope="module")
def patches(split_patches):
    """Training patches of one centre."""
    return as_arrays(split_patches(36, 0).select(split="train"))


# -- the local half ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [training(), training(optimizer="sgd"), training(schedule="constant", channels_last=False)],
    ids=["adamw", "sgd", "constant"],
)  # fmt: skip
def test_rounds_of_one_centre_are_local_training_bit_for_bit(how, patches, same_arrays):
    """4 rounds of 3 steps whose moments are kept = 1 round of 12 = a stage of 12 steps with its learning-rate schedule."""
    weights, state = initial(), {}
    for number in range(4):
        weights, state, facts = a_round(patches, weights, state, number=number, how=how)
    at_once, _, _ = a_round(patches, initial(), {}, steps=12, rounds=1, how=how)
    network = SPEC.build(5)
    if how.channels_last:
        network.to(memory_format=torch.channels_last)
    stage = Stage("any", 12, how.learning_rate, {"real": 1.0})
    StageTrainer(
        network, None, BalancedDraws({"real": patches}, stage), stage, how, seed=9, device="cpu", precision="fp32"
    ).advance(12)
    same_arrays(weights, at_once)
    same_arrays(weights, {name: tensor.numpy() for name, tensor in averaged_state(network).items()})
    assert state and all(array.dtype == np.float32 for array in state.values())
    assert math.isfinite(facts["scalars"]["loss"])


def test_the_cosine_goes_over_all_rounds(patches):
    """The last steps of a schedule move the weights least; of a schedule of one round each time they would not."""
    moved = {}
    for number in (0, 3):
        weights, _, _ = a_round(patches, initial(), {}, number=number, how=training(optimizer="sgd", momentum=0.0))
        moved[number] = sum(np.abs(weights[n] - initial()[n]).sum() for n in initial() if "running" not in n)
    rates = [0.5 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert moved[3] / moved[0] == pytest.approx(sum(rates[9:]) / sum(rates[:3]), rel=0.5)


def test_moments_begin_anew_where_they_are_reset(patches):
    results = {}
    for optimizer in ("keep", "reset"):
        weights, state = initial(), {}
        for number in range(2):
            weights, state, _ = a_round(patches, weights, state, number=number, optimizer=optimizer)
            results[optimizer, number] = weights["output.weight"]
        assert bool(state) == (optimizer == "keep")
    assert np.array_equal(results["keep", 0], results["reset", 0])
    assert not np.array_equal(results["keep", 1], results["reset", 1])


def test_the_penalty_is_half_mu_times_the_squared_drift_and_its_gradient_mu_times_the_drift():
    network = SPEC.build(1)
    penalty = proximal(network, 0.7)
    assert penalty(network).item() == 0
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    value = penalty(network)
    value.backward()
    drifts = [p.detach() - anchor for p, anchor in zip(network.parameters(), before, strict=True)]
    expected = 0.35 * sum(float((drift.double() ** 2).sum()) for drift in drifts)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    for parameter, drift in zip(network.parameters(), drifts, strict=True):
        torch.testing.assert_close(parameter.grad, 0.7 * drift)


def test_a_proximal_term_is_no_force_in_a_first_step_and_holds_the_weights_later(patches, same_arrays):
    how = training(optimizer="sgd", weight_decay=0.0, momentum=0.0)
    same_arrays(*(a_round(patches, initial(), {}, steps=1, how=how, mu=mu)[0] for mu in (0.0, 5.0)))
    drift = {}
    for mu in (0.0, 50.0):
        weights, _, _ = a_round(patches, initial(), {}, steps=12, how=how, mu=mu)
        drift[mu] = sum(np.square(weights[n] - initial()[n]).sum() for n in weights if "running" not in n)
    assert 0 < drift[50.0] < 0.7 * drift[0.0]


def test_validation_is_on_statistics_of_the_receivers_own_patches(split_patches):
    """What batch norm had learned elsewhere does not matter: it is recomputed before validating."""
    receiver = split_patches(36, 0)
    own, validation = (as_arrays(receiver.select(split=split)) for split in ("train", "val"))
    weights, _, _ = a_round(own, initial(), {}, steps=12, rounds=1)
    strange = {n: a + np.float32(7) if n.endswith(("running_mean", "running_var")) else a for n, a in weights.items()}
    options = {"device": "cpu", "precision": "fp32"}
    auprc, network = validated(SPEC, weights, own, validation, training(), **options)
    same, _ = validated(SPEC, strange, own, validation, training(), **options)
    assert auprc == same
    assert auprc == METRICS["auprc"](validation.labels, predict(network, validation)[:, 1])


# -- federations ---------------------------------------------------------------------------------------------


class Consortium:
    """Receiver A and providers over a laboratory, with `federation(...)` to run."""

    def __init__(self, here, split_patches, patients, own):
        self.here, self.own = here, own
        for seed, (name, number) in enumerate(patients.items()):
            here.datasets[name] = split_patches(number, seed)

    def federation(
        self, settings, clock=None, seed=5, fine_tune=0, aggregation="FedAvg", how=None, size=None, subset_seed=0,
        optimizer="keep", mu=0.0,
    ):  # fmt: skip
        how = how or training()
        common = self.own | {
            "size": size or Size(fraction=None, images=None), "subset_seed": subset_seed, "classifier": SPEC, "training": how,
        }  # fmt: skip
        course = {"optimizer": optimizer, "proximal_mu": mu, "of_steps": settings.rounds * settings.local_steps,
                  "build_seed": seed}  # fmt: skip
        members = [
            Member(round_ask(TRAIN_ROUND, CELL.strategy, c, "task", settings, common | course | {"seed": 100 + ord(c)}))
            for c in self.here.datasets
        ]
        adoption = common | {"cell": CELL, "seed": 1, "fine_tune": fine_tune, "send_classifier": True, "metrics": ()}
        found_out = dict.fromkeys(("federation", "history", "best"), anything)
        of_round = dict.fromkeys(("federation", "round"), anything)
        federation = ClassifierFederation(
            arm="arm", task="task", label="arm of A", spec=SPEC, seed=seed, members=members,
            settings=settings, aggregation=aggregation, options={}, select=how.select,
            validation=Ask(
                VALIDATE, CELL.strategy, "A", "task", common | {"build_seed": seed, "transport": settings.transport}, of_round
            ),
            adoption=Ask(ADOPT, CELL.strategy, "A", "task", adoption, found_out),
        )  # fmt: skip
        return ClassifierTrainedTogether(self.here.units, federation, clock or self.here.clock())

    def run(self, centres, settings, **options):
        return run_together(centres, {0: self.federation(settings, **options).share(centres)})[0]


@pytest.fixture
def consortium(lab, split_patches, own_data, compute):
    """Function: a consortium of so many patients at each centre."""

    def make(**patients):
        return Consortium(lab(**patients), split_patches, patients, own_data | {"compute": compute})

    return make


def scripted(*auprcs):
    """Spoils the receiver's validations: round by round these values."""
    left = iter(auprcs)

    def spoil(job, reply):
        return replace(reply, body={"val_auprc": next(left)}) if job.kind == "validate_classifier" else None

    return spoil


def plain(arrays, prefix):
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def test_centres_are_averaged_by_their_number_of_training_patches(consortium):
    both = consortium(A=12, B=36)
    centres = both.here.centres()
    both.run(centres, RoundSettings(2, 3))
    before, states = initial(), [{}, {}]
    for number in range(2):
        answers = []
        for i, (name, whole) in enumerate(both.here.datasets.items()):
            part = as_arrays(whole.select(split="train"))
            answer, states[i], _ = a_round(
                part, before, states[i], number=number, rounds=2, seed=100 + ord(name), optimizer="keep"
            )
            answers.append(answer)
        # 4 and 12 of each class: the first are hidden and count 5 together, the second 10 each.
        before = {n: (5 * answers[0][n].astype(np.float64) + 20 * answers[1][n]) / 25 for n in answers[0]}
        before = {n: array.astype(np.float32) for n, array in before.items()}
        found = plain(centres.sent("validate_classifier")[number].arrays, "weights.")
        assert found.keys() == before.keys()
        for name in found:
            np.testing.assert_allclose(found[name], before[name], atol=1e-5, err_msg=name)
    assert not any("num_batches_tracked" in name for job in centres.jobs for name in job.arrays)


def test_only_the_receivers_subset_takes_part_of_its_patches(consortium):
    both = consortium(A=36, B=12)
    centres = both.here.centres()
    both.run(centres, RoundSettings(1, 1), size=Size(fraction=0.5, images=None), subset_seed=3)
    examples = {r.centre: r.body["examples"] for r in centres.replies if r.kind == "train_classifier_round"}
    assert examples == {"A": 10, "B": 5}, "6 of each class, each shown as 5; and 2 of each, which are hidden"


@pytest.mark.parametrize(
    ("auprcs", "best"), [((0.5, 0.8, 0.6), 2), ((0.7, 0.7, 0.6), 2), ((0.9, 0.7, 0.8), 1), ((0.5, 0.6, 0.6), 3)]
)
def test_validation_chooses_the_round_and_of_equal_ones_the_latest(auprcs, best, consortium, same_arrays):
    both = consortium(A=12, B=12)
    centres = both.here.centres(spoil=scripted(*auprcs))
    adopted = both.run(centres, RoundSettings(3, 2))
    (job,) = centres.sent("adopt_classifier")
    same_arrays(job.arrays, centres.sent("validate_classifier")[best - 1].arrays)
    assert job.centre == "A" and job.body["best"] == {"step": 2 * best, "val_auprc": auprcs[best - 1]}
    history = adopted.reply.body["history"]
    assert history == {"step": [2, 4, 6], "val_auprc": list(auprcs), "stage": ["federated"] * 3}
    assert adopted.record.rounds == 3 and adopted.record.strategy == "fedavg_classifier"


def test_the_adopted_classifier_is_the_best_round_tested_on_test_patches(consortium, same_arrays):
    both = consortium(A=36, B=36)
    centres = both.here.centres()
    adopted = both.run(centres, RoundSettings(3, 8))
    receiver = both.here.datasets["A"]
    own, validation, test = (as_arrays(receiver.select(split=s)) for s in ("train", "val", "test"))
    (job,) = centres.sent("adopt_classifier")
    auprc, network = validated(
        SPEC, plain(job.arrays, "weights."), own, validation, training(), device="cpu", precision="fp32"
    )
    assert round(auprc, 2) == adopted.reply.body["best"]["val_auprc"]
    found = plain(adopted.reply.arrays, "classifier.")
    same_arrays(found, {name: tensor.numpy() for name, tensor in network.state_dict().items()})
    probability = predict(network, test)[:, 1]
    predictions = adopted.reply.body["predictions"]
    np.testing.assert_allclose(predictions["probability"], probability, rtol=1e-8)
    assert predictions["label"] == test.labels.tolist()
    assert adopted.reply.body["metrics"]["auprc"] == round(METRICS["auprc"](test.labels, probability), 2)
    assert adopted.reply.body["n_real"] == 20 and adopted.reply.body["n_synthetic"] == 0


def test_a_centre_that_is_lost_for_good_leaves_the_others(consortium):
    three = consortium(A=12, B=12, C=12)
    clock = three.here.clock({"C": Availability(outages=((3, math.inf),))})
    adopted = three.run(three.here.centres(), RoundSettings(4, 2), clock=clock)
    found = adopted.record.summary
    assert adopted.reply.ok and list(found.gone) == ["C"] and (found.used, adopted.record.rounds) == (4 + 4 + 1, 4)


@pytest.mark.parametrize(("what", "code"), [("nan", "not_finite"), ("shape", "wrong_arrays"), ("none", "bad_answer")])
def test_an_answer_that_cannot_be_averaged_leaves_the_others(what, code, consortium, same_arrays):
    three = consortium(A=12, B=12, C=12)

    def spoil(job, reply):
        if job.kind != "train_classifier_round" or job.centre != "C":
            return None
        arrays = dict(reply.arrays)
        if what == "nan":
            arrays["weights.output.bias"] = arrays["weights.output.bias"] * np.float32(np.nan)
        elif what == "shape":
            arrays["weights.output.bias"] = arrays["weights.output.bias"][:1]
        return replace(reply, arrays=arrays, body={"transport_error": 0.0} if what == "none" else reply.body)

    centres = three.here.centres(spoil=spoil)
    adopted = three.run(centres, RoundSettings(1, 2))
    assert adopted.reply.ok and adopted.record.summary.refused == {f"C: {code}": 1}
    answers = [
        plain(r.arrays, "weights.") for r in centres.replies if r.kind == "train_classifier_round" and r.centre != "C"
    ]
    mean = {n: (answers[0][n] + answers[1][n]) / 2 for n in answers[0]}
    same_arrays(plain(centres.sent("validate_classifier")[0].arrays, "weights."), mean, within=1e-6)


def test_without_a_quorum_the_cell_fails_with_one_line_and_is_not_tested(consortium):
    both = consortium(A=12, B=12)
    clock = both.here.clock({"B": Availability(outages=((3, math.inf),))})
    centres = both.here.centres()
    adopted = both.run(centres, RoundSettings(3, 2, quorum=2), clock=clock)
    assert adopted.reply is None
    assert (adopted.record.rounds, adopted.record.summary.lost) == (1, 1), "what happened is told all the same"
    (problem,) = adopted.problems
    assert problem.startswith("arm of A: round 2 had 1 good answers and the quorum is 2; no answer from B")
    assert not centres.sent("adopt_classifier")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("validate_classifier", "arm of A: centre 'A' could not validate it (diverged)"),
        ("adopt_classifier", "adopt_classifier at centre 'A': diverged"),
    ],
)
def test_a_receiver_that_cannot_validate_or_adopt_is_named(kind, told, consortium):
    both = consortium(A=12, B=12)
    fail = lambda job, reply: replace(reply, code="diverged", arrays={}) if job.kind == kind else None  # noqa: E731
    adopted = both.run(both.here.centres(spoil=fail), RoundSettings(1, 1))
    assert adopted.reply is None and adopted.problems == (told,)
    assert adopted.record.summary.used == 2, "what was trained is told even if it could not be tested"


def test_the_last_round_is_taken_where_that_was_asked_for(consortium, same_arrays):
    both = consortium(A=12, B=12)
    centres = both.here.centres(spoil=scripted(0.9, 0.5))
    both.run(centres, RoundSettings(2, 1), how=training(select="last"))
    (job,) = centres.sent("adopt_classifier")
    same_arrays(job.arrays, centres.sent("validate_classifier")[1].arrays)
    assert job.body["best"] == {"step": 2, "val_auprc": 0.5}


@pytest.mark.parametrize("transport", ["fp16", "int8"])
def test_compressed_weights_come_out_near_the_exact_ones(transport, consortium):
    both = consortium(A=12, B=12)
    ends = {}
    for how in ("fp32", transport):
        centres = both.here.centres(how)
        adopted = both.run(centres, RoundSettings(1, 1, transport=how))
        ends[how] = plain(centres.sent("validate_classifier")[0].arrays, "weights.")
        assert (adopted.record.summary.transport_error > 0) == (how != "fp32")
        (job,) = [job for job in centres.sent("train_classifier_round") if job.centre == "A"]
        assert decode(plain(job.arrays, "global."), how).keys() == ends[how].keys()
    error = max(np.abs(ends["fp32"][n] - ends[transport][n]).max() for n in ends["fp32"] if "running" not in n)
    assert 0 < error < {"fp16": 0.02, "int8": 0.05}[transport]


@pytest.mark.parametrize("stop_after", [3, 5, 8, 12])
def test_a_server_that_was_killed_goes_on_to_the_same_classifier(stop_after, consortium, same_arrays):
    """Also where validation had chosen an earlier round than the last that was recorded."""
    both = consortium(A=12, B=12)
    settings, faults = RoundSettings(4, 2), {"B": Availability(dropout=0.3, delay_s=1)}
    values = {1: 0.5, 2: 0.8, 3: 0.6, 4: 0.7}
    ends = []
    for name in ("whole", "killed"):
        validated = {}

        def spoil(job, reply, validated=validated):
            if job.kind != "validate_classifier":
                return None
            number = validated.setdefault(job.unit, len(validated) + 1)
            return replace(reply, body={"val_auprc": values[number]})

        centres = both.here.centres(name, spoil=spoil, stop_after=stop_after if name == "killed" else None)
        if name == "killed":
            with pytest.raises(KeyboardInterrupt):
                both.run(centres, settings, clock=both.here.clock(faults), aggregation="FedAdam")
            centres.stop_after, centres.queue = None, []
        ends.append(both.run(centres, settings, clock=both.here.clock(faults), aggregation="FedAdam"))
        (job,) = centres.sent("adopt_classifier")
        assert job.body["best"] == {"step": 4, "val_auprc": 0.8}
    same_arrays(ends[1].reply.arrays, ends[0].reply.arrays)
    assert ends[1].reply.body == ends[0].reply.body and ends[1].reply.unit == ends[0].reply.unit
    assert ends[1].record == ends[0].record


def test_settings_that_differ_make_another_federation(consortium):
    both = consortium(A=12, B=12)
    centres, settings = both.here.centres(), RoundSettings(1, 1)
    variants = [
        {}, {"optimizer": "reset"}, {"mu": 0.1}, {"subset_seed": 1}, {"seed": 6}, {"aggregation": "FedMedian"},
    ]  # fmt: skip
    for changes in variants:
        both.run(centres, settings, **changes)
    assert len(centres.progress) == len(variants)


# -- fine-tuning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "kept"), [(0.0, True), (0.01, True), (-0.01, False)])
def test_fine_tuning_is_kept_only_where_validation_did_not_fall(change, kept, consortium, same_arrays, monkeypatch):
    both = consortium(A=36, B=36)
    learn, fits = learning.learn, []
    plain_end = both.run(both.here.centres("plain"), RoundSettings(1, 2))
    auprc = plain_end.reply.body["best"]["val_auprc"]

    def learned(network, real, foreign, validation, recipe, how, **options):
        fit = learn(network, real, foreign, validation, recipe, how, **options)
        fits.append((fit, how.learning_rate, dict(recipe.steps), foreign))
        fit.best_auprc = auprc + change
        return fit

    monkeypatch.setattr("strategies.fedavg_classifier.local.learning.learn", learned)
    adopted = both.run(both.here.centres("tuned"), RoundSettings(1, 2), fine_tune=4)
    ((fit, rate, steps, foreign),) = fits
    assert (rate, steps, foreign) == (0.005, {"real": 4}, {}), "half the rate of the rounds, on own patches alone"
    found = plain(adopted.reply.arrays, "classifier.")
    without = plain(plain_end.reply.arrays, "classifier.")
    tuned = {name: tensor.numpy() for name, tensor in fit.state.items()}
    assert any(not np.array_equal(tuned[name], without[name]) for name in tuned)
    body = adopted.reply.body
    if kept:
        same_arrays(found, tuned)
        assert body["best"] == {"step": 2 + fit.best_step, "val_auprc": auprc + change}
    else:
        same_arrays(found, without)
        assert body["best"] == {"step": 2, "val_auprc": auprc}
        assert body["predictions"] == plain_end.reply.body["predictions"]
    assert body["history"]["step"] == [2, 4, 6]
    assert body["history"]["stage"] == ["federated", "fine_tune", "fine_tune"]
    assert body["history"]["val_auprc"] == [auprc, *fit.history["val_auprc"]]
