"""Federated averaging: one centre is local training, two are their weighted mean, and what stays local stays local."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from basics.image_shape import ImageShape
from models import GenerativeModel, GenerativeTrainer, PatchArrays, Phase
from models.federated_parts import averaged_state, load_averaged, parts
from models.generative import GenerativeTraining
from models.weight_average import average_decay
from strategies.aggregation import Aggregator
from strategies.fedavg_gan.local import LocalRules, build, local_steps, proximal
from strategies.members import RoundSettings

GANS = ("dcgan", "wgan_gp", "pggan", "r3gan")
ALL_MODELS = [*((model, conditional) for model in GANS for conditional in (False, True)), ("flow_matching", True)]
ALL_MODELS.append(("stylegan2_ada", True))


def numpy_of(state):
    return {name: tensor.numpy() for name, tensor in state.items()}


def a_round(spec, patches, weights, state, rules=None, number=0, steps=3, seed=100, build_seed=5):
    return local_steps(
        spec, patches, weights, state, rules or LocalRules(), build_seed=build_seed, seed=seed, from_step=number * steps,
        steps=steps, device="cpu", precision="fp32",
    )  # fmt: skip


def initial(spec):
    return numpy_of(averaged_state(build(spec, 5)))


# -- one centre ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "conditional"), ALL_MODELS)
def test_rounds_of_one_centre_are_local_training_bit_for_bit(model, conditional, lab, same_arrays):
    here = lab(A=16)
    more = {"width": 8} if model == "r3gan" else None  # its groups have 16 channels
    spec = here.spec(model, conditional, more, decay="linear_second_half", steps=6)
    patches = here.patches("A", conditional)
    weights, state = initial(spec), {}
    for number in range(3):
        weights, state, facts = a_round(spec, patches, weights, state, number=number, steps=2)
    plain = GenerativeTrainer(spec.build(5), spec.training, seed=100)
    plain.advance(patches, 6)
    same_arrays(weights, numpy_of(averaged_state(plain.model)))
    everything = numpy_of(plain.state())
    same_arrays(state, {name: everything[name] for name in state})
    assert any(name.startswith("optimizer.") for name in state)
    assert all(np.isfinite(value) for value in facts["scalars"].values())


@pytest.mark.parametrize("optimizer", ["keep", "reset"])
@pytest.mark.parametrize("transport", ["fp32", "fp16"])
def test_rounds_and_steps_can_be_exchanged_when_nothing_is_rounded_or_reset(
    optimizer, transport, lab, share, same_arrays
):
    """4 rounds of 3 steps are 1 round of 12, unless moments begin anew or weights are rounded on their way."""
    here = lab(A=16)
    rules, made = LocalRules(optimizer=optimizer), []
    for name, rounds in (("four", 4), ("one", 1)):
        settings = RoundSettings(rounds, 12 // rounds, transport=transport)
        (shared,) = share(here.centres(name), here.fedavg(here.spec(), settings, rules))
        assert not shared.problems
        made.append(shared.generators["arm", "task"].weights)
    if (optimizer, transport) == ("keep", "fp32"):
        same_arrays(*made)
    else:
        with pytest.raises(AssertionError, match="differs"):
            same_arrays(*made)
        same_arrays(*made, within=0.1)


# -- two centres ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", ["average", "local"])
def test_two_centres_of_40_and_120_patches_are_averaged_by_their_number(batch_norm, lab, share):
    here = lab(A=40, B=120)
    rules, spec = LocalRules(batch_norm=batch_norm), here.spec()
    centres = here.centres()
    share(centres, here.fedavg(spec, RoundSettings(2, 3), rules))
    before, states = initial(spec), [{}, {}]
    for number in range(2):
        (a, states[0], _), (b, states[1], _) = (
            a_round(spec, here.patches(c), before, states[i], rules, number, seed=100 + i) for i, c in enumerate("AB")
        )
        before = {name: (40 * a[name].astype(np.float64) + 120 * b[name]) / 160 for name in a}
        before = {name: array.astype(np.float32) for name, array in before.items()}
    ((_, arrays),) = centres.progress.values()
    found = {name.removeprefix("global."): array for name, array in arrays.items() if name.startswith("global.")}
    assert found.keys() == before.keys()
    for name in before:
        np.testing.assert_allclose(found[name], before[name], atol=1e-6, err_msg=name)
    for job in centres.sent("train_round"):
        assert not any("num_batches_tracked" in name for name in job.arrays)
    # Round 2 began at each centre with the averaged statistics, or with its own.
    second = [a_round(spec, here.patches("A"), before, states[0], rules, 2)[0] for before in (before, shifted(before))]
    name = next(n for n in second[0] if n.endswith("running_mean") and "discriminator" in n)
    assert np.array_equal(second[0][name], second[1][name]) == (batch_norm == "local")


def shifted(weights):
    return {n: a + np.float32(1) if n.endswith("running_mean") else a for n, a in weights.items()}


def test_equal_shards_with_averaged_gradients_are_one_step_on_their_union():
    """K shards, one plain SGD step each, no batch norm: the mean of the weights is a step on the mean of the gradients."""
    model, union = Toy(), torch.linspace(-1, 1, 12).view(12, 1)
    start = averaged_state(model)

    def step_on(values):
        own = Toy()
        load_averaged(own, start)
        loss, _ = own.fit_values(values)
        loss.backward()
        with torch.no_grad():
            for parameter in own.parameters():
                parameter -= 0.1 * parameter.grad
        return numpy_of(averaged_state(own))

    shards = [step_on(values) for values in union.chunk(3)]
    averaged = Aggregator("FedAvg", {}).aggregate(1, numpy_of(start), shards, [4, 4, 4])
    whole = step_on(union)
    for name in whole:
        np.testing.assert_allclose(averaged[name], whole[name], atol=1e-6)
    assert not np.allclose(shards[0]["networks.generator.weight"], whole["networks.generator.weight"], atol=1e-3)


# -- FedProx -------------------------------------------------------------------------------------------------


def test_the_proximal_term_adds_mu_times_the_drift_to_every_gradient():
    torch.manual_seed(0)
    model = Toy()
    received = {name: tensor + 0.3 for name, tensor in averaged_state(model).items()}
    (phase,) = model.phases()
    plain = gradients_of(model, phase)
    pulled = gradients_of(model, proximal(phase, model, received, mu=0.7))
    for name, parameter in model.networks["generator"].named_parameters():
        drift = parameter.detach() - received[f"networks.generator.{name}"]
        torch.testing.assert_close(pulled[name], plain[name] + 0.7 * drift)


def gradients_of(model, phase):
    model.zero_grad()
    from models.generative import Batch

    loss, _ = phase.loss(Batch(4), torch.Generator().manual_seed(1))
    loss.backward()
    return {n: p.grad.clone() for n, p in model.networks["generator"].named_parameters()}


@pytest.mark.parametrize("model", ["dcgan", "flow_matching"])
def test_a_strong_proximal_term_holds_every_network_where_the_round_began(model, lab):
    here = lab(A=16)
    spec = here.spec(model, model == "flow_matching", ema=None, learning_rate=1e-3, steps=20)
    patches, before = here.patches("A", spec.conditional), initial(spec)
    drifts = []
    for mu in (0.0, 1e4):
        weights, _, facts = a_round(spec, patches, before, {}, LocalRules(proximal_mu=mu), steps=8)
        learned = [n for n, part in parts(spec.build(5)).items() if part == "parameter"]
        drifts.append(np.mean([np.abs(weights[n] - before[n]).mean() for n in learned]))
        assert any(name.endswith("_drift") for name in facts["scalars"]) == (mu > 0)
    assert drifts[1] < 0.5 * drifts[0]


# -- what stays local ----------------------------------------------------------------------------------------


class Toy(GenerativeModel):
    """A generator of one weight; beside it a probability that every step raises, inside a constant."""

    def __init__(self, size=32):
        network = nn.Linear(1, 1)
        network.register_buffer("kernel", torch.ones(2))
        network.register_buffer("count", torch.zeros((), dtype=torch.int64))
        super().__init__({"generator": network}, ImageShape(1, size, size), None)
        self.register_buffer("augmentation_probability", torch.zeros(()))

    def phases(self):
        return [Phase("fit", "generator", self.loss)]

    def loss(self, batch, rng):
        self.augmentation_probability += 0.1
        self.networks["generator"].count += 1
        return self.fit_values(torch.randn(batch.size, 1, generator=rng))

    def fit_values(self, values):
        loss = (self.networks["generator"](values) - 2 * values - 1).square().mean()
        return loss, {"loss": loss.detach()}

    def draw(self, generator, n, labels, rng):
        return torch.zeros(n, 1, self.image_size, self.image_size)


class ToySpec:
    """Stands for a `GeneratorSpec`."""

    def __init__(self, kernel=1.0, **training):
        self.training = GenerativeTraining.model_validate(
            {"steps": 9, "batch_size": 4, "learning_rate": 0.1} | training
        )
        self.kernel = kernel

    def build(self, seed):
        torch.manual_seed(seed)
        model = Toy()
        model.networks["generator"].kernel *= self.kernel
        return model


TOY_PATCHES = PatchArrays(np.zeros((8, 1, 32, 32), np.uint8), np.arange(8), None)


def test_parts_of_a_model():
    model = Toy()
    model.start_average()
    assert parts(model) == {
        "networks.generator.weight": "parameter", "networks.generator.bias": "parameter",
        "networks.generator.kernel": "constant", "networks.generator.count": "constant",
        "average.weight": "parameter", "average.bias": "parameter", "average.kernel": "constant", "average.count": "constant",
        "augmentation_probability": "local",
    }  # fmt: skip
    norm = parts(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    assert {n for n, part in norm.items() if part == "statistic"} == {"1.running_mean", "1.running_var"}
    assert norm["1.num_batches_tracked"] == "constant"


def test_what_a_model_holds_beside_its_networks_stays_at_the_centre_over_rounds():
    """Two centres with other constants: probabilities go on, each its own, and neither they nor constants travel."""
    specs, states = [ToySpec(kernel=2.0), ToySpec(kernel=3.0)], [{}, {}]
    weights = numpy_of(averaged_state(specs[0].build(5)))
    for number in range(3):
        answers = []
        for i, steps in enumerate((2, 3)):
            answer, states[i], _ = a_round(specs[i], TOY_PATCHES, weights, states[i], number=number, steps=steps)
            answers.append(answer)
        assert all(set(answer) == {"networks.generator.weight", "networks.generator.bias"} for answer in answers)
        weights = {name: (answers[0][name] + answers[1][name]) / 2 for name in answers[0]}
    for i, (steps, kernel) in enumerate(((2, 2.0), (3, 3.0))):
        assert states[i]["model.augmentation_probability"] == pytest.approx(0.1 * 3 * steps, abs=1e-6)
        assert states[i]["model.networks.generator.kernel"].tolist() == [kernel] * 2
        assert states[i]["model.networks.generator.count"] == 3 * steps


@pytest.mark.parametrize("optimizer", ["keep", "reset"])
def test_optimizer_moments_are_kept_or_begin_anew(optimizer):
    rules, weights, state = LocalRules(optimizer=optimizer), numpy_of(averaged_state(ToySpec().build(5))), {}
    for number in range(2):
        weights, state, _ = a_round(ToySpec(), TOY_PATCHES, weights, state, rules, number)
    moments = {name: array for name, array in state.items() if name.startswith("optimizer.")}
    assert bool(moments) == (optimizer == "keep")
    if moments:
        assert moments["optimizer.generator.0.step"] == 6


def test_moments_decide_what_a_round_does():
    """The two choices differ from the second round on, and only then."""
    results = {}
    for optimizer in ("keep", "reset"):
        rules, weights, state = LocalRules(optimizer=optimizer), numpy_of(averaged_state(ToySpec().build(5))), {}
        for number in range(2):
            weights, state, _ = a_round(ToySpec(), TOY_PATCHES, weights, state, rules, number)
            results[optimizer, number] = weights["networks.generator.weight"].item()
    assert results["keep", 0] == results["reset", 0] and results["keep", 1] != results["reset", 1]


# -- the moving average --------------------------------------------------------------------------------------


def test_a_moving_average_rebuilt_on_the_server_follows_its_formula(lab, share):
    here = lab(A=16, B=16)
    spec, rules = here.spec(ema=0.7), LocalRules(ema="rebuild")
    centres = here.centres()
    (shared,) = share(centres, here.fedavg(spec, RoundSettings(3, 4), rules))
    for job in centres.sent("train_round"):
        assert not any("average." in name for name in job.arrays), "it does not travel"
    by_round = {}
    for job in centres.sent("train_round"):
        by_round[job.body["round"]] = {n.removeprefix("global."): a for n, a in job.arrays.items()}
    ((_, arrays),) = centres.progress.values()
    by_round[3] = {n.removeprefix("global."): a for n, a in arrays.items() if n.startswith("global.")}
    average = initial(spec)
    for number in (1, 2, 3):
        kept = np.prod([average_decay(0.7, step) for step in range(4 * (number - 1), 4 * number)])
        for name in [n for n in average if n.startswith("average.")]:
            new = by_round[number]["networks.generator." + name.removeprefix("average.")]
            running = name.endswith(("running_mean", "running_var"))
            average[name] = new if running else kept * average[name] + (1 - kept) * new
    made = shared.generators["arm", "task"].weights
    for name, array in made.items():
        np.testing.assert_allclose(array, average["average." + name.removeprefix("final.")], atol=1e-6, err_msg=name)


def test_load_averaged_refuses_other_names_and_shapes(lab):
    model = Toy()
    state = averaged_state(model)
    with pytest.raises(ValueError, match="1 names or shapes differ, first 'networks.generator.bias'"):
        load_averaged(model, {"networks.generator.weight": state["networks.generator.weight"]})
    with pytest.raises(ValueError, match="weights do not fit the model"):
        load_averaged(model, state | {"networks.generator.bias": torch.zeros(3)})


def test_settings_that_differ_make_another_federation(lab, share):
    """Nothing of an earlier setting is gone on with: progress and local states are named by all that they depend on."""
    here = lab(A=12)
    centres = here.centres()
    settings = RoundSettings(1, 1)
    variants = [
        (settings, LocalRules()), (replace(settings, local_steps=2), LocalRules()), (settings, LocalRules(proximal_mu=0.1)),
        (replace(settings, transport="fp16"), LocalRules()), (settings, LocalRules(optimizer="reset")),
    ]  # fmt: skip
    share(centres, *(here.fedavg(here.spec(ema=None), one, rules) for one, rules in variants))
    assert len(centres.progress) == len(variants)
