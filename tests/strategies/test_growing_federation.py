"""A federation of a model that grows, with lazy phases and held state: one centre is local training, and what travels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from growing_gan import GrowingGAN, GrowingModel

from models import GENERATIVE_MODELS, GenerativeTrainer, GeneratorSpec
from models.federated_parts import averaged_state, parts
from models.phases import Batch, backpropagate
from models.schedule import Schedule
from strategies.dm_gan.phases import remote_problem
from strategies.fedavg_gan.local import LocalRules, build, kept_state, local_steps, most_often, proximal
from strategies.layouts import averaged_layout
from strategies.members import RoundSettings
from strategies.one_shot import trained

# Rounds of 4 steps: the first and the second span a change of stage.
GROWING = (
    {"steps": 3, "image_size": 8, "batch_size": 6},
    {"steps": 4, "image_size": 16, "batch_size": 4, "reset_optimizer": True},
    {"steps": 5, "image_size": 32, "batch_size": 3},
)
STEPS, ROUNDS, LOCAL = 12, 3, 4
TRAVELS, STAYS = ("probability", "path_mean"), ("signs",)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(GENERATIVE_MODELS.builtin, "growing", GrowingGAN)


def spec(**training) -> GeneratorSpec:
    whole = {"steps": STEPS, "growing": GROWING, "ema_images": 40, "ema_ramp": 0.5, "decay": "linear_second_half"}
    values = {"model": "growing", "image_size": 32, "classes": ["healthy", "lesion"], "training": whole | training}
    return GeneratorSpec.model_validate(values)


def numpy_of(state):
    return {name: tensor.numpy() for name, tensor in state.items()}


def a_round(s, patches, weights, state, number, rules=None, seed=100):
    return local_steps(
        s, patches, weights, state, rules or LocalRules(), build_seed=5, seed=seed, from_step=number * LOCAL, steps=LOCAL,
        device="cpu", precision="fp32",
    )  # fmt: skip


def test_a_centre_that_was_not_there_when_a_stage_began_begins_anew_all_the_same(lab, share, monkeypatch):
    """In turns: A works in steps 0-3 and 8-11, B in 4-7 and 12-15; stages begin with step 3 and, anew, with 6."""
    stages = (
        {"steps": 3, "image_size": 8, "batch_size": 4},
        {"steps": 3, "image_size": 16, "batch_size": 4},
        {"steps": 10, "image_size": 32, "batch_size": 4, "reset_optimizer": True},
    )
    here, s, steps = lab(A=8, B=8), spec(growing=stages, steps=16), []

    def watched(trainer, rules):
        steps.append(int(trainer.state()["optimizer.generator.0.step"]))
        return kept_state(trainer, rules)

    monkeypatch.setattr("strategies.fedavg_gan.local.kept_state", watched)
    (shared,) = share(here.centres(), here.fedavg(s, RoundSettings(4, LOCAL), turns="cyclic"))
    assert not shared.problems
    assert steps == [4, 2, 4, 6], "A forgets its first four; B, which was there, goes on"


@pytest.mark.parametrize(
    ("done", "step", "resets"),
    [(0, 0, False), (3, 3, True), (2, 3, True), (3, 4, True), (4, 4, False), (1, 11, True), (7, 8, False)],
)
def test_optimizers_begin_anew_once_with_a_stage(done, step, resets):
    """Also where a centre missed that stage as a whole."""
    s = spec()
    assert Schedule(s.training, s.build(0).phases()).resets_between(done, step) == resets


def measured(here, s, rules=None):
    """A federation whose generator is measured after every round."""
    training = here.fedavg(s, RoundSettings(ROUNDS, LOCAL), rules)
    training._federation = replace(training._federation, fidelity=here.fidelity(s, spaces=("texture",)))
    return training


@pytest.mark.parametrize("sampling", ["permutation", "poisson"])
def test_rounds_of_one_centre_are_local_training_with_all_state(sampling, lab, same_arrays):
    here, s = lab(A=16), spec(sampling=sampling)
    patches = here.patches("A")
    weights, state = numpy_of(averaged_state(build(s, 5))), {}
    for number in range(ROUNDS):
        weights, state, facts = a_round(s, patches, weights, state, number)
    plain = GenerativeTrainer(s.build(5), s.training, seed=100)
    plain.advance(patches, STEPS)
    everything = numpy_of(plain.state())
    same_arrays(weights, numpy_of(averaged_state(plain.model)))
    same_arrays(state, {name: everything[name] for name in state})
    assert {f"model.{name}" for name in STAYS} <= set(state) and set(TRAVELS) <= set(weights)
    kept_or_travels = set(state) | {f"model.{name}" for name in weights}
    assert set(everything) == kept_or_travels
    assert state["images"] == plain.images > 0
    assert all(value is None or np.isfinite(value) for value in facts["scalars"].values())


@pytest.mark.parametrize("ema", ["average", "rebuild"])
def test_a_federation_of_one_shares_what_training_alone_shares(ema, lab, share, same_arrays):
    """Through jobs, layouts and the server; a moving average rebuilt there follows rounds, not steps."""
    here, s = lab(A=16), spec()
    centres = here.centres()
    (shared,) = share(centres, here.fedavg(s, RoundSettings(ROUNDS, LOCAL), LocalRules(ema=ema)))
    assert not shared.problems
    alone, _ = trained(s, here.patches("A"), seed=5, device="cpu", precision="fp32")
    # `trained` builds and trains with one seed; the federation's centre has another.
    plain = GenerativeTrainer(s.build(5), s.training, seed=100)
    plain.advance(here.patches("A"), STEPS)
    made, expected = shared.generators["arm", "task"].weights, plain.model.shared_arrays(plain.fit)
    if ema == "average":
        same_arrays(made, expected)
    assert made.keys() == expected.keys() == alone.keys()
    assert made["final.grown"].tolist() == [2.0, 1.0]
    for job in centres.sent("train_round"):
        names = {name.removeprefix("global.") for name in job.arrays}
        assert set(TRAVELS) <= names and not names & {*STAYS, "target"} and not any(n.endswith(".grown") for n in names)
        assert names == set(averaged_layout(s, averaged_generator=ema == "average"))


def test_images_seen_follow_the_schedule_in_all_rounds(lab, share):
    here, s = lab(A=16, B=16), spec()
    (shared,) = share(here.centres(), measured(here, s))
    ((record),) = shared.federations
    model = s.build(0)
    schedule = Schedule(s.training, model.phases())
    seen = {row["round"]: row["images_seen"] for row in record.convergence if row["centre"] == "B"}
    assert seen == {r: schedule.images_before(r * LOCAL) for r in (1, 2, 3)}
    # Stage by stage, with two critic steps from the second stage on.
    assert seen == {1: 3 * 6 + 8, 2: 18 + 4 * 8 + 6, 3: 18 + 32 + 5 * 6}


@pytest.mark.parametrize("averages", [{}, {"ema_images": None, "ema_ramp": None}], ids=["average", "none"])
@pytest.mark.parametrize("ema", ["average", "rebuild"])
def test_a_generator_measured_in_mid_schedule_is_as_grown_as_at_the_centres(ema, averages, lab, share):
    here, s = lab(A=16), spec(**averages)
    centres = here.centres()
    share(centres, measured(here, s, LocalRules(ema=ema)))
    measuring = [
        {name.removeprefix("weights."): array for name, array in job.arrays.items() if name.startswith("weights.")}
        for job in centres.sent("measure_generator")
    ]
    assert [found["final.grown"].tolist() for found in measuring] == [[1.0, 0.5], [2.0, pytest.approx(0.4)], [2.0, 1.0]]
    alone = GenerativeTrainer(s.build(5), s.training, seed=100)
    for number, found in enumerate(measuring, 1):
        alone.advance(here.patches("A"), number * LOCAL)
        expected = alone.model.shared_arrays()
        assert found.keys() == expected.keys()
        for name in found if ema == "average" else ("final.grown",):
            assert np.array_equal(found[name], expected[name]), (number, name)


def test_over_two_centres_state_is_averaged_kept_or_constant(lab):
    """Weighted as weights are: 1 to 3. The centres adapt their augmentation to other images, with another target."""
    here, s = lab(A=8, B=24), spec()
    far = s.model_copy(update={"hyper_parameters": s.hyper_parameters | {"target": -1.5}})
    specs, weights, states = (s, far), numpy_of(averaged_state(build(s, 5))), [{}, {}]
    for number in range(ROUNDS):
        answers = []
        for i, centre in enumerate("AB"):
            answer, states[i], _ = a_round(specs[i], here.patches(centre), weights, states[i], number, seed=100 + i)
            answers.append(answer)
        assert number or answers[0]["probability"] < answers[1]["probability"]
        weights = {name: ((8 * a + 24 * answers[1][name]) / 32).astype(np.float32) for name, a in answers[0].items()}
        assert weights["probability"] == pytest.approx(
            (8 * answers[0]["probability"] + 24 * answers[1]["probability"]) / 32
        )
    for own, target in zip(states, (0.6, -1.5), strict=True):
        assert own["model.target"] == np.float32(target), "a constant is each centre's own"
        assert "model.probability" not in own
    # What came for the next round is what it begins with, held state included.
    begun = a_round(s, here.patches("A"), weights | {"probability": np.float32(0.9)}, states[0], ROUNDS - 1)[0]
    assert begun["probability"] == pytest.approx(0.9, abs=0.11) and begun["probability"] != answers[0]["probability"]


def test_parts_follow_the_declaration():
    model = spec().build(0)
    model.register_buffer("undeclared", torch.zeros(2))
    found = parts(model)
    assert {name: found[name] for name in (*TRAVELS, *STAYS, "target", "undeclared")} == {
        "probability": "averaged", "path_mean": "averaged", "signs": "local", "target": "constant", "undeclared": "local",
    }  # fmt: skip
    assert (
        found["networks.generator.grown"] == "constant" and found["networks.generator.norm.running_mean"] == "statistic"
    )


def test_the_proximal_term_is_added_once_for_each_network(lab):
    """A lazy phase of the same network would add it again."""
    s = spec()
    phases = s.build(0).phases()
    for order in (phases, phases[::-1]):
        assert most_often(Schedule(s.training, order)) == {"discriminator", "generator"}
    patches = lab(A=16).patches("A")
    weights = numpy_of(averaged_state(build(s, 5)))
    _, _, facts = a_round(s, patches, weights, {}, 0, LocalRules(proximal_mu=0.1))
    assert {name for name in facts["scalars"] if name.endswith("_drift")} == {"discriminator_drift", "generator_drift"}


@pytest.mark.parametrize(
    ("repeats", "interval", "expected"),
    [
        (1, 1, "discriminator"),  # as often: the first
        (3, 2, "r1"),  # 3 runs in every second step
        (2, 2, "discriminator"),
        (3, 4, "discriminator"),
        ((0, 1, 4), 1, "r1"),  # 24 runs in 12 steps, most of them in the last stage
        ((4, 0, 0), 1, "discriminator"),  # 12 runs, all in the first
    ],
)
def test_a_network_is_pulled_in_the_phase_that_steps_it_most_often(repeats, interval, expected):
    s = spec()
    main, lazy, generator, _ = s.build(0).phases()
    phases = [replace(main, repeats=1), replace(lazy, repeats=repeats, interval=interval), generator]
    assert most_often(Schedule(s.training, phases)) == {expected, "generator"}


@pytest.mark.parametrize(("interval", "gain", "factor"), [(1, None, 1), (4, None, 4), (1, 2.5, 2.5), (1, 0.0, 0)])
def test_the_gain_of_a_phase_is_not_of_its_proximal_term(interval, gain, factor):
    """The gradient is gain * that of the phase's own loss, + mu (w - w_received)."""
    model, mu = spec().build(0), 0.3
    (main, *_) = model.phases()
    judge, batch = model.networks["discriminator"], Batch(4, torch.randn(4, 1, 32, 32))
    received = {f"networks.discriminator.{n}": torch.randn_like(p) for n, p in judge.named_parameters()}

    def gradient(phase):
        judge.zero_grad()
        _, logs = backpropagate(phase, judge, batch, torch.Generator().manual_seed(1))
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in judge.named_parameters()}
        return gradients, logs

    plain, _ = gradient(replace(main, gain=1.0))
    pulled, logs = gradient(proximal(replace(main, interval=interval, gain=gain), model, received, mu))
    distance = 0.0
    for name, parameter in judge.named_parameters():
        away = parameter.detach() - received[f"networks.discriminator.{name}"]
        distance += float(away.square().sum())
        torch.testing.assert_close(pulled[name], factor * plain[name] + mu * away, rtol=1e-4, atol=1e-5)
    assert float(logs["discriminator_drift"]) == pytest.approx(distance, rel=1e-4)


