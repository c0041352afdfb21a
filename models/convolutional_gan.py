"""Generator and discriminator of the DCGAN family in the sizes of Szafranowska et al. (IWBI 2022).

Radford et al., "Unsupervised Representation Learning with Deep Convolutional GANs" (2016), with the discriminator's
kernel of 6 from the paper's code. `width` is the number of channels next to the image; it doubles at every halving of
the side down to 4x4. At 128 px and width 64 the generator has 12.8 M parameters and the discriminator 25.1 M.

Labels enter as in MCGAN: an embedding of 50 values passes through one layer and becomes 100 values appended to the noise in
the generator, and one more image channel in the discriminator.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Width = Literal["paper", "small"] | int
WIDTHS = {"paper": 64, "small": 32}
IMAGE_SIZES = (32, 64, 128)
LABEL_VALUES = 100
_EMBEDDING = 50
_SLOPE = 0.1


def channels_of(width: Width) -> int:
    return width if isinstance(width, int) else WIDTHS[width]


def check_image_size(image_size: int, model: str) -> None:
    if image_size not in IMAGE_SIZES:
        raise ValueError(
            f"image_size is {image_size}; {model} makes images of {', '.join(map(str, IMAGE_SIZES))} pixels"
        )


class Generator(nn.Module):
    """Noise (n, latent) and labels (n,) to images (n, channels, image_size, image_size) in [-1, 1]."""

    def __init__(self, image_size: int, channels: int, width: int, latent: int, num_classes: int | None):
        super().__init__()
        self.label_code = None if num_classes is None else _label_code(num_classes, LABEL_VALUES)
        inputs = latent + (0 if num_classes is None else LABEL_VALUES)
        outputs = width * image_size // 8
        layers = _up(inputs, outputs, stride=1, padding=0)
        while outputs > width:
            layers += _up(outputs, outputs // 2, stride=2, padding=1)
            outputs //= 2
        layers += [nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.label_code is not None:
            noise = torch.cat([noise, self.label_code(labels)], dim=1)
        return self.layers(noise[:, :, None, None])


class Discriminator(nn.Module):
    """Images (n, channels, image_size, image_size) and labels (n,) to logits (n,).

    Args:
        batch_norm: False for a critic with gradient penalty, which is computed for each image independently.
    """

    def __init__(self, image_size: int, channels: int, width: int, num_classes: int | None, batch_norm: bool):
        super().__init__()
        self.label_image = None if num_classes is None else _label_code(num_classes, image_size * image_size)
        layers: list[nn.Module] = []
        inputs, outputs, side = channels + (0 if num_classes is None else 1), width, image_size
        while side > 4:
            layers.append(nn.Conv2d(inputs, outputs, 6, 2, 2, bias=False))
            if batch_norm and side < image_size:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(_SLOPE, inplace=True))
            inputs, outputs, side = outputs, outputs * 2, side // 2
        layers.append(nn.Conv2d(inputs, 1, 6, 1, 1, bias=False))
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.label_image is not None:
            side = images.shape[-1]
            images = torch.cat([images, self.label_image(labels).view(-1, 1, side, side)], dim=1)
        return self.layers(images).flatten()


def _up(inputs: int, outputs: int, stride: int, padding: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
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
