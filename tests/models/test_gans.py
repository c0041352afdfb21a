"""DCGAN and WGAN-GP: sizes of the paper, losses against formulas written out here, one step against plain PyTorch."""

import numpy as np
import pytest
import torch
from torch import nn

from models import GENERATIVE_MODELS, GenerativeTrainer, GeneratorSpec, PatchArrays
from models.adversarial import AdversarialModel
from models.batch_stream import BatchStream
from models.generative import Batch
from models.random_streams import torch_stream
from models.wgan_gp import gradient_penalties


def spec(
    model: str,
    image_size=32,
    channels: int = 1,
    conditional: bool = False,
    training=None,
    classes=("healthy", "lesion"),
    **hyper,
) -> GeneratorSpec:
    return GeneratorSpec.model_validate(
        {"model": model, "image_size": image_size, "classes": classes, "channels": channels, "conditional": conditional,
         "hyper_parameters": hyper, "training": training or {}}
    )  # fmt: skip


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def noise_images(count: int, channels: int = 1, size: int = 32) -> PatchArrays:
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    return PatchArrays(pixels, np.arange(count), np.arange(count) % 2)


@pytest.mark.parametrize("model", sorted(GENERATIVE_MODELS))
def test_settings_say_whether_there_is_a_discriminator(model):
    with torch.device("meta"):
        built = spec(model).build(0)
    assert (
        GENERATIVE_MODELS[model].adversarial
        == isinstance(built, AdversarialModel)
        == ("discriminator" in built.networks)
    )


@pytest.mark.parametrize("model", ["dcgan", "wgan_gp"])
def test_paper_sizes(model):
    """12.8 M and 25.1 M parameters at 128 px (counts in Szafranowska et al.)."""
    with torch.device("meta"):
        networks = spec(model, 128, width="paper").build(0).networks
    assert round(parameters(networks["generator"]) / 1e6, 1) == 12.8
    assert round(parameters(networks["discriminator"]) / 1e6, 1) == 25.1
    # Channels double at every halving of the side: 1024 of them at 4x4.
    assert networks["generator"].layers[0].out_channels == 1024


def test_small_size_at_64():
    with torch.device("meta"):
        networks = spec("dcgan", 64).build(0).networks
    assert round(parameters(networks["generator"]) / 1e6, 1) == 1.1
    assert round(parameters(networks["discriminator"]) / 1e6, 1) == 1.6


@pytest.mark.parametrize("model", ["dcgan", "wgan_gp"])
@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("conditional", [False, True])
def test_shapes_and_range(model, image_size, channels, conditional):
    built = spec(model, image_size, channels, conditional, width=4).build(0)
    labels = torch.tensor([0, 1, 1]) if conditional else None
    images = built.sample(3, labels, torch.Generator().manual_seed(0))
    assert images.shape == (3, channels, image_size, image_size)
    assert images.abs().max() <= 1
    logits = built.networks["discriminator"](images, labels)
    assert logits.shape == (3,)


def test_sizes_that_cannot_be_made_are_refused():
    for size, text in ((36, "36 px"), (16, "16 px"), ((160, 96), "160x96 px"), ((128, 130), "128x130 px")):
        with pytest.raises(
            ValueError, match=rf"image_size is {text}; dcgan makes sides of 4 to 8 times one power of two"
        ):
            spec("dcgan", size).build(0)


@pytest.mark.parametrize("model", ["dcgan", "wgan_gp"])
@pytest.mark.parametrize("size", [48, (160, 128), (64, 32), (40, 48)])
@pytest.mark.parametrize("classes", [None, 7])
def test_rectangles_and_any_number_of_classes(model, size, classes):
    built = spec(model, size, 1, classes is not None, classes=list("abcdefg"), width=2).build(0)
    labels = None if classes is None else torch.tensor([6, 0, 3])
    images = built.sample(3, labels, torch.Generator().manual_seed(0))
    height, width = size if isinstance(size, tuple) else (size, size)
    assert images.shape == (3, 1, height, width) and built.networks["discriminator"](images, labels).shape == (3,)


def test_a_whole_mammogram_has_an_eighth_halving_and_no_more_channels_than_128_px():
    with torch.device("meta"):
        networks = spec("dcgan", (1280, 1024), width=16).build(0).networks
    assert networks["generator"].layers[0].weight.shape == (100, 256, 5, 4)
    assert networks["discriminator"].layers[-1].weight.shape == (1, 256, 7, 6)


def test_only_the_critic_with_penalty_is_without_batch_norm():
    def norms(model):
        return [m for m in spec(model).build(0).networks["discriminator"].modules() if isinstance(m, nn.BatchNorm2d)]

    assert norms("dcgan") and not norms("wgan_gp")


def test_labels_change_images_and_scores():
    model = spec("wgan_gp", conditional=True).build(0)
    one, other = (model.sample(1, torch.tensor([k]), torch.Generator().manual_seed(0)) for k in (0, 1))
    assert not torch.equal(one, other)
    critic = model.networks["discriminator"]
    assert not torch.equal(critic(one, torch.tensor([0])), critic(one, torch.tensor([1])))
    with pytest.raises(ValueError, match="conditional: pass 1 labels"):
        model.sample(1, None, torch.Generator())


