"""A generative model: each pixel is an independent Gaussian, whose mean and spread are learned by maximum likelihood."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from basics.image_shape import ImageShape
from models.generative import Batch, GenerativeModel, GenerativeSettings, GenerativeTraining, Logs, Phase


class PixelGaussian(GenerativeSettings):
    """Hyper-parameters; field names are YAML keys."""

    initial_spread: float = Field(default=0.3, gt=0, description="standard deviation of every pixel before training")

    @classmethod
    def training_defaults(cls) -> GenerativeTraining:
        return GenerativeTraining(steps=200, batch_size=16, learning_rate=1e-2, flips="none")

    def build(self, shape: ImageShape, num_classes: int | None) -> PixelGaussianModel:
        return PixelGaussianModel(self, shape, num_classes)


class Pixels(nn.Module):
    """Mean and log standard deviation of each pixel, one set for each class: (classes, channels, height, width)."""

    def __init__(self, classes: int, shape: ImageShape, spread: float):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(classes, *shape))
        self.log_spread = nn.Parameter(torch.full((classes, *shape), spread).log())

    def forward(self, n: int, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """(mean, log standard deviation) of n images."""
        rows = torch.zeros(n, dtype=torch.int64, device=self.mean.device) if labels is None else labels
        return self.mean[rows], self.log_spread[rows]


class PixelGaussianModel(GenerativeModel):
    """See the module."""

    def __init__(self, settings: PixelGaussian, shape: ImageShape, num_classes: int | None):
        pixels = Pixels(num_classes or 1, shape, settings.initial_spread)
        super().__init__({"generator": pixels}, shape, num_classes)

    def phases(self) -> list[Phase]:
        return [Phase("likelihood", "generator", self.loss)]

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Negative log likelihood for each pixel, without its constant."""
        mean, log_spread = self.networks["generator"](batch.size, batch.labels)
        loss = (log_spread + 0.5 * ((batch.real() - mean) / log_spread.exp()).square()).mean()
        return loss, {"negative_log_likelihood": loss.detach()}

    def draw(self, generator: nn.Module, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        mean, log_spread = generator(n, labels)
        noise = torch.randn(mean.shape, generator=rng).to(mean.device)
        return mean + log_spread.exp() * noise
