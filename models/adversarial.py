"""What the GANs have in common, and what strategies rely on that train discriminators and generator at different places."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from basics.image_shape import ImageShape
from models.generative import Batch, GenerativeModel

# Why a generator's phase has no loss of each image.
SEES_NO_REAL_IMAGE = "it sees no real image"


class AdversarialModel(GenerativeModel):
    """A generator fed with normal noise and a discriminator; subclasses bring the losses.

    One phase steps the generator, all others the discriminator. A loss takes its generated images from `fakes`.

    Args:
        generator: noise (n, latent) and labels (n,), or None, to images (n, channels, height, width).
        discriminator: images and labels, or None, to scores (n,).
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        shape: ImageShape,
        latent: int,
        num_classes: int | None,
    ):
        super().__init__({"generator": generator, "discriminator": discriminator}, shape, num_classes)
        self.latent = latent

    def noise(self, n: int, rng: torch.Generator) -> Tensor:
        """Latent codes (n, latent)."""
        return torch.randn(n, self.latent, generator=rng).to(self.device)

    def draw(self, generator: nn.Module, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        return generator(self.noise(n, rng), labels)

    def fakes(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """The batch's generated images: those it came with, else new ones.

        The noise is drawn in both cases, so what a loss draws after it is the same wherever the images are made.
        """
        noise = self.noise(batch.size, rng)
        return self.networks["generator"](noise, batch.labels) if batch.fake is None else batch.fake
