"""R3GAN: sizes, initial values, losses written out here and against closed forms, augmentation, restarts, federated parts."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from models import GenerativeTrainer, GeneratorSpec, PatchArrays
from models.diff_augment import DiffAugment
from models.federated_parts import parts
from models.phases import Batch, Moment
from models.r3gan import Block
from models.shapes_only import shapes_only

CLASSES = ("without", "with", "other")


def spec(image_size=16, channels=1, conditional=False, training=None, **hyper):
    values = {
        "model": "r3gan",
        "image_size": image_size,
        "classes": CLASSES,
        "made": None if conditional else CLASSES[-1:],
        "channels": channels,
        "conditional": conditional,
    }
    hyper = {"width": 8, "latent": 6} | hyper
    return GeneratorSpec.model_validate(values | {"hyper_parameters": hyper, "training": training or {}})


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stream(seed=5):
    return torch.Generator().manual_seed(seed)


def awake(model):
    """The last layers of blocks begin at 0; with weights of their own all others matter, too."""
    for module in model.modules():
        if isinstance(module, Block):
            module.narrow.weight.data.normal_(0, 0.3, generator=stream(1))
    return model


# -- networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 24, (20, 16), 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("conditional", [False, True])
def test_shapes(size, channels, conditional):
    model = spec(size, channels, conditional, width=16).build(0)
    labels = torch.tensor([0, 2, 1]) if conditional else None
    made = model.sample(3, labels, stream())
    assert made.shape == (3, *model.shape)
    assert model.networks["discriminator"](made, labels).shape == (3,)


def test_the_paper_s_networks():
    """768 channels up to 32 px and half of them at 64 px, two blocks each; 96 groups of 16."""
    with shapes_only():
        model = spec(64, 3, width="paper", blocks=2).build(0)
    for network in model.networks.values():
        blocks = [module for module in network.modules() if isinstance(module, Block)]
        found = sorted((block.mix.in_channels, block.mix.groups) for block in blocks)
        assert found == [(768, 48)] * 2 + [(1536, 96)] * 8
        assert not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in network.modules())


def test_a_block_begins_as_the_identity_and_deeper_networks_with_smaller_weights():
    torch.manual_seed(0)
    x = drawn(2, 64, 4, 4)
    assert torch.equal(Block(64, 4)(x), x)
    shallow, deep = Block(64, 1), Block(64, 16)
    assert float(shallow.widen.weight.detach().std()) == pytest.approx(math.sqrt(2 / 1.04 / 64), rel=0.05)
    assert float(deep.mix.weight.detach().std()) == pytest.approx(math.sqrt(2 / 1.04 / 144) / 2, rel=0.05)


@pytest.mark.parametrize(
    ("size", "hyper", "said"),
    [
        (36, {}, "image_size is 36 px; r3gan makes sides of 4 to 8 times one power of two, from 4 on"),
        (16, {"width": 12}, "width is 12; r3gan divides its channels into groups, which needs a multiple of 8 for images of 16x16 px"),
        (64, {"width": 8}, "width is 8; .* a multiple of 16 for images of 64x64 px"),
        (16, {"width": 4}, "greater than or equal to 8"),
        (16, {"gamma": -1}, "greater than or equal to 0"),
        (16, {"augment": "ada"}, "'none' or 'diffaugment'"),
    ],
)  # fmt: skip
def test_what_makes_no_model_is_refused(size, hyper, said):
    with pytest.raises(ValueError, match=said):
        spec(size, **hyper).build(0)


def test_labels_change_images_and_scores():
    model = awake(spec(conditional=True).build(0))
    images = [model.sample(1, torch.tensor([k]), stream()) for k in (0, 1)]
    assert not torch.equal(*images)
    discriminator = model.networks["discriminator"]
    one, other = (discriminator(images[0], torch.tensor([k])) for k in (0, 1))
    assert not torch.equal(one, other)


# -- losses --------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """A discriminator whose gradient is its weight everywhere."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images, labels=None):
        return images.flatten(1) @ self.weight


def test_penalties_of_a_linear_discriminator():
    """R1 and R2 are the squared norm of its weight; and so is the gradient of the loss."""
    model = spec(gamma=0.8).build(0)
    weight = drawn(256, seed=2) / 10
    model.networks["discriminator"] = Linear(weight.clone())
    real = drawn(4, 1, 16, 16)
    loss, logs = model.discriminator_loss(Batch(4, real), stream())
    norm = float(weight.square().sum())
    assert float(logs["r1"]) == pytest.approx(norm, rel=1e-5) and float(logs["r2"]) == pytest.approx(norm, rel=1e-5)
    fake = model.networks["generator"](model.noise(4, stream()), None).detach()
    gap = (real - fake).flatten(1)
    assert float(loss) == pytest.approx(float(softplus(-gap @ weight).mean()) + 0.8 * norm, rel=1e-5)
    loss.backward()
    expected = -(torch.sigmoid(-gap @ weight)[:, None] * gap).mean(0) + 1.6 * weight
    torch.testing.assert_close(model.networks["discriminator"].weight.grad, expected, rtol=1e-4, atol=1e-5)


