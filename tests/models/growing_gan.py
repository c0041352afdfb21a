"""A small adversarial model with all that the loop offers: what progressive, lazily regularised, adaptive models need of it.

It grows from 8 to 32 pixels with a fade-in; the discriminator's penalty is lazy and shares its optimizer; the generator has
a second phase with an optimizer of its own; an augmentation is adapted every four steps; batch norm is in it.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, softplus

from models.adversarial import AdversarialModel
from models.generative import GenerativeSettings, GenerativeTraining, Phase, PhaseOptimizer

SIDES = (8, 16, 32)
LAZY = 4


class GrowingGAN(GenerativeSettings):
    adversarial: ClassVar[bool] = True

    latent: int = Field(default=6, ge=1)
    target: float = 0.6

    @classmethod
    def training_defaults(cls):
        return GenerativeTraining(batch_size=4, learning_rate=1e-3, betas=(0.5, 0.9))

    def build(self, shape, num_classes):
        return GrowingModel(self, shape, num_classes)


class Grown(nn.Module):
    """A network that knows how far it has grown: index of its size, and share of the fade-in that is done."""

    def __init__(self):
        super().__init__()
        self.register_buffer("grown", torch.tensor([len(SIDES) - 1.0, 1.0]))

    def level(self):
        return int(self.grown[0]), self.grown[1]


class Draw(Grown):
    def __init__(self, latent, channels):
        super().__init__()
        self.mapping = nn.Linear(latent, 5)
        self.first = nn.Linear(5, 4 * SIDES[0] ** 2)
        self.norm = nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in SIDES)
        self.to_image = nn.ModuleList(nn.Conv2d(4, channels, 1) for _ in SIDES)

    def forward(self, noise, labels=None):
        level, fade = self.level()
        x = self.norm(self.first(self.mapping(noise)).unflatten(1, (4, SIDES[0], SIDES[0])))
        x = leaky_relu(self.blocks[0](x), 0.2)
        image = self.to_image[0](x)
        for i in range(1, level + 1):
            x = leaky_relu(self.blocks[i](interpolate(x, scale_factor=2)), 0.2)
            new = self.to_image[i](x)
            image = torch.lerp(interpolate(image, scale_factor=2), new, fade) if i == level else new
        return torch.tanh(image)


class Judge(Grown):
    def __init__(self, channels):
        super().__init__()
        self.from_image = nn.ModuleList(nn.Conv2d(channels, 4, 1) for _ in SIDES)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in SIDES)
        self.score = nn.Linear(4 * SIDES[0] ** 2, 1)

    def forward(self, images, labels=None):
        level, fade = self.level()
        x = leaky_relu(self.from_image[level](images), 0.2)
        for i in range(level, 0, -1):
            x = avg_pool2d(leaky_relu(self.blocks[i](x), 0.2), 2)
            if i == level:
                x = torch.lerp(self.from_image[i - 1](avg_pool2d(images, 2)), x, fade)
        return self.score(leaky_relu(self.blocks[0](x), 0.2).flatten(1)).flatten()


class GrowingModel(AdversarialModel):
    def __init__(self, settings, shape, num_classes):
        super().__init__(
            Draw(settings.latent, shape.channels), Judge(shape.channels), shape, settings.latent, num_classes
        )
        self.hold("probability", torch.tensor(0.2), "averaged")
        self.hold("path_mean", torch.zeros(()), "averaged")
        self.hold("signs", torch.zeros(2), "local")
        self.hold("target", torch.tensor(settings.target), "constant")

    @property
    def trained_sizes(self):
        return tuple((side, side) for side in SIDES)

    def phases(self):
        main = PhaseOptimizer(lazy_interval=LAZY)
        own = PhaseOptimizer("path", factor=0.5, betas=(0.0, 0.9), rates={"mapping.": 0.01})
        return [
            Phase("discriminator", "discriminator", self.on_both, repeats=(1, 2), optimizer=main),
            Phase("r1", "discriminator", self.penalty, interval=LAZY, optimizer=main, fresh_images=False),
            Phase("generator", "generator", self.on_fakes, fresh_images=False),
            Phase("path", "generator", self.path, interval=2, optimizer=own, fresh_images=False),
        ]

    def tell(self, moment):
        super().tell(moment)
        level = len(SIDES) - 1 if moment.size is None else SIDES.index(moment.size[0])
        fade = 1.0 if not moment.stage else min(1.0, 2 * (moment.stage_step + 1) / moment.stage_steps)
        for network in self.networks.values():
            network.grown.copy_(torch.tensor([float(level), fade]))

    def augmented(self, images, rng):
        return images + self.probability * torch.randn(images.shape, generator=rng)

    def on_both(self, batch, rng):
        judge = self.networks["discriminator"]
        real = judge(self.augmented(batch.real(), rng))
        with torch.no_grad():
            fake = self.fakes(batch, rng)
        loss = softplus(-real).mean() + softplus(judge(self.augmented(fake, rng))).mean()
        return loss, {"discriminator_loss": loss.detach(), "signs": real.detach().sign().mean()}

    def penalty(self, batch, rng):
        images = batch.real().clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.networks["discriminator"](images).sum(), images, create_graph=True)
        loss = slope.square().flatten(1).sum(1).mean()
        return loss, {"r1": loss.detach()}

    def on_fakes(self, batch, rng):
        loss = softplus(-self.networks["discriminator"](self.augmented(self.fakes(batch, rng), rng))).mean()
        return loss, {"generator_loss": loss.detach()}

    def path(self, batch, rng):
        length = self.fakes(batch, rng).square().mean()
        self.path_mean.lerp_(length.detach().float(), 0.1)  # bf16 under autocast
        loss = (length - self.path_mean).square()
        return loss, {"path": loss.detach()}

    def after_step(self, done):
        for signs in done.logs.get("signs", ()):
            self.signs += torch.stack([signs, torch.ones(())])
        if done.step % 4 == 0:
            mean = self.signs[0] / self.signs[1].clamp(min=1)
            self.probability += 0.05 * torch.sign(mean - self.target)
            self.signs.zero_()

    def draw(self, generator, n, labels, rng):
        return interpolate(super().draw(generator, n, labels, rng), self.shape.size)
