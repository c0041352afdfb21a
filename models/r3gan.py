"""R3GAN (Huang, Gokaslan, Kuleshov, Tompkin: "The GAN is dead; long live the GAN! A Modern Baseline GAN", NeurIPS 2024).

A relativistic pairing loss, which compares each generated image with a real one, and zero-centred gradient penalties on real
(R1) and on generated images (R2) in every step. With them no other trick is needed: no normalisation, no minibatch
deviation, no style. Both networks are plain residual ones: inverted bottlenecks with grouped 3x3 convolutions, whose last
layer begins at 0 (Fixup: Zhang et al. 2019), and bilinear resampling between the sizes.

Departures: sides are resampled by 2 with the bilinear kernels of torch (doubling [1 3 3 1] / 4, halving 2x2 means) in the place of the
paper's [1 2 1]; small widths and one block for each size by default; the penalty's weight falls over the whole training, and follows
from the size of the images when left out. DiffAugment may come before the discriminator; penalties are on images
before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, softplus

from basics.image_shape import ImageShape
from models.adversarial import AdversarialModel
from models.convolutional_gan import Grid
from models.diff_augment import DiffAugment
from models.generative import Batch, GenerativeSettings, GenerativeTraining, Logs, Phase

WIDTHS = {"paper": 768, "small": 32}
_FEWEST_HALVINGS = 2
_EXPANSION = 2
_GROUP = 16
_SLOPE = 0.2
# Keeps the variance through a leaky ReLU of that slope.
_GAIN = math.sqrt(2 / (1 + _SLOPE**2))
_EMBEDDING = 64
# The paper's gammas for ImageNet at 32 px and FFHQ at 64 px, (0.5, 2) at first and a tenth of it at last, are this.
_GAMMA_OF_A_PIXEL = 1 / 2048
_GAMMA_AT_LAST = 0.1

_Weight = Annotated[float, Field(ge=0)]


class R3GAN(GenerativeSettings):
    """Hyper-parameters; field names are YAML keys."""

    adversarial = True

    width: Literal["paper", "small"] | Annotated[int, Field(ge=8)] = Field(
        default="small",
        description="channels of the smallest maps: paper (768), small (32), or a number; halved at each doubling from 64 px on",
    )
    blocks: int = Field(default=1, ge=1, description="residual blocks at each size; paper: 2")
    latent: int = Field(default=64, ge=1)
    gamma: _Weight | tuple[_Weight, _Weight] | None = Field(
        default=None,
        description="weight of R1 and R2: one, or at first and at last; when left out a 2048th of the pixels, falling to a tenth of it",
    )
    augment: Literal["none", "diffaugment"] = Field(
        default="none", description="diffaugment: what the discriminator sees is changed at random; for few images"
    )

    @classmethod
    def training_defaults(cls) -> GenerativeTraining:
        return GenerativeTraining(batch_size=16, learning_rate=2e-4, betas=(0.0, 0.99), flips="both", ema=0.999)

    def build(self, shape: ImageShape, num_classes: int | None) -> R3GANModel:
        return R3GANModel(self, shape, num_classes)


class R3GANModel(AdversarialModel):
    """See `AdversarialModel`."""

    def __init__(self, settings: R3GAN, shape: ImageShape, num_classes: int | None):
        grid = Grid.of(shape.size, "r3gan", _FEWEST_HALVINGS)
        widths = _widths(settings.width, grid)
        super().__init__(
            Generator(grid, shape.channels, widths, settings.blocks, settings.latent, num_classes),
            Discriminator(grid, shape.channels, widths, settings.blocks, num_classes),
            shape, settings.latent, num_classes,
        )  # fmt: skip
        self.settings = settings

    def phases(self) -> list[Phase]:
        return [
            Phase("discriminator", "discriminator", self.discriminator_loss, losses=self.discriminator_losses),
            # It compares with real images, too: those of the discriminator's step.
            Phase(
                "generator",
                "generator",
                self.generator_loss,
                fresh_images=False,
                losses=self.generator_losses,
            ),
        ]

    @property
    def gamma(self) -> float:
        """Weight of the penalties at this moment of the training: falls by half a cosine."""
        first, last = gammas(self.settings, self.shape)
        done = 0.0 if self.moment is None else min(1.0, self.moment.step / self.moment.steps)
        return last + (first - last) * (1 + math.cos(math.pi * done)) / 2

    def discriminator_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        losses, logs = self.discriminator_losses(batch, rng)
        return losses.mean(), logs

    def discriminator_losses(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Of each real image, with the generated one that it is compared with."""
        with torch.no_grad():
            fake = self.fakes(batch, rng)
        real = batch.real()
        # One pass for both: without normalisation each image is scored independently.
        images = torch.cat([real, fake.to(real.dtype)]).requires_grad_()
        on_real, on_fake = self._scores(images, batch, rng)
        (slope,) = torch.autograd.grad(on_real.sum() + on_fake.sum(), images, create_graph=True)
        r1, r2 = slope.float().square().flatten(1).sum(dim=1).chunk(2)
        paired = softplus(on_fake - on_real)
        losses = paired + self.gamma / 2 * (r1 + r2)
        return losses, {
            "discriminator_loss": losses.detach().mean(),
            "r1": r1.detach().mean(),
            "r2": r2.detach().mean(),
            "real_above_fake": (on_real - on_fake).detach().mean(),
        }

    def generator_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        losses, logs = self.generator_losses(batch, rng)
        return losses.mean(), logs

    def generator_losses(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Of each generated image, with the real one that it is compared with."""
        fake = self.fakes(batch, rng)
        real = batch.real()
        on_real, on_fake = self._scores(torch.cat([real, fake.to(real.dtype)]), batch, rng)
        losses = softplus(on_real - on_fake)
        return losses, {"generator_loss": losses.detach().mean()}

    def _scores(self, images: Tensor, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Scores of real images and of the generated ones after them, each (size,); a pair is augmented in the same way."""
        labels = None if batch.labels is None else batch.labels.repeat(2)
        if self.settings.augment == "diffaugment":
            augment = DiffAugment.drawn(batch.size, self.shape.size, rng)
            images = torch.cat([augment(part) for part in images.chunk(2)])
        on_real, on_fake = self.networks["discriminator"](images, labels).float().chunk(2)
        return on_real, on_fake


def gammas(settings: R3GAN, shape: ImageShape) -> tuple[float, float]:
    """Weight of the penalties at first and at last."""
    if settings.gamma is None:
        first = shape.height * shape.width * _GAMMA_OF_A_PIXEL
        return first, _GAMMA_AT_LAST * first
    return settings.gamma if isinstance(settings.gamma, tuple) else (settings.gamma, settings.gamma)


class Generator(nn.Module):
    """Noise (n, latent) and labels (n,) to images (n, channels, h, w) in about [-1, 1].

    Args:
        widths: channels of the maps of each size, from the grid to the full image.
    """

    def __init__(
        self, grid: Grid, channels: int, widths: Sequence[int], blocks: int, latent: int, num_classes: int | None
    ):
        super().__init__()
        self.embedding = None if num_classes is None else _embedding(num_classes, 1.0)
        self.basis = nn.Parameter(torch.empty(widths[0], grid.height, grid.width).normal_())
        self.begin = nn.Linear(latent + (0 if num_classes is None else _EMBEDDING), widths[0], bias=False)
        _initialise(self.begin, 1.0)
        depth = blocks * len(widths)
        layers: list[nn.Module] = []
        for before, width in zip([widths[0], *widths[:-1]], widths, strict=True):
            if layers:
                if before != width:  # fewer channels are doubled sooner
                    layers.append(_convolution(before, width, 1))
                layers.append(Resample(2.0))
            layers += [Block(width, depth) for _ in range(blocks)]
        layers.append(_convolution(widths[-1], channels, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            noise = torch.cat([noise, self.embedding(labels)], dim=1)
        return self.layers(self.basis * self.begin(noise)[:, :, None, None])


class Discriminator(nn.Module):
    """Images (n, channels, h, w) and labels (n,) to scores (n,).

    With labels the score is the product of what it sees and an embedding of the class (projection).

    Args:
        widths: channels of the maps of each size, from the grid to the full image.
    """

    def __init__(self, grid: Grid, channels: int, widths: Sequence[int], blocks: int, num_classes: int | None):
        super().__init__()
        depth = blocks * len(widths)
        down = widths[::-1]
        layers: list[nn.Module] = [_convolution(channels, down[0], 1)]
        for width, after in zip(down, [*down[1:], None], strict=True):
            layers += [Block(width, depth) for _ in range(blocks)]
            if after is not None:
                layers.append(Resample(0.5))
                if after != width:
                    layers.append(_convolution(width, after, 1))
        # One number of each channel, over all of the grid.
        basis = nn.Conv2d(widths[0], widths[0], (grid.height, grid.width), groups=widths[0], bias=False)
        _initialise(basis, 1.0)
        self.layers = nn.Sequential(*layers, basis, nn.Flatten())
        self.embedding = None if num_classes is None else _embedding(num_classes, 1 / math.sqrt(_EMBEDDING))
        self.score = nn.Linear(widths[0], 1 if num_classes is None else _EMBEDDING, bias=False)
        _initialise(self.score, 1.0)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        seen = self.score(self.layers(images))
        return seen.flatten() if self.embedding is None else (seen * self.embedding(labels)).sum(dim=1)


class Block(nn.Module):
    """x + an inverted bottleneck: 1x1 to twice the channels, 3x3 in groups of 16 channels, 1x1 back, which begins at 0.

    Args:
        depth: blocks of the network; the deeper, the smaller the initial weights.
    """

    def __init__(self, width: int, depth: int):
        super().__init__()
        wide = width * _EXPANSION
        gain = _GAIN * depth ** (-1 / 4)  # Fixup: depth^(-1 / (2 m - 2)) for m = 3 layers
        self.widen = _convolution(width, wide, 1, gain)
        self.mix = _convolution(wide, wide, 3, gain, groups=wide // _GROUP)
        self.narrow = _convolution(wide, width, 1, 0.0)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(wide)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.widen(x) + self.biases[0][:, None, None], _SLOPE)
        y = leaky_relu(self.mix(y) + self.biases[1][:, None, None], _SLOPE)
        return x + self.narrow(y)


class Resample(nn.Module):
    """Sides twice or half as long, bilinear."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)


def _widths(width: str | int, grid: Grid) -> list[int]:
    """Channels of the maps of each size, from the grid to the full image.

    Raises:
        ValueError: some do not divide into groups.
    """
    most = width if isinstance(width, int) else WIDTHS[width]
    found = [min(most, 8 * most >> level) for level in range(grid.halvings + 1)]
    multiple = _GROUP // _EXPANSION
    wanted = multiple * 2 ** max(0, grid.halvings - 3)
    if most % wanted:
        raise ValueError(
            f"width is {most}; r3gan divides its channels into groups, which needs a multiple of {wanted} for images of "
            f"{grid.image[0]}x{grid.image[1]} px"
        )
    return found


def _convolution(inputs: int, outputs: int, kernel: int, gain: float = 1.0, groups: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    _initialise(layer, gain)
    return layer


def _embedding(num_classes: int, gain: float) -> nn.Embedding:
    layer = nn.Embedding(num_classes, _EMBEDDING)
    layer.weight.data.normal_(0, gain / math.sqrt(num_classes))
    return layer


def _initialise(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """N(0, gain^2 / fan-in)."""
    layer.weight.data.normal_(0, gain / math.sqrt(layer.weight[0].numel()))
