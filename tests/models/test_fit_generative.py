"""The generative loop: same bits whatever came before or in between, balanced batches, schedules, and errors."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basics.image_shape import ImageShape
from models import GenerativeTrainer, GenerativeTraining, GeneratorSpec, ModelError, PatchArrays, fit_generative
from models.batch_stream import BatchStream, flip
from models.generative import Batch, backpropagate
from models.generative_training import rate_factor
from models.patch_arrays import to_float, to_stored
from models.weight_average import update_average


def images(count=24, size=32, labels=True, seed=0) -> PatchArrays:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, size, size), dtype=np.uint8)
    return PatchArrays(pixels, np.arange(count), np.arange(count) % 3 // 2 if labels else None)


def spec(model: str, conditional=True, **training) -> GeneratorSpec:
    hyper = {"dcgan": {"width": 4}, "wgan_gp": {"width": 4, "critic_steps": 2}, "flow_matching": {"widths": [32]}}[
        model
    ]
    training = {"steps": 6, "batch_size": 8, "ema": 0.9} | training
    return GeneratorSpec.model_validate(
        {
            "model": model,
            "image_size": 32,
            "classes": ["healthy", "lesion"],
            "conditional": conditional,
            "hyper_parameters": hyper,
            "training": training,
        }
    )


MODELS = ["dcgan", "wgan_gp", "flow_matching"]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_restart_changes_no_bit(model, precision):
    s = spec(model, steps=4, snapshot_every=2, decay="linear_second_half", warmup_steps=3, quarter_turns=True)
    whole = GenerativeTrainer(s.build(1), s.training, seed=7, precision=precision)
    whole.advance(images(), 4)
    first = GenerativeTrainer(s.build(1), s.training, seed=7, precision=precision)
    first.advance(images(), 2)
    saved = first.state()
    torch.manual_seed(99)  # a new process has another global stream
    second = GenerativeTrainer(s.build(2), s.training, seed=7, precision=precision)
    second.load_state(saved)
    assert_same(second.state(), saved)
    second.advance(images(), 4)
    assert_same(second.state(), whole.state())
    assert sorted(whole.fit.snapshots) == [2, 4]


@pytest.mark.parametrize("model", MODELS)
def test_weights_depend_on_the_seed_alone(model):
    def trained(build_seed, seed):
        s = spec(model, steps=2)
        torch.rand(int(torch.randint(1, 50, ())))  # whatever ran before
        built = s.build(build_seed)
        fit_generative(built, images(), s.training, seed=seed)
        return built.state_dict()

    reference = trained(1, 7)
    assert_same(reference, trained(1, 7))
    assert any(not torch.equal(a, b) for a, b in zip(reference.values(), trained(1, 8).values(), strict=True))


def test_the_callers_stream_is_left_alone():
    s = spec("dcgan", steps=2)
    before = torch.get_rng_state()
    fit_generative(s.build(3), images(), s.training, seed=7)
    assert torch.equal(before, torch.get_rng_state())


def test_restart_with_new_optimizers_keeps_the_weights():
    """What federated averaging does between rounds when optimizers are not kept."""
    s = spec("dcgan")
    trainer = GenerativeTrainer(s.build(1), s.training, seed=7)
    trainer.advance(images(), 2)
    kept = {k: v for k, v in trainer.state().items() if not k.startswith("optimizer.")}
    other = GenerativeTrainer(s.build(2), s.training, seed=7)
    other.load_state(kept)
    assert_same(other.state(), kept)
    other.advance(images(), 3)
    assert other.step == 3


def test_a_part_of_the_schedule_can_be_run():
    s = spec("flow_matching")
    fit = fit_generative(s.build(0), images(), s.training, seed=0, start_step=2, stop_step=4)
    assert fit.history["step"] == [3, 4]


def test_a_proximal_term_is_a_changed_phase():
    """FedProx with an enormous weight holds the generator where it was."""
    s = spec("flow_matching", ema=None, learning_rate=1e-3, weight_decay=0, warmup_steps=0)

    def moved(weight):
        model = s.build(0)
        network = model.networks["generator"]
        anchor = [p.detach().clone() for p in network.parameters()]

        def proximal(loss):
            def with_term(batch, rng):
                value, logs = loss(batch, rng)
                distance = sum((p - a).square().sum() for p, a in zip(network.parameters(), anchor, strict=True))
                return value + weight / 2 * distance, logs

            return with_term

        phases = [replace(phase, loss=proximal(phase.loss)) for phase in model.phases()]
        GenerativeTrainer(model, s.training, seed=0, phases=phases).advance(images(), 6)
        return sum((p - a).square().sum().item() for p, a in zip(network.parameters(), anchor, strict=True))

    assert moved(1e6) < 0.3 * moved(0.0)


def test_gradients_can_be_replaced():
    """What differential privacy does: here every gradient is set to zero, and nothing moves."""
    s = spec("dcgan", ema=None)
    model = s.build(0)
    before = {k: v.clone() for k, v in model.networks.named_parameters()}

    def silent(phase, network, batch, rng):
        result = backpropagate(phase, network, batch, rng)
        for parameter in network.parameters():
            parameter.grad.zero_()
        return result

    phases = [replace(phase, gradients=silent) for phase in model.phases()]
    GenerativeTrainer(model, s.training, seed=0, phases=phases).advance(images(), 3)
    assert_same(before, dict(model.networks.named_parameters()))


def test_phases_of_one_network_run_without_the_other():
    """A generator phase needs no images: only how many, and their labels."""
    s = spec("dcgan")
    model = s.build(0)
    trainer = GenerativeTrainer(model, s.training, seed=0)
    critic = {k: v.clone() for k, v in model.networks["discriminator"].named_parameters()}
    generator_phase = trainer.phases[1]
    trainer.run_phase(generator_phase, Batch(4, labels=torch.tensor([0, 1, 0, 1])), torch.Generator())
    assert_same(critic, dict(model.networks["discriminator"].named_parameters()))
    assert all(p.grad is None for p in model.networks["discriminator"].parameters())
    with pytest.raises(ValueError, match="needs real images"):
        trainer.run_phase(trainer.phases[0], Batch(4, labels=torch.tensor([0, 1, 0, 1])), torch.Generator())


def test_lazy_phases_run_at_their_interval():
    s = spec("dcgan", ema=None)
    model = s.build(0)
    ran = []

    def counting(phase):
        def loss(batch, rng):
            ran.append(phase.name)
            return phase.loss(batch, rng)

        return replace(phase, loss=loss)

    phases = [counting(replace(model.phases()[0], interval=3)), counting(model.phases()[1])]
    GenerativeTrainer(model, s.training, seed=0, phases=phases).advance(images(), 6)
    assert ran.count("discriminator") == 2 and ran.count("generator") == 6


# -- batches -----------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(counts=st.tuples(st.integers(1, 30), st.integers(1, 30)), size=st.integers(2, 12), start=st.integers(0, 50))
def test_batches_are_balanced_and_go_through_every_image(counts, size, start):
    labels = np.repeat([0, 1], counts)
    if len(labels) < size:
        return
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 32, 32), np.uint8)
    model = SimpleNamespace(shape=ImageShape(1, 32, 32), num_classes=2)  # all that a stream looks at
    training = GenerativeTraining(batch_size=size, flips="none")
    stream = BatchStream(model, PatchArrays(pixels, np.arange(len(labels)), labels), training, seed=3)
    seen = {0: [], 1: []}
    for number in range(400 // size):
        batch = stream.batch(number)
        assert abs((batch.labels == 0).sum() - (batch.labels == 1).sum()) <= 1
        drawn = to_stored(batch.real(), "uint8")[:, 0, 0, 0]
        assert (labels[drawn] == batch.labels.numpy()).all()
        for label in (0, 1):
            seen[label] += drawn[batch.labels.numpy() == label].tolist()
    for label in (0, 1):
        first_pass = seen[label][: counts[label]]
        assert len(set(first_pass)) == len(first_pass)  # no image twice before all were drawn once
        passes = np.bincount(seen[label], minlength=len(labels))[labels == label]
        assert passes.max() - passes.min() <= 1
    again = BatchStream(model, PatchArrays(pixels, np.arange(len(labels)), labels), training, seed=3)
    assert torch.equal(again.batch(start).real(), stream.batch(start).real())  # no history needed


def test_mean_image_share_is_even_without_labels():
    model = spec("dcgan", conditional=False).build(0)
    stream = BatchStream(model, images(24, labels=False), GenerativeTraining(batch_size=8, flips="none"), seed=0)
    epoch = torch.cat([stream.batch(k).real() for k in range(3)])
    expected = to_float(torch.from_numpy(images(24).pixels))
    assert torch.equal(epoch.flatten(1).sum(1).sort().values, expected.flatten(1).sum(1).sort().values)


def test_rows_select_and_repeat():
    arrays = PatchArrays(images().pixels, np.array([5, 5, 2]), np.array([0, 0, 1]))
    assert torch.equal(arrays.take(np.array([1, 2])), torch.from_numpy(arrays.pixels[[5, 2]]))


def test_conversions_are_inverse_and_clip():
    every = torch.arange(256, dtype=torch.uint8)
    assert to_float(every).min() == -1 and to_float(every).max() == 1
    assert (to_stored(to_float(every), "uint8") == np.arange(256)).all()
    assert (to_stored(torch.tensor([-1.5, 1.5]), "uint8") == [0, 255]).all()


def test_flips_and_turns_give_the_eight_symmetries():
    image = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)
    many = image.repeat(400, 1, 1, 1)

    def variants(flips, turns):
        drawn = flip(many, flips, turns, torch.Generator().manual_seed(0))
        return {tuple(x.flatten().tolist()) for x in drawn}

    assert len(variants("none", False)) == 1
    assert len(variants("horizontal", False)) == 2
    assert len(variants("both", False)) == 4
    assert len(variants("horizontal", True)) == 8


# -- schedule, average, ensemble -----------------------------------------------------------------------------------


def test_rate_warms_up_and_falls_over_the_second_half():
    training = GenerativeTraining(steps=1000, warmup_steps=100, decay="linear_second_half")
    assert rate_factor(0, training) == pytest.approx(0.01)
    assert rate_factor(99, training) == rate_factor(500, training) == 1
    assert rate_factor(750, training) == pytest.approx(0.5)
    assert 0 < rate_factor(999, training) < 0.01
    assert rate_factor(999, GenerativeTraining(steps=1000)) == 1


def test_average_forgets_its_start():
    network, average = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(1.0), average.weight.fill_(0.0)
    for step in range(300):
        update_average(average, network, 0.998, step)
    assert average.weight.item() > 0.999
    with torch.no_grad():
        average.weight.fill_(0.0)
    update_average(average, network, 0.998, 10**6)  # long after the start: the plain rule
    assert average.weight.item() == pytest.approx(0.002)


def test_sharing_gives_the_averaged_generator_alone():
    s = spec("dcgan")
    model = s.build(0)
    fit = fit_generative(model, images(), s.training, seed=0)
    shared = model.shared_arrays(fit)
    assert not [name for name in shared if "discriminator" in name or "num_batches" in name]
    assert torch.equal(torch.from_numpy(shared["final.layers.0.weight"]), model.average.layers[0].weight.contiguous())
    other = s.build(5)
    other.load_shared_arrays(shared)
    labels = torch.tensor([0, 1, 1])
    ours, theirs = (m.sample_stored(3, labels, torch.Generator().manual_seed(0)) for m in (model, other))
    assert (ours == theirs).all()
    with pytest.raises(ValueError, match="do not fit"):
        spec("dcgan", conditional=False).build(0).load_shared_arrays(shared)


def test_an_ensemble_takes_turns():
    s = spec("dcgan", conditional=False, snapshot_from=3, snapshot_every=2, ema=None, learning_rate=0.01)
    model = s.build(0)
    fit = fit_generative(model, images(), s.training, seed=0)
    assert list(fit.snapshots) == [4, 6]
    shared = model.shared_arrays(fit)
    everyone = s.build(1)
    everyone.load_shared_arrays(shared)
    drawn = everyone.sample(6, None, torch.Generator().manual_seed(0))
    for offset, member in enumerate(["step4", "step6"]):
        alone = s.build(1)
        alone.load_shared_arrays({k: v for k, v in shared.items() if k.startswith(member)})
        rng = torch.Generator().manual_seed(0)
        for _ in range(offset):
            torch.randn(3, 100, generator=rng)  # noise of the members before
        assert torch.equal(drawn[offset::2], alone.sample(3, None, rng))


def test_sampling_does_not_depend_on_training_mode_or_neighbours():
    model = spec("dcgan", conditional=False).build(0)
    rng = torch.Generator()
    model.train()
    batch = model.sample(8, None, rng.manual_seed(0))
    assert model.networks["generator"].training
    noise = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    model.eval()
    torch.testing.assert_close(batch[:1], model.networks["generator"](noise[:1]).detach(), rtol=1e-4, atol=1e-6)


# -- errors --------------------------------------------------------------------------------------------------------


def refused(code, model="dcgan", arrays=None, **training):
    s = spec(model, **training)
    with pytest.raises(ModelError) as caught:
        fit_generative(s.build(0), arrays if arrays is not None else images(), s.training, seed=0)
    assert caught.value.code == code
    return caught.value


def test_a_batch_larger_than_the_shard():
    error = refused("batch_too_large", arrays=images(6))
    assert error.numbers == {"batch_size": 8}, "how many there are stays here"
    assert "lower batch_size" in str(error)


def test_missing_class_and_wrong_images():
    one_class = PatchArrays(images().pixels, np.arange(24), np.zeros(24, np.int64))
    assert refused("class_missing", arrays=one_class).numbers == {"label": 1}
    refused("class_missing", arrays=images(labels=False))
    refused("wrong_images", arrays=images(size=64))


def test_divergence_is_named():
    error = refused("diverged", learning_rate=1e30, steps=20)
    assert error.numbers["step"] <= 20 and "lower learning_rate" in str(error)
