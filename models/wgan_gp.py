"""WGAN with gradient penalty (Gulrajani et al. 2017), in the setting of Szafranowska et al. (IWBI 2022).

The DCGAN's generator, its discriminator without batch norm as critic; five critic steps to one of the generator;
penalty 10 on (|gradient| - 1)^2 at a point drawn for each image between a real and a fake one.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from basics.image_shape import ImageShape
from models.adversarial import SEES_NO_REAL_IMAGE, AdversarialModel
from models.convolutional_gan import Discriminator, Generator, Grid, Width, channels_of
from models.generative import Batch, GenerativeSettings, GenerativeTraining, Logs, Phase


class WGANGP(GenerativeSettings):
    """Hyper-parameters; field names are YAML keys."""

    adversarial = True

    width: Width = Field(default="small", description="paper (64 channels), small (32), or a number of channels")
    latent: int = Field(default=100, ge=1)
    critic_steps: int = Field(default=5, ge=1, description="critic steps to one generator step")
    gradient_penalty: float = Field(default=10.0, ge=0, description="weight of the penalty (lambda)")

    @classmethod
    def training_defaults(cls) -> GenerativeTraining:
        return GenerativeTraining(batch_size=16, learning_rate=1e-4, betas=(0.5, 0.9), flips="both")

    def build(self, shape: ImageShape, num_classes: int | None) -> WGANGPModel:
        return WGANGPModel(self, shape, num_classes)


class WGANGPModel(AdversarialModel):
    """See `AdversarialModel`; the network "discriminator" is the critic."""

    def __init__(self, settings: WGANGP, shape: ImageShape, num_classes: int | None):
        grid, width = Grid.of(shape.size, "wgan_gp"), channels_of(settings.width)
        super().__init__(
            Generator(grid, shape.channels, width, settings.latent, num_classes),
            Discriminator(grid, shape.channels, width, num_classes, batch_norm=False),
            shape, settings.latent, num_classes,
        )  # fmt: skip
        self.settings = settings

    def phases(self) -> list[Phase]:
        return [
            Phase(
                "critic",
                "discriminator",
                self.critic_loss,
                repeats=self.settings.critic_steps,
                losses=self.critic_losses,
            ),
            Phase("generator", "generator", self.generator_loss, fresh_images=False, losses=SEES_NO_REAL_IMAGE),
        ]

    def critic_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        on_real, on_fake, penalties = self._critic_terms(batch, rng)
        distance, penalty = on_real.mean() - on_fake.mean(), penalties.mean()
        loss = self.settings.gradient_penalty * penalty - distance
        return loss, {
            "critic_loss": loss.detach(),
            "wasserstein": distance.detach(),
            "gradient_penalty": penalty.detach(),
        }

    def critic_losses(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Of each real image, with the fake one that it is compared with."""
        on_real, on_fake, penalties = self._critic_terms(batch, rng)
        losses = self.settings.gradient_penalty * penalties - (on_real - on_fake)
        return losses, {"critic_loss": losses.detach().mean()}

    def _critic_terms(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of real and of fake images, and penalties, each (size,)."""
        critic, real = self.networks["discriminator"], batch.real()
        with torch.no_grad():
            fake = self.fakes(batch, rng).to(real.dtype)
        # One pass for both: without batch norm each image is scored independently.
        labels = None if batch.labels is None else batch.labels.repeat(2)
        on_real, on_fake = critic(torch.cat([real, fake]), labels).float().chunk(2)
        return on_real, on_fake, gradient_penalties(critic, real, fake, batch.labels, rng)

    def generator_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        fake = self.fakes(batch, rng)
        loss = -self.networks["discriminator"](fake, batch.labels).float().mean()
        return loss, {"generator_loss": loss.detach()}


def gradient_penalties(
    critic: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None, rng: torch.Generator
) -> Tensor:
    """For each image (|d critic / d image| - 1)^2 at real + u (fake - real), u ~ U(0, 1) for each image."""
    u = torch.rand(len(real), 1, 1, 1, generator=rng).to(real.device)
    between = torch.lerp(real, fake, u).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between, labels).float().sum(), between, create_graph=True)
    return (gradient.float().flatten(1).norm(dim=1) - 1).square()
