"""Generator and discriminator of StyleGAN2 (Karras et al. 2020): mapping and skip generator, residual discriminator.

Channels of a map whose side is 4 * 2^k are `base` / side, at most `most`: 512 up to 32 px and 256 at 64 px for the paper's base of
16384. Rectangles end in a smallest map of another shape, 5x4 for 160x128, with the channels of the square.

A generator's noise is one tensor, so that a generator at another place makes the same images from it: see `NoiseColumns`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models import fir
from models.convolutional_gan import Grid
from models.style_equalised import GAIN, EqualConv2d, EqualLinear, MinibatchDeviation, leaky, unit_norm
from models.style_layers import StyledConv2d, ToImage

# Of the mapping's learning rate.
_MAPPING_RATE = 0.01
# Codes of which the centre of truncation is the mean.
_CENTRE_CODES = 2048


def channels_of(grid: Grid, base: int, most: int) -> list[int]:
    """Channels of the maps from the smallest to the image."""
    return [max(1, min(base // (4 << level), most)) for level in range(grid.halvings + 1)]


class NoiseColumns(NamedTuple):
    """What the columns of a generator's noise (n, columns) are: two latent codes, where they mix, and noise of pixels.

    The column "mixed" is 1 where layers from `cut` on take the second code; `cut` is uniform in [0, 1).
    """

    latent: int
    pixels: int

    @property
    def columns(self) -> int:
        return 2 * self.latent + 2 + self.pixels

    def split(self, noise: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """(first code, second code, [mixed, cut], pixels); a plain code (n, latent) has neither a second nor pixels."""
        if noise.shape[1] == self.latent:
            return noise, None, noise[:, :0], noise[:, :0]
        first, second, mixing, pixels = noise.split([self.latent, self.latent, 2, self.pixels], dim=1)
        return first, second, mixing, pixels


class Mapping(nn.Module):
    """Latent codes (n, latent) and labels (n,), or None, to codes w (n, codes)."""

    def __init__(self, latent: int, codes: int, depth: int, num_classes: int | None):
        super().__init__()
        self.label = None if num_classes is None else nn.Embedding(num_classes, codes)
        inputs = latent if num_classes is None else latent + codes
        self.layers = nn.ModuleList(
            EqualLinear(codes if number else inputs, codes, rate=_MAPPING_RATE, gain=GAIN) for number in range(depth)
        )

    def forward(self, latent: Tensor, labels: Tensor | None) -> Tensor:
        x = unit_norm(latent)
        if self.label is not None:
            x = torch.cat([x, unit_norm(self.label(labels))], dim=1)
        for layer in self.layers:
            x = leaky(layer(x))
        return x


class Generator(nn.Module):
    """Noise and labels (n,), or None, to images (n, channels, height, width) in about [-1, 1].

    Args:
        noise: of pixels: random, constant, or none. Without random noise in its input the constants are added, unless none.

    Attributes:
        noise_columns: what the columns of the noise are.
    """

    kernel: Tensor

    def __init__(
        self, grid: Grid, channels: int, latent: int, codes: int, depth: int, base: int, most: int, noise: str,
        num_classes: int | None,
    ):  # fmt: skip
        super().__init__()
        widths = channels_of(grid, base, most)
        self.sizes = [
            (grid.height << level, grid.width << level)
            for level in range(grid.halvings + 1)
            for _ in range(2 if level else 1)
        ]
        self.layer_count = len(self.sizes) + 1  # the last image layer has a code of its own
        random_pixels = sum(height * width for height, width in self.sizes) if noise == "random" else 0
        self.noise_columns = NoiseColumns(latent, random_pixels)
        self.mapping = Mapping(latent, codes, depth, num_classes)
        self.constant = nn.Parameter(nn.init.normal_(torch.empty(widths[0], grid.height, grid.width)))
        layers, to_image = [], []
        for level, width in enumerate(widths):
            if level:
                layers.append(StyledConv2d(widths[level - 1], width, codes, doubles=True, noise=noise != "none"))
            layers.append(StyledConv2d(width, width, codes, doubles=False, noise=noise != "none"))
            to_image.append(ToImage(width, channels, codes))
        self.layers, self.to_image = nn.ModuleList(layers), nn.ModuleList(to_image)
        if noise != "none":
            for number, (height, width) in enumerate(self.sizes):
                self.register_buffer(f"constant_noise_{number}", nn.init.normal_(torch.empty(1, 1, height, width)))
        self.register_buffer("kernel", fir.taps_of(), persistent=False)

    def forward(self, noise: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        return self.images_of(self.codes(noise, labels, truncation), noise)

    def codes(self, noise: Tensor, labels: Tensor | None, truncation: float = 1.0) -> Tensor:
        """Codes w of every layer: (n, layers, codes).

        Args:
            truncation: 1 leaves codes as they are; less draws them towards the mean of their class.
        """
        first, second, mixing, _ = self.noise_columns.split(noise)
        w = self.mapping(first, labels)[:, None].expand(-1, self.layer_count, -1)
        if second is not None:
            # A layer in 1 .. layers - 1 is the first with the other code.
            cut = 1 + (mixing[:, 1] * (self.layer_count - 1)).long()
            cut = torch.where(mixing[:, 0] > 0, cut, self.layer_count)
            kept = torch.arange(self.layer_count, device=noise.device) < cut[:, None]
            w = torch.where(kept[:, :, None], w, self.mapping(second, labels)[:, None])
        if truncation < 1:
            w = self.centres(labels, len(noise))[:, None].lerp(w, truncation)
        return w

    @torch.no_grad()
    def centres(self, labels: Tensor | None, n: int) -> Tensor:
        """The mean code of each image's class (n, codes), over a fixed draw of latent codes.

        It follows from the weights. A running mean, as in the paper's code, would not be that of averaged weights.
        """
        rng = torch.Generator().manual_seed(0)
        latent = torch.randn(_CENTRE_CODES, self.noise_columns.latent, generator=rng).to(self.constant.device)
        if labels is None:
            return self.mapping(latent, None).mean(0).expand(n, -1)
        found, place = labels.unique(return_inverse=True)
        return torch.stack([self.mapping(latent, label.expand(len(latent))).mean(0) for label in found])[place]

    def images_of(self, codes: Tensor, noise: Tensor) -> Tensor:
        """Images of codes of all layers."""
        pixels = self._pixels(self.noise_columns.split(noise)[3])
        x = self.constant.expand(len(codes), -1, -1, -1)
        image: Tensor | None = None
        for number, layer in enumerate(self.layers):
            x = layer(x, codes[:, number], pixels[number])
            if number % 2 == 0:  # the last layer of its size
                new = self.to_image[number // 2](x, codes[:, number + 1])
                image = new if image is None else fir.up(image, self.kernel) + new
        assert image is not None
        return image

    def _pixels(self, drawn: Tensor) -> list[Tensor | None]:
        """Noise of every layer (n or 1, 1, height, width)."""
        if drawn.shape[1]:
            parts = drawn.split([height * width for height, width in self.sizes], dim=1)
            return [part.view(-1, 1, *size) for part, size in zip(parts, self.sizes, strict=True)]
        return [getattr(self, f"constant_noise_{number}", None) for number in range(len(self.sizes))]


class Halving(nn.Module):
    """A residual block: (n, inputs, 2h, 2w) to (n, outputs, h, w)."""

    kernel: Tensor

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = EqualConv2d(inputs, inputs, 3, gain=GAIN)
        # Both branches times sqrt(1/2), so that their sum keeps the variance.
        self.second = EqualConv2d(inputs, outputs, 3, halves=True, gain=1.0)
        self.skip = EqualConv2d(inputs, outputs, 1, bias=False, gain=GAIN / 2)
        self.register_buffer("kernel", fir.taps_of(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(fir.down(x, self.kernel)) + leaky(self.second(leaky(self.first(x))))


class Discriminator(nn.Module):
    """Images and labels (n,), or None, to scores (n,): how real they look; with labels, for an image of that class."""

    def __init__(self, grid: Grid, channels: int, base: int, most: int, num_classes: int | None):
        super().__init__()
        widths = channels_of(grid, base, most)[::-1]
        self.from_image = EqualConv2d(channels, widths[0], 1, gain=GAIN)
        self.blocks = nn.ModuleList(Halving(*pair) for pair in zip(widths, widths[1:], strict=False))
        smallest = widths[-1]
        self.deviation = MinibatchDeviation()
        self.last = EqualConv2d(smallest + 1, smallest, 3, gain=GAIN)
        self.dense = EqualLinear(smallest * grid.height * grid.width, smallest, gain=GAIN)
        self.label = None if num_classes is None else nn.Embedding(num_classes, smallest)
        self.score = EqualLinear(smallest, 1 if num_classes is None else smallest)

    def forward(self, images: Tensor, labels: Tensor | None = None, parts: int = 1) -> Tensor:
        """Args: parts: of the batch, equal ones, that are not compared with each other (real and generated images)."""
        x = leaky(self.from_image(images))
        for block in self.blocks:
            x = block(x)
        x = torch.cat([self.deviation(part) for part in x.chunk(parts)])
        x = leaky(self.dense(leaky(self.last(x)).flatten(1)))
        x = self.score(x)
        if self.label is None:
            return x.flatten()
        code = unit_norm(self.label(labels))
        return (x * code).sum(1) / code.shape[1] ** 0.5
