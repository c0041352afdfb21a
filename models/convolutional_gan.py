"""Generator and discriminator of the DCGAN family in the sizes of Szafranowska et al. (IWBI 2022).

Radford et al., "Unsupervised Representation Learning with Deep Convolutional GANs" (2016), with the discriminator's
kernel of 6 from the paper's code. `width` is the number of channels next to the image; it doubles at each of the first
four halvings of the sides, down to 4x4 from 128 px. At 128 px and width 64 the generator has 12.8 M parameters and the
discriminator 25.1 M. Larger images are halved more often, at the width that was reached, and a rectangle ends in one: 160x128
in 5x4.

Labels enter as in MCGAN: an embedding of 50 values passes through one layer and becomes 100 values appended to the noise in
the generator, and one more image channel in the discriminator.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from basics.image_shape import size_text

Width = Literal["paper", "small"] | int
WIDTHS = {"paper": 64, "small": 32}
LABEL_VALUES = 100
_SMALLEST_GRID, _LARGEST_GRID = 4, 8
_FEWEST_HALVINGS, _MOST_DOUBLINGS = 3, 4
_EMBEDDING = 50
_SLOPE = 0.1


def channels_of(width: Width) -> int:
    return width if isinstance(width, int) else WIDTHS[width]


class Grid(NamedTuple):
    """Sides of the smallest map of features, which the image's are `halvings` times halved."""

    height: int
    width: int
    halvings: int

    @classmethod
    def of(cls, size: tuple[int, int], model: str, fewest: int = _FEWEST_HALVINGS) -> Grid:
        """Of images of (height, width).

        Args:
            fewest: halvings that the model needs.

        Raises:
            ValueError: the sides cannot be halved together down to 4 to 8.
        """
        halvings = 0
        while all(side % 2 ** (halvings + 1) == 0 and side >> halvings + 1 >= _SMALLEST_GRID for side in size):
            halvings += 1
        height, width = (side >> halvings for side in size)
        if halvings < fewest or max(height, width) > _LARGEST_GRID:
            raise ValueError(
                f"image_size is {size_text(size)}; {model} makes sides of {_SMALLEST_GRID} to {_LARGEST_GRID} times one power of two, "
                f"from {2**fewest} on, such as 32, 48, 64, 128, [160, 128] or [1280, 1024]"
            )
        return cls(height, width, halvings)

    @property
    def image(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.height << self.halvings, self.width << self.halvings

    def channels(self, width: int) -> list[int]:
        """Of the maps between image and grid, from the image on; `width` is the first."""
        return [width << min(number, _MOST_DOUBLINGS) for number in range(self.halvings)]


class Generator(nn.Module):
    """Noise (n, latent) and labels (n,) to images (n, channels, height, width) in [-1, 1]."""

    def __init__(self, grid: Grid, channels: int, width: int, latent: int, num_classes: int | None):
        super().__init__()
        self.label_code = None if num_classes is None else _label_code(num_classes, LABEL_VALUES)
        inputs = latent + (0 if num_classes is None else LABEL_VALUES)
        widths = grid.channels(width)[::-1]
        layers = _up(inputs, widths[0], (grid.height, grid.width), stride=1, padding=0)
        for wide, narrow in pairwise(widths):
            layers += _up(wide, narrow, (4, 4), stride=2, padding=1)
        layers += [nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.label_code is not None:
            noise = torch.cat([noise, self.label_code(labels)], dim=1)
        return self.layers(noise[:, :, None, None])


class Discriminator(nn.Module):
    """Images (n, channels, height, width) and labels (n,) to logits (n,).

    Args:
        batch_norm: False for a critic with gradient penalty, which is computed for each image independently.
    """

    def __init__(self, grid: Grid, channels: int, width: int, num_classes: int | None, batch_norm: bool):
        super().__init__()
        height, breadth = grid.image
        self.label_image = None if num_classes is None else _label_code(num_classes, height * breadth)
        layers: list[nn.Module] = []
        inputs = channels + (0 if num_classes is None else 1)
        for number, outputs in enumerate(grid.channels(width)):
            layers.append(nn.Conv2d(inputs, outputs, 6, 2, 2, bias=False))
            if batch_norm and number:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(_SLOPE, inplace=True))
            inputs = outputs
        # All of the grid and its border of zeros, 6x6 for 4x4: one logit.
        layers.append(nn.Conv2d(inputs, 1, (grid.height + 2, grid.width + 2), 1, 1, bias=False))
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.label_image is not None:
            codes = self.label_image(labels).view(-1, 1, *images.shape[2:])
            images = torch.cat([images, codes], dim=1)
        return self.layers(images).flatten()


def _up(inputs: int, outputs: int, kernel: tuple[int, int], stride: int, padding: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def _label_code(num_classes: int, values: int) -> nn.Module:
    return nn.Sequential(nn.Embedding(num_classes, _EMBEDDING), nn.Linear(_EMBEDDING, values), nn.LeakyReLU(_SLOPE))


def _initialise(module: nn.Module) -> None:
    """N(0, .02) for convolutions and N(1, .02) for batch norm, as in the DCGAN paper and its reference code."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
