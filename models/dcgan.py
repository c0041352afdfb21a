"""DCGAN with one-sided label smoothing (Radford et al. 2016; sizes and smoothing of Szafranowska et al., IWBI 2022).

Targets of real images are drawn from U(.8, 1.1). A target above 1 has no meaning for a probability, so the loss is
binary cross-entropy on logits, which is defined for any target. The generator's step draws new noise, as in Goodfellow's
algorithm 1.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from basics.image_shape import ImageShape
from models.adversarial import SEES_NO_REAL_IMAGE, AdversarialModel
from models.convolutional_gan import Discriminator, Generator, Grid, Width, channels_of
from models.generative import Batch, GenerativeSettings, GenerativeTraining, Logs, Phase


class DCGAN(GenerativeSettings):
    """Hyper-parameters; field names are YAML keys."""

    adversarial = True

    width: Width = Field(default="small", description="paper (64 channels), small (32), or a number of channels")
    latent: int = Field(default=100, ge=1)
    smoothing: tuple[float, float] = Field(default=(0.8, 1.1), description="range of the target of real images")

    @classmethod
    def training_defaults(cls) -> GenerativeTraining:
        return GenerativeTraining(batch_size=16, learning_rate=1e-4, betas=(0.5, 0.999), flips="both")

    def build(self, shape: ImageShape, num_classes: int | None) -> DCGANModel:
        return DCGANModel(self, shape, num_classes)


class DCGANModel(AdversarialModel):
    """See `AdversarialModel`."""

    def __init__(self, settings: DCGAN, shape: ImageShape, num_classes: int | None):
        grid, width = Grid.of(shape.size, "dcgan"), channels_of(settings.width)
        super().__init__(
            Generator(grid, shape.channels, width, settings.latent, num_classes),
            Discriminator(grid, shape.channels, width, num_classes, batch_norm=True),
            shape, settings.latent, num_classes,
        )  # fmt: skip
        self.smoothing = settings.smoothing

    def phases(self) -> list[Phase]:
        return [
            Phase(
                "discriminator",
                "discriminator",
                self.discriminator_loss,
                losses="its batch norm lets every image of a batch change the scores of the others",
            ),  # fmt: skip
            Phase("generator", "generator", self.generator_loss, fresh_images=False, losses=SEES_NO_REAL_IMAGE),
        ]

    def discriminator_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        discriminator = self.networks["discriminator"]
        with torch.no_grad():
            fake = self.fakes(batch, rng)
        low, high = self.smoothing
        target = (torch.rand(batch.size, generator=rng) * (high - low) + low).to(self.device)
        # Two passes, so that batch norm takes its statistics from real and from fake images separately.
        on_real = discriminator(batch.real(), batch.labels).float()
        on_fake = discriminator(fake, batch.labels).float()
        loss = binary_cross_entropy_with_logits(on_real, target) + binary_cross_entropy_with_logits(
            on_fake, torch.zeros_like(on_fake)
        )
        return loss, {"discriminator_loss": loss.detach()}

    def generator_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        fake = self.fakes(batch, rng)
        on_fake = self.networks["discriminator"](fake, batch.labels).float()
        loss = binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))
        return loss, {"generator_loss": loss.detach()}
