"""StyleGAN2 with adaptive augmentation (Karras et al. 2020, both papers), in the setting of "auto" for 256 px.

Non-saturating loss; R1 every 16 steps of the discriminator and the path length every 4 of the generator, each times its interval;
style mixing; a moving average of the generator that forgets by images. What the public code keeps as running means and a federation
would average wrongly is local (augmentation, path length) or follows from the weights (the centre of truncation).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from basics.image_shape import ImageShape
from models.ada import AdaptiveAugmentation, Pipe
from models.adversarial import SEES_NO_REAL_IMAGE, AdversarialModel
from models.convolutional_gan import Grid
from models.generative import (
    Batch,
    GenerativeSettings,
    GenerativeTraining,
    Logs,
    Phase,
    PhaseOptimizer,
    StepDone,
)
from models.stylegan2_networks import Discriminator, Generator

R1_INTERVAL, PATH_INTERVAL = 16, 4
# Where no weight of R1 is given: this times an image's pixels over the batch.
_R1_RULE = 0.0002
_COMPARES = "its minibatch standard deviation lets every image of a batch change the scores of the others"


class StyleGAN2ADA(GenerativeSettings):
    """Hyper-parameters; field names are YAML keys."""

    adversarial = True

    channel_base: int = Field(default=16384, ge=4, description="channels times side of a map")
    channel_max: int = Field(default=512, ge=1, description="most channels of a map")
    latent: int = Field(default=512, ge=1)
    style_dim: int = Field(default=512, ge=1, description="values of a code w")
    mapping_depth: int = Field(default=2, ge=1, description="layers from latent to code")
    noise: Literal["random", "constant", "none"] = Field(
        default="random", description="added to every pixel of every map: new for each image, the same for all, or none"
    )
    style_mixing: float = Field(default=0.9, ge=0, le=1, description="probability that an image has two codes")
    r1_gamma: float | None = Field(default=None, ge=0, description="weight of R1; null: .0002 * pixels / batch_size")
    path_length: float = Field(default=2.0, ge=0, description="weight of the path length; 0 leaves that phase out")
    path_decay: float = Field(default=0.01, gt=0, le=1, description="share of a step in the mean path length")
    augment: Pipe = Field(
        default="bgc", description="what ADA changes: none, bg (blitting, geometry), bgc (and colour)"
    )
    ada_target: float = Field(default=0.6, ge=-1, le=1, description="mean sign of the scores of real images")
    ada_kimg: float = Field(
        default=500.0, gt=0, description="thousands of images for the probability to go from 0 to 1"
    )
    truncation: float = Field(
        default=1.0, ge=0, le=1, description="when sampling; less than 1: nearer to the mean code"
    )

    @classmethod
    def training_defaults(cls) -> GenerativeTraining:
        # The average's half-life is batch * 10 / 32 thousand images: 10,000 for 32.
        return GenerativeTraining(
            batch_size=32, learning_rate=0.0025, betas=(0.0, 0.99), ema_images=10_000, ema_ramp=0.05, flips="both"
        )

    def build(self, shape: ImageShape, num_classes: int | None) -> StyleGAN2ADAModel:
        return StyleGAN2ADAModel(self, shape, num_classes)


class StyleGAN2ADAModel(AdversarialModel):
    """See `AdversarialModel`."""

    path_mean: Tensor
    augment_probability: Tensor

    def __init__(self, settings: StyleGAN2ADA, shape: ImageShape, num_classes: int | None):
        grid = Grid.of(shape.size, "stylegan2_ada")
        base, most = settings.channel_base, settings.channel_max
        generator = Generator(
            grid, shape.channels, settings.latent, settings.style_dim, settings.mapping_depth, base, most,
            settings.noise, num_classes,
        )  # fmt: skip
        discriminator = Discriminator(grid, shape.channels, base, most, num_classes)
        super().__init__(generator, discriminator, shape, settings.latent, num_classes)
        self.settings, self._columns = settings, generator.noise_columns
        # What a centre's own training is at. A mean over centres would fit none of them.
        self.hold("path_mean", torch.zeros(()), "local")
        self.augmentation = AdaptiveAugmentation(self, settings.augment, settings.ada_target, settings.ada_kimg)

    def noise(self, n: int, rng: torch.Generator) -> Tensor:
        """All that a generator's images are drawn from, (n, columns): see `NoiseColumns`."""
        codes = torch.randn(n, 2 * self.latent, generator=rng)
        mixing = torch.rand(n, 2, generator=rng)
        mixing[:, 0] = (mixing[:, 0] < self.settings.style_mixing).float()
        return torch.cat([codes, mixing, self._pixels(n, rng)], dim=1).to(self.device)

    def draw(self, generator: torch.nn.Module, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        code = torch.randn(n, self.latent, generator=rng)
        noise = torch.cat([code, code, torch.zeros(n, 2), self._pixels(n, rng)], dim=1)  # nothing is mixed
        return generator(noise.to(self.device), labels, truncation=self.settings.truncation)

    def _pixels(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randn(n, self._columns.pixels, generator=rng)

    def phases(self) -> list[Phase]:
        on_d = PhaseOptimizer(lazy_interval=R1_INTERVAL) if self.settings.r1_gamma != 0 else PhaseOptimizer()
        on_g = PhaseOptimizer(lazy_interval=PATH_INTERVAL) if self.settings.path_length else PhaseOptimizer()
        phases = [Phase("discriminator", "discriminator", self.discriminator_loss, optimizer=on_d, losses=_COMPARES)]
        if self.settings.r1_gamma != 0:
            phases.append(
                Phase(
                    "r1", "discriminator", self.r1_loss, interval=R1_INTERVAL, optimizer=on_d, fresh_images=False,
                    losses=_COMPARES,
                )
            )  # fmt: skip
        phases.append(
            Phase(
                "generator", "generator", self.generator_loss, optimizer=on_g, fresh_images=False,
                losses=SEES_NO_REAL_IMAGE,
            )
        )  # fmt: skip
        if self.settings.path_length:
            phases.append(
                Phase(
                    "path_length", "generator", self.path_length_loss, interval=PATH_INTERVAL, optimizer=on_g,
                    fresh_images=False, losses=SEES_NO_REAL_IMAGE,
                )
            )  # fmt: skip
        return phases

    def after_step(self, done: StepDone) -> None:
        self.augmentation.adapt(done.step)

    def discriminator_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        real = batch.real()
        with torch.no_grad():
            fake = self.fakes(batch, rng).to(real.dtype)
        labels = None if batch.labels is None else batch.labels.repeat(2)
        both = torch.cat([self.augmentation(real, rng), self.augmentation(fake, rng)])
        # One pass for both; the groups of the minibatch standard deviation stay apart.
        on_real, on_fake = self.networks["discriminator"](both, labels, parts=2).float().chunk(2)
        self.augmentation.see(on_real)
        loss = softplus(-on_real).mean() + softplus(on_fake).mean()
        logs = {"discriminator_loss": loss.detach(), "real_signs": on_real.detach().sign().mean()}
        if self.settings.augment != "none":
            logs["augment_probability"] = self.augment_probability.clone()
        return loss, logs

    def r1_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """gamma / 2 times the squared gradient of the scores with respect to the real images, as they were before ADA."""
        real = batch.real().detach().requires_grad_()
        scores = self.networks["discriminator"](self.augmentation(real, rng), batch.labels).float()
        (gradient,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        r1 = gradient.float().square().sum((1, 2, 3)).mean()
        return self.r1_gamma(batch.size) / 2 * r1, {"r1": r1.detach()}

    def r1_gamma(self, batch_size: int) -> float:
        """The weight of R1, by rule where none is set."""
        gamma = self.settings.r1_gamma
        return _R1_RULE * self.shape.height * self.shape.width / batch_size if gamma is None else gamma

    def generator_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        fake = self.augmentation(self.fakes(batch, rng), rng)
        loss = softplus(-self.networks["discriminator"](fake, batch.labels).float()).mean()
        return loss, {"generator_loss": loss.detach()}

    def path_length_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """How far lengths of J^T y are from their running mean, y ~ N(0, 1) / sqrt(pixels); on half of the batch."""
        n = max(1, batch.size // 2)
        labels = None if batch.labels is None else batch.labels[:n]
        generator: Any = self.networks["generator"]
        noise = self.noise(n, rng)
        codes = generator.codes(noise, labels)
        images = generator.images_of(codes, noise).float()
        y = torch.randn(images.shape, generator=rng).to(images.device) / math.sqrt(images[0, 0].numel())
        (gradient,) = torch.autograd.grad((images * y).sum(), codes, create_graph=True)
        lengths = gradient.float().square().sum(2).mean(1).sqrt()
        self.path_mean.lerp_(lengths.detach().mean(), self.settings.path_decay)
        loss = self.settings.path_length * (lengths - self.path_mean).square().mean()
        return loss, {"path_length": lengths.detach().mean()}