@pytest.mark.parametrize(
    ("training", "sends_images", "message"),
    [
        ({}, True, "growing has no meaning where centres are at different steps of one generator; remove growing"),
        ({"growing": (), "sampling": "poisson"}, False, "sampling is poisson, but batches of generated images have one size"),
        ({"growing": ()}, True, r"the generator of growing is trained by 2 phases \(generator, path\), and the server can run"),
    ],
)  # fmt: skip
def test_what_a_generator_on_the_server_cannot_have(training, sends_images, message):
    problem = remote_problem(spec(**training), sends_images)
    with pytest.raises(ValueError, match=message):
        raise ValueError(problem)
    assert "\n" not in problem


def test_of_a_model_that_grows_by_itself_another_remedy_is_named():
    values = {
        "model": "pggan",
        "image_size": 32,
        "classes": ["a", "b"],
        "hyper_parameters": {"width": 4},
        "training": {},
    }
    assert remote_problem(GeneratorSpec.model_validate(values), True).endswith("one generator; set grow: false")
    still = GeneratorSpec.model_validate(values | {"hyper_parameters": {"width": 4, "grow": False}})
    assert remote_problem(still, True) is None


@pytest.fixture
def with_phases(monkeypatch):
    """Function: from here on the model has the phases that a function makes of its own ones."""
    whole = GrowingModel.phases
    return lambda change: monkeypatch.setattr(GrowingModel, "phases", lambda model: change(whole(model)))


def test_a_lazy_discriminator_needs_exchange_generator(with_phases):
    with_phases(lambda phases: [phase for phase in phases if phase.name != "path"])
    s = spec(growing=())
    assert "phase 'r1' of growing does not run in every step" in remote_problem(s, True)
    assert remote_problem(s, False) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interval": 4}, "interval 4 and repeats 1"),
        ({"repeats": 2}, "interval 1 and repeats 2"),
        ({"repeats": (3, 1)}, "interval 1 and repeats 3"),
        ({"repeats": (1, 3)}, None),  # what does not grow stays in its first stage
    ],
)
def test_a_generator_on_the_server_is_stepped_once_a_step(changes, said, with_phases):
    with_phases(lambda phases: [phases[0], replace(phases[2], **changes)])
    problems = {remote_problem(spec(growing=()), sends_images) for sends_images in (True, False)}
    assert problems == {
        said and f"phase 'generator' of growing has {said}, but the server steps the generator once for each step of a "
        "discriminator; name another model"
    }  # fmt: skip
