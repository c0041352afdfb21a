"""PGGAN: sizes of the paper, growing in closed forms, losses written out here, restarts over stages, federated parts."""

import math
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate

from models import GenerativeTrainer, GeneratorSpec, PatchArrays
from models.federated_parts import parts
from models.pggan import doubled, halved
from models.phases import Batch, Moment
from models.schedule import Schedule
from models.shapes_only import shapes_only
from models.snapshot_distance import distance_to
from models.wgan_gp import gradient_penalties
from strategies.layouts import generator_layout

CLASSES = ("without", "with")


def spec(image_size=16, channels=1, conditional=False, training=None, **hyper):
    values = {
        "model": "pggan",
        "image_size": image_size,
        "classes": CLASSES,
        "channels": channels,
        "conditional": conditional,
    }
    hyper = {"width": 4, "latent": 6} | hyper
    return GeneratorSpec.model_validate(values | {"hyper_parameters": hyper, "training": training or {}})


def images(size=(16, 16), count=20, channels=1):
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, *size), dtype=np.uint8)
    return PatchArrays(pixels, np.arange(count), np.arange(count) % 2)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grown(model, level, fade):
    for network in model.networks.values():
        network.grow_to(level, fade)
    return model


# -- sizes ---------------------------------------------------------------------------------------------------------


def test_the_paper_s_networks_double_5x4_eight_times():
    with shapes_only():
        model = spec((1280, 1024), width="paper", latent=512).build(0)
    sizes = model.trained_sizes
    assert len(sizes) == 9 and sizes[0] == (5, 4) and sizes[-1] == (1280, 1024)
    generator = model.networks["generator"]
    assert [layer.weight.shape[1] for layer in generator.to_image] == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    with shapes_only():
        square = spec(1024, channels=3, width="paper", latent=512).build(0)
    # 23.1 M each in table 2 of Karras et al., whose generator begins with 4x4 from 512 values.
    for network in square.networks.values():
        assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 23.1