class Linear(nn.Module):
    """A critic whose gradient is its weight everywhere."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images, labels=None):
        return images.flatten(1) @ self.weight


def test_gradient_penalty_of_a_linear_critic():
    weight = torch.arange(16.0) / 10
    real, fake = torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4)
    penalty = gradient_penalties(Linear(weight), real, fake, None, torch.Generator().manual_seed(0)).mean()
    assert penalty.item() == pytest.approx((weight.norm().item() - 1) ** 2, rel=1e-5)
    assert gradient_penalties(
        Linear(weight / weight.norm()), real, fake, None, torch.Generator()
    ).mean().item() == pytest.approx(0, abs=1e-10)


def test_interpolation_is_drawn_for_each_image():
    """A quadratic critic's gradient is the interpolated image itself, so the penalty tells where it was taken."""

    class Quadratic(nn.Module):
        def forward(self, images, labels=None):
            return images.flatten(1).square().sum(1) / 2

    real, fake = torch.zeros(4, 1, 2, 2), torch.full((4, 1, 2, 2), 0.5)  # |fake| = 1, so |gradient| = u
    u = torch.rand(4, 1, 1, 1, generator=torch.Generator().manual_seed(3)).flatten()
    penalty = gradient_penalties(Quadratic(), real, fake, None, torch.Generator().manual_seed(3)).mean()
    assert penalty.item() == pytest.approx((u - 1).square().mean().item(), rel=1e-5)


def test_smoothing_is_one_sided_and_spans_its_range():
    """With logits at 0 the loss is log 2 for any target; with large logits its slope shows the mean target."""
    model = spec("dcgan", width=4).build(0)
    batch = Batch(4000, torch.zeros(4000, 1, 32, 32))

    class Constant(nn.Module):
        def forward(self, images, labels=None):
            return torch.full((len(images),), 2.0)

    model.networks["discriminator"] = Constant()
    model.draw = lambda *_: torch.zeros(4000, 1, 32, 32)
    loss, _ = model.discriminator_loss(batch, torch.Generator().manual_seed(0))
    softplus = float(np.log1p(np.exp(2.0)))
    # BCE with logits x: softplus(x) - x * target; the fake half has target 0 exactly.
    mean_target = (2 * softplus - loss.item()) / 2.0
    assert mean_target == pytest.approx(0.95, abs=0.01)


def plain_dcgan_step(generator, discriminator, optimizers, real, rngs):
    """A DCGAN step as one writes it by hand."""
    bce = nn.BCEWithLogitsLoss()
    n = len(real)
    with torch.no_grad():
        fake = generator(torch.randn(n, 100, generator=rngs[0]))
    target = torch.rand(n, generator=rngs[0]) * 0.3 + 0.8
    optimizers[1].zero_grad()
    (bce(discriminator(real), target) + bce(discriminator(fake), torch.zeros(n))).backward()
    optimizers[1].step()
    optimizers[0].zero_grad()
    bce(discriminator(generator(torch.randn(n, 100, generator=rngs[1]))), torch.ones(n)).backward()
    optimizers[0].step()


def test_two_steps_against_plain_pytorch():
    training = {"batch_size": 8, "flips": "none", "channels_last": False, "steps": 2}
    ours, theirs = spec("dcgan", training=training).build(0), spec("dcgan").build(0)
    images = noise_images(16)
    trainer = GenerativeTrainer(ours, spec("dcgan", training=training).training, seed=5)
    stream = BatchStream(ours, images, trainer.training, seed=5)
    generator, discriminator = (theirs.networks[k].train() for k in ("generator", "discriminator"))
    optimizers = [torch.optim.Adam(m.parameters(), 1e-4, betas=(0.5, 0.999)) for m in (generator, discriminator)]
    for step in range(2):
        rngs = [torch_stream(5, "phase", phase, step, 0) for phase in ("discriminator", "generator")]
        plain_dcgan_step(generator, discriminator, optimizers, stream.batch(step).real(), rngs)
    trainer.advance(images, 2)
    for name, expected in theirs.networks.state_dict().items():
        torch.testing.assert_close(ours.networks.state_dict()[name], expected, rtol=1e-4, atol=2e-6)


def plain_critic_step(generator, critic, optimizer, real, rng):
    n = len(real)
    fake = generator(torch.randn(n, 100, generator=rng)).detach()
    u = torch.rand(n, 1, 1, 1, generator=rng)
    between = (real + u * (fake - real)).requires_grad_()
    gradient = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
    penalty = ((gradient.reshape(n, -1).norm(2, dim=1) - 1) ** 2).mean()
    optimizer.zero_grad()
    (critic(fake).mean() - critic(real).mean() + 10 * penalty).backward()
    optimizer.step()


def test_wgan_step_against_plain_pytorch_and_counts_critic_steps():
    training = {"batch_size": 4, "flips": "none", "channels_last": False, "steps": 1}
    ours, theirs = (spec("wgan_gp", width=8, training=training).build(0) for _ in range(2))
    images = noise_images(32)
    trainer = GenerativeTrainer(ours, spec("wgan_gp", training=training).training, seed=5)
    stream = BatchStream(ours, images, trainer.training, seed=5)
    generator, critic = (theirs.networks[k].train() for k in ("generator", "discriminator"))
    optimizers = [torch.optim.Adam(m.parameters(), 1e-4, betas=(0.5, 0.9)) for m in (generator, critic)]
    for repeat in range(5):
        plain_critic_step(
            generator, critic, optimizers[1], stream.batch(repeat).real(), torch_stream(5, "phase", "critic", 0, repeat)
        )
    optimizers[0].zero_grad()
    (-critic(generator(torch.randn(4, 100, generator=torch_stream(5, "phase", "generator", 0, 0)))).mean()).backward()
    optimizers[0].step()
    trainer.advance(images, 1)
    for name, expected in theirs.networks.state_dict().items():
        torch.testing.assert_close(ours.networks.state_dict()[name], expected, rtol=1e-4, atol=5e-6)
    counts = {name: trainer.state()[f"optimizer.{name}.0.step"] for name in ("discriminator", "generator")}
    assert counts == {"discriminator": 5, "generator": 1}
