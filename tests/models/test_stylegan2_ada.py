"""StyleGAN2-ADA: sizes of the paper, losses against formulas written out here, what is mixed, averaged, kept and resumed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from models import (
    GenerativeTrainer,
    GeneratorPackage,
    GeneratorSpec,
    ModelError,
    PackageError,
    PatchArrays,
    fit_generative,
)
from models.federated_parts import averaged_state, load_averaged, parts
from models.generative import Batch
from models.phase_optimizers import PhaseOptimizers
from models.phases import runs_of
from models.schedule import Schedule
from models.shapes_only import shapes_only
from strategies.dm_gan.phases import remote_problem

SMALL = {"channel_base": 256, "channel_max": 12, "latent": 8, "style_dim": 10}


def spec(image_size=32, channels=1, conditional=False, training=None, **hyper) -> GeneratorSpec:
    return GeneratorSpec.model_validate(
        {"model": "stylegan2_ada", "image_size": image_size, "classes": ("healthy", "lesion"), "channels": channels,
         "conditional": conditional, "hyper_parameters": SMALL | hyper, "training": {"batch_size": 4} | (training or {})}
    )  # fmt: skip


def arrays(count=20, channels=1, size=(32, 32), seed=0) -> PatchArrays:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, channels, *size), dtype=np.uint8)
    return PatchArrays(pixels, np.arange(count), np.arange(count) % 2)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=4, channels=1, size=(32, 32), labels=None):
    return Batch(n, torch.randn(n, channels, *size, generator=stream(9)), labels)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def phase(model, name):
    return next(one for one in model.phases() if one.name == name)


# -- networks ------------------------------------------------------------------------------------------------------


def test_paper_sizes():
    """256 px, channel base 16384, mapping depth 2 (setting "auto"): counts from the formula of each layer."""
    with shapes_only():
        built = GeneratorSpec.model_validate(
            {"model": "stylegan2_ada", "image_size": 256, "classes": ("a", "b"), "channels": 3, "hyper_parameters": {},
             "training": {}}
        ).build(0)  # fmt: skip
    widths = [512, 512, 512, 512, 256, 128, 64]

    def styled(i, o):
        return 512 * i + i + 9 * i * o + o + 1

    def image(i):
        return 512 * i + i + 3 * i + 3

    pairs = list(zip(widths, widths[1:], strict=False))
    generator = 2 * (512 * 512 + 512) + 512 * 16 + sum(styled(w, w) + image(w) for w in widths)
    generator += sum(styled(i, o) for i, o in pairs)
    assert parameters(built.networks["generator"]) == generator
    judge = 3 * 64 + 64 + sum(9 * o * o + o + 9 * o * i + i + o * i for i, o in pairs)
    judge += 9 * 513 * 512 + 512 + 512 * 16 * 512 + 512 + 512 + 1
    assert parameters(built.networks["discriminator"]) == judge


@pytest.mark.parametrize("size", [32, (40, 32), (48, 64)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("noise", ["random", "constant", "none"])
def test_shapes(size, channels, conditional, noise):
    built = spec(size, channels, conditional, noise=noise).build(0)
    labels = torch.tensor([0, 1, 1]) if conditional else None
    height, width = size if isinstance(size, tuple) else (size, size)
    images = built.sample(3, labels, stream())
    assert images.shape == (3, channels, height, width) and images.abs().max() <= 1
    assert built.networks["discriminator"](images, labels).shape == (3,)
    assert torch.equal(images, built.sample(3, labels, stream()))


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_larger_sizes(size):
    with shapes_only():
        built = spec(size, 3).build(0)
    built = built.to_empty(device="cpu")
    for parameter in built.parameters():
        nn.init.normal_(parameter)
    if size <= 128:
        assert built.sample(1, None, stream()).shape == (1, 3, size, size)
    assert len(built.networks["generator"].to_image) == int(math.log2(size)) - 1


def test_sizes_that_do_not_divide_are_refused():
    for size, text in ((36, "36 px"), (16, "16 px"), ((160, 96), "160x96 px")):
        with pytest.raises(
            ValueError, match=rf"image_size is {text}; stylegan2_ada makes sides of 4 to 8 times one power of two"
        ):
            spec(size).build(0)


def test_settings_that_make_no_sense_are_refused():
    for key, value in (
        ("channel_base", 2),
        ("style_mixing", 1.5),
        ("augment", "bgcfnc"),
        ("truncation", -0.1),
        ("r1_gamma", -1),
    ):
        with pytest.raises(ValueError, match=key):
            spec(**{key: value})


def test_labels_change_images_and_scores():
    built = spec(conditional=True).build(0)
    one, other = (built.sample(1, torch.tensor([k]), stream()) for k in (0, 1))
    assert not torch.equal(one, other)
    judge = built.networks["discriminator"]
    assert not torch.equal(judge(one, torch.tensor([0])), judge(one, torch.tensor([1])))
    with pytest.raises(ValueError, match="conditional: pass 1 labels"):
        built.sample(1, None, stream())


def test_a_conditional_score_is_a_projection_on_the_class():
    judge = spec(conditional=True).build(0).networks["discriminator"]
    features = {}
    judge.score.register_forward_hook(lambda module, inputs, output: features.update(x=output))
    found = judge(batch().images, torch.tensor([0, 1, 1, 0]))
    code = judge.label.weight / judge.label.weight.square().mean(1, keepdim=True).sqrt()
    expected = (features["x"] * code[[0, 1, 1, 0]]).sum(1) / math.sqrt(12)
    torch.testing.assert_close(found, expected)


def test_real_and_generated_images_are_not_compared():
    judge = spec().build(0).networks["discriminator"]
    x = batch(6).images
    both = judge(torch.cat([x, -x]), parts=2)
    torch.testing.assert_close(both, torch.cat([judge(x), judge(-x)]), rtol=1e-4, atol=1e-5)


# -- codes, mixing, noise, truncation ------------------------------------------------------------------------------


def test_a_mixed_image_takes_its_coarse_layers_from_one_code_and_the_others_from_another():
    built = spec(noise="none").build(0)
    generator = built.networks["generator"]
    noise = built.noise(2000, stream())
    codes = generator.codes(noise, None)
    first, second = (generator.mapping(noise[:, k * 8 : k * 8 + 8], None) for k in (0, 1))
    of_first = (codes == first[:, None]).all(2)
    assert ((codes == second[:, None]).all(2) != of_first).all(), "every layer has one of the two"
    coarse = of_first.sum(1)
    assert (of_first == (torch.arange(8) < coarse[:, None])).all() and coarse.min() == 1 and codes.shape[1] == 8
    # 1 .. 7 are equally likely with probability .9, and 8 is the rest.
    shares = torch.bincount(coarse, minlength=9)[1:] / 2000
    assert (shares[:7] - 0.9 / 7).abs().max() < 0.03 and shares[7] == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(("probability", "mixed"), [(0.0, 0), (1.0, 50)])
def test_mixing_may_be_off_or_always(probability, mixed):
    built = spec(style_mixing=probability).build(0)
    codes = built.networks["generator"].codes(built.noise(50, stream()), None)
    assert (codes[:, :1] != codes).any(2).any(1).sum() == mixed


def test_sampled_images_are_not_mixed():
    built = spec(noise="none", style_mixing=1.0).build(0)
    images = built.sample(3, None, stream())
    code = torch.randn(3, 8, generator=stream())
    torch.testing.assert_close(images, built.networks["generator"](code).detach().clamp(-1, 1))


@pytest.mark.parametrize(("noise", "differ"), [("random", True), ("constant", False), ("none", False)])
def test_noise_of_pixels(noise, differ):
    built = spec(noise=noise).build(0)
    generator = built.networks["generator"]
    for layer in generator.layers:
        if layer.strength is not None:
            nn.init.ones_(layer.strength)
    drawn = built.noise(2, stream())
    again = drawn.clone()
    again[:, :18] = drawn[:1, :18]  # one code for both
    images = generator(again)
    # To rounding: rows of a matrix product may be summed in another order.
    assert torch.allclose(images[0], images[1], atol=1e-4) != differ
    # A plain code gets the constants, which are part of the weights.
    code = torch.randn(1, 8)
    assert torch.equal(generator(code), generator(code))
    assert any("constant_noise" in name for name in built.sharable_state()) == (noise != "none")


def test_truncation_draws_codes_to_the_mean_of_their_class():
    built = spec(conditional=True).build(0)
    generator = built.networks["generator"]
    code, labels = torch.randn(4, 8), torch.tensor([0, 1, 1, 0])
    full, half, none = (generator.codes(code, labels, psi) for psi in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, (full + none) / 2)
    assert torch.equal(none[0], none[3]) and torch.equal(none[1], none[2]) and not torch.equal(none[0], none[1])
    wide = generator.mapping(torch.randn(20_000, 8), torch.zeros(20_000, dtype=torch.long)).mean(0)
    torch.testing.assert_close(none[0, 0], wide, atol=0.1, rtol=0)


def test_truncation_makes_images_more_alike():
    spread = []
    for psi in (1.0, 0.3):
        built = spec(truncation=psi, noise="none").build(0)
        spread.append(
            built.networks["generator"].eval()
            and built.draw(built.networks["generator"], 40, None, stream()).std(0).mean()
        )
    assert spread[1] < 0.6 * spread[0]


# -- losses --------------------------------------------------------------------------------------------------------


def test_losses_are_those_of_the_paper():
    built = spec(augment="none", r1_gamma=3.0, style_mixing=0.5).build(0)
    judge, generator, real = built.networks["discriminator"], built.networks["generator"], batch()
    fake = generator(built.noise(4, stream(1))).detach()
    loss, logs = phase(built, "discriminator").loss(real, stream(1))
    expected = softplus(judge(fake)).mean() + softplus(-judge(real.images)).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    loss, _ = phase(built, "generator").loss(real, stream(1))
    torch.testing.assert_close(loss, softplus(-judge(fake)).mean(), rtol=1e-4, atol=1e-5)
    loss, logs = phase(built, "r1").loss(real, stream(1))
    x = real.images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(judge(x).sum(), x)
    torch.testing.assert_close(logs["r1"], slope.square().sum((1, 2, 3)).mean(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(loss.detach(), 1.5 * logs["r1"])


@pytest.mark.parametrize(("size", "expected"), [(32, 0.0002 * 1024 / 4), ((40, 32), 0.0002 * 1280 / 4)])
def test_the_rule_for_r1(size, expected):
    assert spec(size).build(0).r1_gamma(4) == pytest.approx(expected)
    assert spec(r1_gamma=7.0).build(0).r1_gamma(4) == 7.0


def test_r1_reaches_the_discriminator_through_the_augmentation():
    """Its second derivative, against a difference of first ones."""
    built = spec().build(0).double()
    built.augment_probability.fill_(0.9)
    weight, real = built.networks["discriminator"].last.weight, Batch(2, batch(2).images.double())
    loss, _ = built.r1_loss(real, stream(3))
    (slope,) = torch.autograd.grad(loss, weight)
    direction = torch.randn(weight.shape, generator=stream(4), dtype=torch.float64)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-3 * direction
        values.append(float(built.r1_loss(real, stream(3))[0].detach()))
        with torch.no_grad():
            weight -= sign * 1e-3 * direction
    assert float((slope * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-3, rel=2e-3)


class LinearInCodes(nn.Module):
    """A generator whose images are A times the mean code of the layers: J^T y is A^T y / layers in each."""

    def __init__(self, model, matrix):
        super().__init__()
        self.matrix, self.noise_columns = matrix, model.networks["generator"].noise_columns
        self.w = nn.Parameter(torch.ones(1))

    def codes(self, noise, labels):
        return (noise[:, None, :10] * self.w).expand(-1, 8, -1)

    def images_of(self, codes, noise):
        return (codes.mean(1) @ self.matrix.t()).view(-1, 1, 32, 32)


def test_path_length_of_a_linear_generator():
    built = spec(path_decay=0.25, path_length=2.0, noise="none").build(0)
    matrix = torch.randn(1024, 10, generator=stream(5))
    built.networks["generator"] = LinearInCodes(built, matrix)
    built.path_mean.fill_(0.2)
    loss, logs = built.path_length_loss(batch(6), stream(1))
    rng = stream(1)
    built.noise(3, rng)  # half of the batch
    y = torch.randn(3, 1, 32, 32, generator=rng) / 32
    # The square root of the mean over layers of the squared length.
    lengths = (y.flatten(1) @ matrix / 8).norm(dim=1)
    mean = 0.75 * 0.2 + 0.25 * lengths.mean()
    torch.testing.assert_close(logs["path_length"], lengths.mean())
    torch.testing.assert_close(built.path_mean, mean)
    torch.testing.assert_close(loss.detach(), 2 * (lengths - mean).square().mean())


def test_path_length_reaches_the_generator():
    built = spec().build(0)
    loss, _ = built.path_length_loss(batch(), stream())
    slopes = torch.autograd.grad(loss, list(built.networks["generator"].parameters()), allow_unused=True)
    unused = {n for (n, _), g in zip(built.networks["generator"].named_parameters(), slopes, strict=True) if g is None}
    # Nothing but biases of the image, whose slope is nothing.
    assert all(n.startswith("to_image") and n.endswith("bias") and "style" not in n for n in unused)
    assert built.path_mean > 0


# -- schedule ------------------------------------------------------------------------------------------------------


def test_phases_are_lazy_and_their_optimizers_know():
    built = spec().build(0)
    names = [[run.phase.name for run in runs_of(built.phases(), step)] for step in (0, 1, 4, 16)]
    assert names[0] == names[3] == ["discriminator", "r1", "generator", "path_length"]
    assert names[1] == ["discriminator", "generator"] and names[2] == ["discriminator", "generator", "path_length"]
    loss, _ = phase(built, "r1").loss(batch(), stream())
    weighted, _ = phase(built, "r1").weighted_loss(batch(), stream())
    torch.testing.assert_close(weighted, 16 * loss)
    s = spec(training={"learning_rate": 0.0025, "betas": (0.0, 0.99)})
    optimizers = PhaseOptimizers(built.phases(), built.networks, s.training)
    moment = Schedule(s.training, built.phases()).moment(0)
    for name, k in (("discriminator", 16), ("r1", 16), ("generator", 4), ("path_length", 4)):
        (group,) = optimizers.prepare(phase(built, name), moment).param_groups
        c = k / (k + 1)
        assert group["lr"] == pytest.approx(0.0025 * c) and group["betas"] == pytest.approx((0.0, 0.99**c))


def test_regularisers_may_be_left_out():
    built = spec(r1_gamma=0.0, path_length=0.0).build(0)
    assert [one.name for one in built.phases()] == ["discriminator", "generator"]
    assert all(one.optimizer.lazy_interval is None for one in built.phases())


def test_all_images_of_a_step_are_those_of_one_batch():
    s = spec()
    assert Schedule(s.training, s.build(0).phases()).images_of(0) == 4


def test_defaults_are_those_of_the_paper():
    s = GeneratorSpec.model_validate(
        {"model": "stylegan2_ada", "image_size": 256, "classes": ("a", "b"), "hyper_parameters": {}, "training": {}}
    )
    t, h = s.training, s.hyper_parameters
    assert (t.learning_rate, t.betas, t.batch_size, t.ema_images, t.ema_ramp) == (0.0025, (0.0, 0.99), 32, 10_000, 0.05)
    assert (h["channel_base"], h["channel_max"], h["mapping_depth"], h["style_mixing"]) == (16384, 512, 2, 0.9)
    assert (h["path_length"], h["path_decay"], h["ada_target"], h["ada_kimg"]) == (2.0, 0.01, 0.6, 500.0)


def test_the_average_forgets_by_images_with_a_ramp():
    s = spec(training={"steps": 6, "ema_images": 1000, "ema_ramp": 0.5})
    built, seen = s.build(0), []
    start = built.networks["generator"].constant.detach().clone()
    trainer = GenerativeTrainer(
        built, s.training, seed=0, after_step=lambda done: seen.append(built.networks["generator"].constant.detach().clone())
    )  # fmt: skip
    trainer.advance(arrays(), 6)
    expected = start
    for step, weight in enumerate(seen):
        keep = 0.5 ** (4 / min(1000, 0.5 * 4 * step)) if step else 0.0
        expected = keep * expected + (1 - keep) * weight
    torch.testing.assert_close(built.average.constant, expected)


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("conditional", "channels", "size"), [(False, 1, (32, 32)), (True, 3, (40, 32))])
@pytest.mark.parametrize("augment", ["none", "bg", "bgc"])
def test_it_trains(conditional, channels, size, augment):
    s = spec(size, channels, conditional, augment=augment, ada_kimg=0.05, training={"steps": 9})
    built = s.build(0)
    before = {name: t.clone() for name, t in built.networks.state_dict().items()}
    fit = fit_generative(built, arrays(20, channels, size), s.training, seed=0)
    assert all(
        math.isfinite(v) for name, values in fit.scalars.items() for v in values if name not in ("r1", "path_length")
    )
    still = {name for name, t in built.networks.state_dict().items() if torch.equal(t, before[name])}
    assert all("constant_noise" in name for name in still)
    assert ("augment_probability" in fit.scalars) == (augment != "none")


def test_labels_reach_both_networks_in_training():
    s = spec(conditional=True, training={"steps": 2})
    built = s.build(0)
    before = [
        built.networks["generator"].mapping.label.weight.clone(),
        built.networks["discriminator"].label.weight.clone(),
    ]
    fit_generative(built, arrays(), s.training, seed=0)
    after = [built.networks["generator"].mapping.label.weight, built.networks["discriminator"].label.weight]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("conditional", [False, True])
def test_a_restart_changes_no_bit(conditional):
    s = spec(
        conditional=conditional,
        ada_kimg=0.05,
        ada_target=-1.0,
        training={"steps": 18, "ema_images": 30, "ema_ramp": 0.5},
    )
    whole = GenerativeTrainer(s.build(1), s.training, seed=7)
    states = {}
    for step in (3, 4, 16, 18):
        whole.advance(arrays(), step)
        states[step] = whole.state()
    assert states[18]["model.augment_probability"] > 0 and states[18]["model.path_mean"] > 0
    for step in (3, 4, 16):
        second = GenerativeTrainer(s.build(2), s.training, seed=7)
        second.load_state(states[step])
        torch.manual_seed(step)
        second.advance(arrays(), 18)
        assert_same(second.state(), states[18])


def test_weights_that_are_not_finite_stop_training_at_once():
    s = spec(training={"steps": 100})
    built = s.build(0)
    with torch.no_grad():
        built.networks["generator"].constant[0, 0, 0] = math.nan
    with pytest.raises(ModelError, match="is not finite at step 1; lower learning_rate, now 0.0025"):
        fit_generative(built, arrays(), s.training, seed=0)


def test_a_package_of_it(tmp_path):
    s = spec(conditional=True)
    built = s.build(0)
    package = GeneratorPackage(s, built.shared_arrays())
    package.write(tmp_path / "own")
    other = s.build(1)
    other.load_shared_arrays(GeneratorPackage.read(tmp_path / "own").weights)
    labels = torch.tensor([0, 1])
    torch.testing.assert_close(other.sample(2, labels, stream()), built.sample(2, labels, stream()))
    poisoned = {name: np.full_like(array, np.nan) for name, array in package.weights.items()}
    with pytest.raises(PackageError, match="NaN or infinity"):
        GeneratorPackage(s, poisoned).write(tmp_path / "x")
    with pytest.raises(PackageError, match="do not fit"):
        GeneratorPackage(spec(channel_max=8, conditional=True), package.weights).write(tmp_path / "x")


# -- federations ---------------------------------------------------------------------------------------------------


def test_what_is_averaged_and_what_stays():
    s = spec(conditional=True, training={"ema_images": 30})
    built = s.build(0)
    built.start_average()
    found = parts(built)
    for name, part in found.items():
        if name in ("augment_probability", "augment_signs", "path_mean"):
            assert part == "local"
        else:
            assert part == ("constant" if "constant_noise" in name else "parameter"), name
    travelling = averaged_state(built)
    assert {name.split(".")[0] for name in travelling} == {"networks", "average"}
    assert {name.split(".")[1] for name in travelling if name.startswith("networks")} == {"generator", "discriminator"}
    assert not any("kernel" in name or "noise" in name for name in travelling)


def test_a_round_leaves_what_is_local_and_constant():
    s = spec(training={"steps": 8, "ema_images": 30}, ada_target=-1.0, ada_kimg=0.05)
    one, other = s.build(0), s.build(0)
    trainers = [GenerativeTrainer(model, s.training, seed=seed) for seed, model in enumerate((one, other))]
    for seed, trainer in enumerate(trainers):
        trainer.advance(arrays(seed=seed), 5)
    kept = {
        name: other.state_dict()[name].clone() for name, part in parts(other).items() if part in ("local", "constant")
    }
    assert not torch.equal(one.path_mean, other.path_mean)
    load_averaged(other, averaged_state(one))
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, kept[name] if name in kept else one.state_dict()[name]), name
    trainers[1].advance(arrays(seed=1), 8)  # moments were kept, and it goes on


def test_noise_of_a_generator_elsewhere_is_one_tensor():
    """Two copies make the same images of it, mixing and noise of pixels included."""
    built, copy = spec().build(0), spec().build(0)
    noise = built.noise(3, stream())
    assert torch.equal(built.networks["generator"](noise), copy.networks["generator"](noise))
    loss, _ = phase(built, "generator").loss(batch(3), stream(2))
    made = replace(batch(3), fake=built.networks["generator"](built.noise(3, stream(2))))
    other, _ = phase(built, "generator").loss(made, stream(2))
    assert torch.equal(loss, other)


@pytest.mark.parametrize(
    ("hyper", "sends_images", "problem"),
    [
        ({}, False, "the generator of stylegan2_ada is trained by 2 phases (generator, path_length)"),
        ({"path_length": 0.0}, True, "phase 'r1' of stylegan2_ada does not run in every step"),
        ({"path_length": 0.0}, False, None),
        ({"path_length": 0.0, "r1_gamma": 0.0}, True, None),
    ],
)
def test_with_the_generator_on_the_server(hyper, sends_images, problem):
    found = remote_problem(spec(**hyper), sends_images)
    assert found is None if problem is None else problem in found


# -- does it learn -------------------------------------------------------------------------------------------------


def ring(count=512, size=32, seed=0):
    """A blob at one of eight places on a circle."""
    rng = np.random.default_rng(seed)
    angle = rng.integers(8, size=count) * np.pi / 4
    y, x = (size / 2 + size / 4 * f(angle) + rng.normal(0, 0.4, count) for f in (np.sin, np.cos))
    rows, columns = np.mgrid[:size, :size]
    blobs = np.exp(-((rows - y[:, None, None]) ** 2 + (columns - x[:, None, None]) ** 2) / (2 * 2.5**2))
    return PatchArrays((blobs[:, None] * 255).astype(np.uint8), np.arange(count))


def places(images):
    """Centres of brightness about the middle (n, 2)."""
    light = (images + 1).clamp(min=0)[:, 0]
    light = torch.where(light > 0.5, light, 0.0) + 1e-6
    axis = torch.arange(images.shape[-1]) - images.shape[-1] / 2
    total = light.sum((1, 2))
    return torch.stack([(light.sum(2) * axis).sum(1) / total, (light.sum(1) * axis).sum(1) / total], dim=1)


def distance(images, real):
    """Energy distance of the images' coarse pixels."""
    a, b = (torch.nn.functional.avg_pool2d(x, 4).flatten(1) for x in (images, real))
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


@pytest.mark.slow
@pytest.mark.xfail(
    reason="its distance is halved after 200 steps and grows again: see docs/generators.md", strict=False
)
def test_it_learns_a_ring_of_gaussians():
    s = spec(
        channel_base=1024, channel_max=32, latent=16, style_dim=32, ada_kimg=50.0,
        training={"batch_size": 16, "steps": 500, "ema_images": 1000, "flips": "none"},
    )  # fmt: skip
    data, built = ring(), s.build(0)
    real = torch.from_numpy(data.pixels).float() / 127.5 - 1
    start = distance(built.sample(256, None, stream()), real[:256])
    fit_generative(built, data, s.training, seed=0)
    images = built.sample(256, None, stream())
    end = distance(images, real[:256])
    found = places(images)
    which = ((torch.atan2(found[:, 0], found[:, 1]) / (math.pi / 4)).round().long() % 8)[
        (found.norm(dim=1) - 8).abs() < 2
    ]
    recall = (torch.bincount(which, minlength=8) > 2).float().mean()
    print(start, end, recall, torch.bincount(which, minlength=8))
    assert end < start / 2 and recall > 0.3