@pytest.mark.parametrize("size", [16, 24, (20, 16), 32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("conditional", [False, True])
def test_shapes_at_every_level(size, channels, conditional):
    model = spec(size, channels, conditional).build(0)
    labels = torch.tensor([0, 1, 1]) if conditional else None
    for level, (height, width) in enumerate(model.trained_sizes):
        grown(model, level, 0.5 if level else 1.0)
        made = model.networks["generator"](drawn(3, 6), labels)
        assert made.shape == (3, channels, height, width)
        scores, classes = model.networks["discriminator"].judge(made)
        assert scores.shape == (3,) and (classes is not None) == conditional
        assert conditional is False or classes.shape == (3, 2)
        assert model.sample(3, labels, torch.Generator().manual_seed(0)).shape == (3, *model.shape)


@pytest.mark.parametrize(("size", "text"), [(36, "36 px"), ((160, 96), "160x96 px"), ((64, 66), "64x66 px")])
def test_sizes_that_do_not_divide_are_refused(size, text):
    with pytest.raises(ValueError, match=rf"image_size is {text}; pggan makes sides of 4 to 8 times one power of two"):
        spec(size).build(0)


@pytest.mark.parametrize(
    ("hyper", "said"),
    [
        ({"width": 0}, "is 0; give paper, small"),
        ({"critic_steps": [1, 0]}, r"are \[1, 0\]"),
        ({"critic_steps": []}, "at least 1"),
    ],
)
def test_settings_that_make_no_model_are_refused(hyper, said):
    with pytest.raises(ValueError, match=said):
        spec(**hyper)


# -- growing -------------------------------------------------------------------------------------------------------


def test_nearest_up_then_box_down_is_the_identity():
    x = drawn(2, 3, 5, 4)
    assert torch.equal(halved(doubled(x)), x)
    assert doubled(x).shape == (2, 3, 10, 8)


@pytest.mark.parametrize("level", [1, 2])
def test_a_fade_of_0_is_the_size_before_and_of_1_the_new_one(level):
    model = spec(conditional=True).build(0)
    generator, critic = model.networks["generator"], model.networks["discriminator"]
    noise, labels, real = drawn(4, 6), torch.tensor([0, 1, 0, 1]), drawn(4, 1, *model.trained_sizes[level])
    before, scored = grown(model, level - 1, 1.0), halved(real)
    smaller = before.networks["generator"](noise, labels)
    small_scores = critic.judge(scored)
    grown(model, level, 0.0)
    torch.testing.assert_close(generator(noise, labels), doubled(smaller))
    for ours, theirs in zip(critic.judge(real), small_scores, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(model.faded(real), doubled(halved(real)))
    grown(model, level, 1.0)
    new, scores = generator(noise, labels), critic(real)
    assert torch.equal(model.faded(real), real)
    # Half way: images are in the middle; and the fade is continuous.
    grown(model, level, 0.5)
    torch.testing.assert_close(generator(noise, labels), (doubled(smaller) + new) / 2)
    torch.testing.assert_close(model.faded(real), (doubled(halved(real)) + real) / 2)
    grown(model, level, 1 - 1e-6)
    torch.testing.assert_close(critic(real), scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(generator(noise, labels), new, rtol=1e-4, atol=1e-5)


def test_the_fade_takes_the_first_half_of_a_stage():
    model = spec().build(0)
    found = []
    for stage_step in range(8):
        model.tell(Moment(20 + stage_step, 40, 1, stage_step, 8, (8, 8), (4, 4)))
        found.append([network.level_and_fade for network in model.networks.values()])
    assert [one[0] for one in found] == [one[1] for one in found]
    assert [one[0] for one in found] == [(1, pytest.approx(min(1, k / 4))) for k in range(1, 9)]
    for moment in (Moment(0, 40, 0, 0, 8, (4, 4), None), Moment(3, 40, 1, 0, 8, (4, 4), (4, 4))):
        model.tell(moment)
        assert model.networks["generator"].level_and_fade == (0, 1)
    model.tell(Moment(3, 40, 1, 0, 8, (16, 16), (4, 4)))
    assert model.networks["generator"].level_and_fade == (2, 1), "a size was left out: there is nothing to mix with"
    at_once = spec(fade=0).build(0)
    at_once.tell(Moment(20, 40, 1, 0, 8, (8, 8), (4, 4)))
    assert at_once.networks["generator"].level_and_fade == (1, 1)


@pytest.mark.parametrize("steps", [3, 10, 2000])
def test_a_schedule_follows_from_size_and_steps(steps):
    s = spec(training={"steps": steps, "batch_size": 8})
    stages = s.training.growing
    assert [stage.image_size for stage in stages] == [(4, 4), (8, 8), (16, 16)]
    assert sum(stage.steps for stage in stages) == steps
    assert max(stage.steps for stage in stages) - min(stage.steps for stage in stages) <= 1
    assert all(stage.reset_optimizer and stage.batch_size == 8 for stage in stages)
    assert GeneratorSpec.model_validate_json(s.model_dump_json()) == s


def test_large_images_have_smaller_batches_and_more_steps():
    stages = spec((1280, 1024), training={"steps": 160_000, "batch_size": 16}).training.growing
    assert [stage.batch_size for stage in stages] == [16] * 6 + [8, 4, 4]
    seen = [stage.steps * stage.batch_size for stage in stages]
    assert sum(stage.steps for stage in stages) == 160_000
    assert max(seen) / min(seen) < 1.001, "as many images at each size"


def test_a_schedule_of_one_s_own_stays():
    own = ({"steps": 2, "image_size": 8, "batch_size": 4}, {"steps": 3, "image_size": 16, "batch_size": 2})
    s = spec(training={"steps": 5, "growing": own})
    assert [stage.model_dump() for stage in s.training.growing] == [
        {"steps": one["steps"], "image_size": one["image_size"], "batch_size": one["batch_size"], "reset_optimizer": False} for one in own
    ]  # fmt: skip


def test_fewer_steps_than_sizes_are_refused():
    with pytest.raises(
        ValueError,
        match=r"steps is 2, and images grow through 3 sizes \(4 px, 8 px, 16 px\); set steps to 3 or more, or grow: false",
    ):
        spec(training={"steps": 2})


def test_without_growing_there_are_no_layers_for_smaller_images():
    s = spec(conditional=True, grow=False, training={"steps": 2, "batch_size": 4})
    assert not s.training.growing
    model = s.build(0)
    assert model.trained_sizes == ((16, 16),)
    trainer = GenerativeTrainer(model, s.training, seed=0)
    trainer.advance(images(), 2)
    for network in model.networks.values():
        assert network.level_and_fade == (2, 1)
    names = {name for name in trainer.state() if name.startswith("optimizer.")}
    for key, network in model.networks.items():
        for number, (name, _) in enumerate(network.named_parameters()):
            assert f"optimizer.{key}.{number}.exp_avg" in names, f"{name} has no gradient"


def test_critic_steps_rise_with_the_stages():
    s = spec(critic_steps=(1, 3), training={"steps": 6, "batch_size": 4})
    model, counts = s.build(0), []
    trainer = GenerativeTrainer(
        model, s.training, seed=0, after_step=lambda done: counts.append(len(done.logs["critic_loss"]))
    )
    trainer.advance(images(), 6)
    assert counts == [1, 1, 3, 3, 3, 3] and trainer.images == 4 * sum(counts)


def test_optimizers_begin_anew_at_each_size():
    s = spec(training={"steps": 6, "batch_size": 4})
    trainer, counts = GenerativeTrainer(s.build(0), s.training, seed=0), []
    for step in range(6):
        trainer.advance(images(), step + 1)
        counts.append(int(trainer.state()["optimizer.generator.0.step"]))
    assert counts == [1, 2, 1, 2, 1, 2]


# -- losses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("fade", [0.25, 1.0])
def test_losses_are_those_of_the_paper(conditional, fade):
    """Written out with a pass of its own for each kind of image."""
    model = grown(spec(conditional=conditional, label_weight=0.7).build(0), 2, fade)
    generator, critic = model.networks["generator"], model.networks["discriminator"]
    labels = torch.tensor([0, 1, 0, 1, 1, 0]) if conditional else None
    real = drawn(6, 1, 16, 16, seed=3)
    loss, logs = model.critic_loss(Batch(6, real, labels), torch.Generator().manual_seed(5))
    rng = torch.Generator().manual_seed(5)
    fake = generator(model.noise(6, rng), labels).detach()
    mixed = fade * real + (1 - fade) * interpolate(
        real.unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean((3, 5)), scale_factor=2
    )
    on_real, on_fake = critic(mixed), critic(fake)
    penalty = gradient_penalties(critic, mixed, fake, None, rng).mean()
    expected = on_fake.mean() - on_real.mean() + 10 * penalty + 0.001 * on_real.square().mean()
    if conditional:
        wrong = (cross_entropy(critic.judge(mixed)[1], labels) + cross_entropy(critic.judge(fake)[1], labels)) / 2
        expected = expected + 0.7 * wrong
        torch.testing.assert_close(logs["label_loss"], wrong.detach())
    torch.testing.assert_close(loss, expected)
    loss, _ = model.generator_loss(Batch(6, None, labels), torch.Generator().manual_seed(5))
    expected = -critic(fake).mean()
    if conditional:
        expected = expected + 0.7 * cross_entropy(critic.judge(fake)[1], labels)
    torch.testing.assert_close(loss, expected)


def test_the_penalty_has_second_derivatives_through_every_layer_of_the_critic(monkeypatch):
    """Also through the minibatch standard deviation, against differences."""
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # stays float64
    model = spec(width=2).build(0).double()
    model = grown(model, 1, 0.5)
    critic = model.networks["discriminator"]
    real, fake = drawn(3, 1, 8, 8).double(), drawn(3, 1, 8, 8, seed=1).double()

    def penalty():
        between = torch.lerp(real, fake, 0.3).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    penalty().backward()
    names = []
    for name, parameter in critic.named_parameters():
        if parameter.grad is None or not name.endswith("weight"):
            continue
        place, step = (0,) * parameter.dim(), 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[place] += sign * step
            values.append(float(penalty()))
            with torch.no_grad():
                parameter[place] -= sign * step
        assert float(parameter.grad[place]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-3, abs=1e-7)
        names.append(name)
    assert {"last.weight", "flat.weight", "score.weight", "same.0.weight", "resampled.0.weight"} <= set(names)


def test_images_of_a_group_have_no_losses_of_their_own():
    critic, generator = spec().build(0).phases()
    for phase, reason in ((critic, "minibatch standard deviation"), (generator, "it sees no real image")):
        with pytest.raises(ValueError, match=f"has no loss of each image: .*{reason}"):
            phase.losses_of_images(Batch(4), torch.Generator())


def test_labels_change_images_and_the_critic_names_classes():
    model = spec(conditional=True).build(0)
    one, other = (model.sample(1, torch.tensor([k]), torch.Generator().manual_seed(0)) for k in (0, 1))
    assert not torch.equal(one, other)
    critic = model.networks["discriminator"]
    assert torch.equal(critic(one, torch.tensor([0])), critic(one, torch.tensor([1]))), "a score has no label"


# -- state ---------------------------------------------------------------------------------------------------------


def test_a_restart_at_any_step_changes_no_bit():
    s = spec(conditional=True, critic_steps=(1, 2), training={"steps": 6, "batch_size": 4})
    whole, states = GenerativeTrainer(s.build(1), s.training, seed=7), []
    for step in range(6):
        whole.advance(images(), step + 1)
        states.append(whole.state())
    for step in range(1, 6):  # stages begin with 2 and 4
        second = GenerativeTrainer(s.build(2), s.training, seed=7)
        second.load_state(states[step - 1])
        second.advance(images(), 6)
        found = second.state()
        assert found.keys() == states[-1].keys()
        assert all(torch.equal(found[name], states[-1][name]) for name in found)


def test_what_a_federation_averages():
    s = spec(conditional=True)
    model = s.build(0)
    model.start_average()
    found = parts(model)
    assert {name for name, part in found.items() if part != "parameter"} == {
        "networks.generator.grown", "networks.discriminator.grown", "average.grown",
    }  # fmt: skip
    assert {found[name] for name in found if name.endswith(".grown")} == {"constant"}


def test_a_half_grown_generator_is_shared_as_it_is():
    s = spec(training={"steps": 9, "batch_size": 4})
    model = s.build(0)
    trainer = GenerativeTrainer(model, s.training, seed=0)
    trainer.advance(images(), 4)
    other = s.build(5)
    other.load_shared_arrays(model.shared_arrays(trainer.fit))
    assert other.networks["generator"].level_and_fade == (1, pytest.approx(2 / 3))
    ours, theirs = (m.sample(3, None, torch.Generator().manual_seed(0)) for m in (model, other))
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours, doubled(halved(ours))), "8 px, doubled"


def test_the_schedule_of_a_rectangle_is_trained_on():
    s = spec((20, 16), 3, training={"steps": 3, "batch_size": 3})
    trainer = GenerativeTrainer(s.build(0), s.training, seed=0)
    assert [stage.size for stage in Schedule(s.training, trainer.phases).stages] == [(5, 4), (10, 8), (20, 16)]
    fit = trainer.advance(images((20, 16), channels=3), 3)
    assert all(math.isfinite(value) for value in fit.scalars["critic_loss"])


# -- the nearest snapshot ------------------------------------------------------------------------------------------


def chosen(**training):
    training = {"steps": 6, "batch_size": 4, "snapshot_every": 2, "choose_snapshot": "sliced_wasserstein"} | training
    return spec(conditional=True, training=training)


def test_the_nearest_snapshot_is_shared_alone(monkeypatch):
    s, distances = chosen(), iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(sys.modules["models.fit_generative"], "distance_to", lambda *args, **options: next(distances))
    model = s.build(0)
    trainer = GenerativeTrainer(model, s.training, seed=0)
    trainer.advance(images(), 4)
    nearest = {name: tensor.clone() for name, tensor in model.sharable_state().items()}
    fit = trainer.advance(images(), 6)
    assert list(fit.snapshots) == [4] and fit.distances == {2: 3.0, 4: 1.0, 6: 2.0}
    arrays = model.shared_arrays(fit)
    assert arrays.keys() == {f"chosen.{name}" for name in nearest} == set(generator_layout(s))
    assert all(np.array_equal(arrays[f"chosen.{name}"], tensor) for name, tensor in nearest.items())
    column = fit.history["sliced_wasserstein"]
    assert [value for value in column if math.isfinite(value)] == [3.0, 1.0, 2.0]


def test_distances_survive_a_restart():
    s = chosen()
    whole = GenerativeTrainer(s.build(1), s.training, seed=7)
    whole.advance(images(), 3)
    state = whole.state()
    whole.advance(images(), 6)
    second = GenerativeTrainer(s.build(2), s.training, seed=7)
    second.load_state(state)
    second.advance(images(), 6)
    assert len(whole.fit.distances) == 3 and second.fit.distances == whole.fit.distances
    ours, theirs = second.state(), whole.state()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_distance_is_that_of_images_drawn_with_the_labels_of_real_ones(monkeypatch):
    model, drawn_labels = spec(conditional=True).build(0), []
    arrays = images()

    def of_its_training(n, labels, rng, **options):
        drawn_labels.extend(labels.tolist())
        return arrays.pixels

    monkeypatch.setattr(model, "sample_stored", of_its_training)
    assert distance_to(arrays, model, seed=0) == 0, "the same images"
    assert drawn_labels == arrays.labels.tolist()
    monkeypatch.setattr(model, "sample_stored", lambda n, *args, **options: np.zeros_like(arrays.pixels))
    assert distance_to(arrays, model, seed=0) > 100


def test_there_must_be_snapshots_to_choose_from():
    with pytest.raises(ValueError, match="choose_snapshot is sliced_wasserstein and there is one snapshot, the last"):
        chosen(snapshot_every=None)