def test_the_pairing_loss_is_symmetric():
    """What the one loses the other wins: real and generated images change places between the two losses."""
    model = awake(spec(gamma=0).build(0))
    real, fake = drawn(5, 1, 16, 16), drawn(5, 1, 16, 16, seed=1)
    ours, _ = model.discriminator_losses(Batch(5, real, None, fake), stream())
    theirs, _ = model.generator_losses(Batch(5, fake, None, real), stream())
    torch.testing.assert_close(ours, theirs)
    discriminator = model.networks["discriminator"]
    gap = discriminator(real) - discriminator(fake)
    assert gap.abs().min() > 1e-4
    torch.testing.assert_close(ours, softplus(-gap))
    against, _ = model.generator_losses(Batch(5, real, None, fake), stream())
    torch.testing.assert_close(against - ours, gap)  # softplus(x) - softplus(-x) = x
    # Only the difference counts.
    same, _ = model.discriminator_losses(Batch(5, real, None, real), stream())
    torch.testing.assert_close(same, torch.full((5,), math.log(2)))


def test_gradients_of_the_penalty_against_differences(monkeypatch):
    model = awake(spec(conditional=True, gamma=3.0, augment="diffaugment").build(0))
    discriminator = model.networks["discriminator"]
    batch = Batch(3, drawn(3, 1, 16, 16), torch.tensor([0, 2, 1]), drawn(3, 1, 16, 16, seed=1))
    for number, (name, parameter) in enumerate(discriminator.named_parameters()):
        # What is cut out is 0, where a leaky ReLU has no derivative, unless a bias comes before it.
        own = drawn(*parameter.shape, seed=number) if "biases" in name else parameter.data
        parameter.data = own.double()
    batch = Batch(3, batch.images.double(), batch.labels, batch.fake.double())
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # stays float64
    model.discriminator_loss(batch, stream())[0].backward()
    names = []
    for name, parameter in discriminator.named_parameters():
        # Steps so small that no leaky ReLU changes its side: there the penalty jumps.
        direction, values = drawn(*parameter.shape, seed=3).double(), []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-8 * direction
            values.append(float(model.discriminator_loss(batch, stream())[0]))
            with torch.no_grad():
                parameter -= sign * 1e-8 * direction
        slope = float((parameter.grad * direction).sum())
        assert slope == pytest.approx((values[0] - values[1]) / 2e-8, rel=1e-3, abs=1e-4), name
        names.append(name)
    assert len(names) == len(list(discriminator.parameters())) > 15


def test_the_penalty_s_weight_falls_by_half_a_cosine():
    model = spec(32).build(0)
    assert model.gamma == 0.5
    found = []
    for step in (0, 50, 100):
        model.tell(Moment(step, 100))
        found.append(model.gamma)
    assert found == pytest.approx([0.5, 0.275, 0.05])
    model = spec(64, width=16).build(0)
    assert model.gamma == 2
    for gamma, expected in ((1.5, [1.5, 1.5]), ([2, 1], [2, 1]), (0, [0, 0])):
        model, found = spec(gamma=gamma).build(0), []
        for step in (0, 100):
            model.tell(Moment(step, 100))
            found.append(model.gamma)
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("augment", ["none", "diffaugment"])
def test_the_mean_of_single_losses_is_the_loss_and_each_is_of_its_pair(phase, augment):
    model = awake(spec(conditional=True, augment=augment).build(0))
    phase = model.phases()[phase]
    labels, real = torch.tensor([0, 1, 2, 0]), drawn(4, 1, 16, 16)
    losses, _ = phase.losses_of_images(Batch(4, real, labels), stream())
    torch.testing.assert_close(phase.loss(Batch(4, real, labels), stream())[0], losses.mean())
    changed = real.clone()
    changed[2] += 1
    others, _ = phase.losses_of_images(Batch(4, changed, labels), stream())
    kept = [0, 1, 3]
    assert float(others[2]) != pytest.approx(float(losses[2]), abs=1e-4)
    torch.testing.assert_close(others[kept], losses[kept])


def test_real_and_generated_images_get_the_same_augmentation(monkeypatch):
    model, seen = spec(augment="diffaugment").build(0), []
    discriminator = model.networks["discriminator"]
    discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    real, fake = drawn(4, 1, 16, 16), drawn(4, 1, 16, 16, seed=1)
    model.discriminator_loss(Batch(4, real, None, fake), stream())
    rng = stream()
    model.noise(4, rng)  # is drawn first, wherever the images are made
    augment = DiffAugment.drawn(4, (16, 16), rng)
    torch.testing.assert_close(seen[0], torch.cat([augment(real), augment(fake)]))
    assert not torch.equal(seen[0][:4], real)


# -- state ---------------------------------------------------------------------------------------------------------


def images(count=20):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 16, 16), dtype=np.uint8)
    return PatchArrays(pixels, np.arange(count), np.arange(count) % 3)


def test_a_restart_changes_no_bit():
    s = spec(conditional=True, augment="diffaugment", training={"steps": 4, "batch_size": 3})
    whole = GenerativeTrainer(s.build(1), s.training, seed=7)
    whole.advance(images(), 2)
    state = whole.state()
    whole.advance(images(), 4)
    second = GenerativeTrainer(s.build(2), s.training, seed=7)
    second.load_state(state)
    second.advance(images(), 4)
    ours, theirs = second.state(), whole.state()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(np.isfinite(whole.fit.scalars["r1"]))


def test_all_of_it_is_averaged_in_a_federation():
    assert set(parts(spec(conditional=True).build(0)).values()) == {"parameter"}
