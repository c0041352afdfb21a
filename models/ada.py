"""Adaptive augmentation of a discriminator's images (ADA, Karras et al. 2020): what it sees is changed at random, as often as needed.

Every transformation is applied with a probability p, real and generated images alike, and the generator learns through it.
While p is below about .8 its images do not show the changes. p rises while the discriminator's scores of real images are
positive more often than the target says, and falls otherwise.

    bg     pixel blitting (mirror, quarter turn, shift by whole pixels) and geometry (scale, stretch, rotation, shift)
    bgc    and colour (brightness, contrast, inversion of brightness, hue, saturation); of one channel the first three

All is made of plain operators and their transposes: second derivatives exist, for gradient penalties. What lies outside of an
image is its reflection. Rectangles are turned by 180 degrees only. Images of which no transformation was drawn stay as they are.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.generative import GenerativeModel
from models.linear_operator import linear

Pipe = Literal["none", "bg", "bgc"]

# Spreads of the paper (table in its appendix B).
_SHIFT = 0.125  # of the side: largest for whole pixels, standard deviation for fractions
_SCALE = 0.2  # standard deviation of the binary logarithm
_BRIGHTNESS = 0.2
_CONTRAST = 0.5  # of the binary logarithm, as for saturation
_SATURATION = 1.0
# Low-pass filter of the wavelet sym6, orthonormal to its even shifts: doubling and halving by it leaves an image as it was.
_SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
# By how much its centre lies beyond its middle, in pixels of the doubled image. Doubling and halving make up for each other, but not
# once the image was turned in between.
_OFF_CENTRE = sum(place * tap for place, tap in enumerate(_SYM6)) / sum(_SYM6) - (len(_SYM6) - 1) / 2
# Pixels of its reflection around an image, and how far the filter reaches in the doubled image.
_BORDER, _REACH = 3, 5
_BILINEAR, _REFLECT = 0, 2


class AdaptiveAugmentation:
    """The augmentation of a model's images and its probability, which the model holds.

    The model calls it on all that its discriminator sees, `see` with the scores of real images in the discriminator's main
    phase, and `adapt` in `after_step`. Probability and signs stay at a centre: they tell how far its own discriminator
    overfits to its own images.

    Args:
        target: mean sign of the scores of real images at which the probability stands still.
        kimg: thousands of real images in which the probability can go from 0 to 1.
        every: steps between adaptations.
    """

    def __init__(self, model: GenerativeModel, pipe: Pipe, target: float, kimg: float, every: int = 4):
        self._model, self.pipe, self._target, self._images, self._every = model, pipe, target, 1000 * kimg, every
        if pipe != "none":
            model.hold("augment_probability", torch.zeros(()), "local")
            model.hold("augment_signs", torch.zeros(2), "local")  # their sum and count

    @property
    def probability(self) -> Tensor:
        """What the model holds; 0-dimensional."""
        return self._held("augment_probability")

    def _held(self, name: str) -> Tensor:
        held = getattr(self._model, name)
        assert isinstance(held, Tensor)
        return held

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Images (n, channels, height, width) as the discriminator sees them."""
        if self.pipe == "none":
            return images
        return augment(images, self.probability, rng, colour=self.pipe == "bgc")

    @torch.no_grad()
    def see(self, scores: Tensor) -> None:
        """Note scores (n,) of real images."""
        if self.pipe != "none":
            found = [scores.float().sign().sum(), scores.new_tensor(float(len(scores)))]
            self._held("augment_signs").add_(torch.stack(found))

    @torch.no_grad()
    def adapt(self, step: int) -> None:
        """Move the probability, after every so many steps, by as much as the images seen since allow."""
        if self.pipe == "none" or step % self._every:
            return
        signs, probability = self._held("augment_signs"), self.probability
        total, count = signs
        direction = torch.sign(total / count.clamp(min=1) - self._target)
        probability += direction * count / self._images
        probability.clamp_(0, 1)
        signs.zero_()


def augment(images: Tensor, probability: Tensor | float, rng: torch.Generator, *, colour: bool) -> Tensor:
    """Images (n, channels, height, width), each transformed at random.

    Args:
        probability: of each transformation, for each image.
        rng: a CPU generator; what is drawn from it does not depend on the probability unless that is 0.
    """
    if not float(probability) > 0 or not len(images):
        return images
    draw = _Draws(images, float(probability), rng)
    with torch.autocast(images.device.type, enabled=False):
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        images = _moved(_blitted(images, draw), draw)
        return _coloured(images, draw) if colour else images


class _Draws:
    """Values for each image, and for each whether it is used: else the neutral one is."""

    def __init__(self, images: Tensor, probability: float, rng: torch.Generator):
        self.n, self.p, self.rng = len(images), probability, rng

    def uniform(self, low: float, high: float) -> Tensor:
        return torch.rand(self.n, generator=self.rng) * (high - low) + low

    def normal(self, deviation: float) -> Tensor:
        return torch.randn(self.n, generator=self.rng) * deviation

    def kept(self, value: Tensor, neutral: float, probability: float | None = None) -> Tensor:
        """`value` with the probability, which is that of the whole if left out."""
        used = torch.rand(self.n, generator=self.rng) < (self.p if probability is None else probability)
        return torch.where(used, value, torch.full_like(value, neutral))


# -- blitting ------------------------------------------------------------------------------------------------------


def _blitted(images: Tensor, draw: _Draws) -> Tensor:
    """Mirrored, turned and shifted by whole pixels: every pixel is one of the image's."""
    height, width = images.shape[2:]
    mirrored = draw.kept(draw.uniform(0, 2).floor(), 0).bool()
    turns = draw.kept(draw.uniform(0, 4).floor(), 0).long()
    shifts = [draw.kept((draw.uniform(-1, 1) * _SHIFT * side).round(), 0).long() for side in (height, width)]
    if height != width:
        turns = turns // 2 * 2
    # From where in the image each pixel comes; undone in the order shift, turn, mirror.
    rows = _reflected(torch.arange(height) - shifts[0][:, None], height)[:, :, None].expand(-1, -1, width)
    columns = _reflected(torch.arange(width) - shifts[1][:, None], width)[:, None, :].expand(-1, height, -1)
    for bit, turned in ((1, lambda r, c: (c, height - 1 - r)), (2, lambda r, c: (height - 1 - r, width - 1 - c))):
        now = (turns & bit).bool()[:, None, None]
        new_rows, new_columns = turned(rows, columns)
        rows, columns = torch.where(now, new_rows, rows), torch.where(now, new_columns, columns)
    columns = torch.where(mirrored[:, None, None], width - 1 - columns, columns)
    places = (rows * width + columns).flatten(1)[:, None].to(images.device)
    return images.flatten(2).gather(2, places.expand(-1, images.shape[1], -1)).view(images.shape)


def _reflected(places: Tensor, side: int) -> Tensor:
    """Places within 0 .. side - 1, mirrored at the centres of the outermost pixels."""
    if side == 1:
        return torch.zeros_like(places)
    places = places.remainder(2 * (side - 1))
    return torch.where(places < side, places, 2 * (side - 1) - places)


# -- geometry ------------------------------------------------------------------------------------------------------


def _moved(images: Tensor, draw: _Draws) -> Tensor:
    """Scaled, stretched, rotated and shifted, of images of which one of these was drawn."""
    scale = draw.kept(torch.exp2(draw.normal(_SCALE)), 1)
    # One rotation before and one after stretching, either with a probability by which one of them is used with p.
    rotation = 1 - math.sqrt(1 - draw.p)
    before = draw.kept(draw.uniform(-math.pi, math.pi), 0, rotation)
    stretch = draw.kept(torch.exp2(draw.normal(_SCALE)), 1)
    after = draw.kept(draw.uniform(-math.pi, math.pi), 0, rotation)
    shifts = torch.stack([draw.kept(draw.normal(_SHIFT), 0) for _ in range(2)], dim=1)
    matrix = _turn(after) @ torch.diag_embed(torch.stack([scale * stretch, scale / stretch], 1)) @ _turn(before)
    still = (matrix == torch.eye(2)).all(2).all(1) & (shifts == 0).all(1)
    chosen = (~still).nonzero()[:, 0]
    if not len(chosen):
        return images
    there = chosen.to(images.device)
    return images.index_copy(0, there, resampled(images[there], matrix[chosen], shifts[chosen]))


def _turn(angle: Tensor) -> Tensor:
    """Rotations (n, 2, 2)."""
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2)


def resampled(images: Tensor, matrix: Tensor, shifts: Tensor) -> Tensor:
    """Images moved without aliasing: doubled, read between pixels, and halved.

    Args:
        matrix: (n, 2, 2) of (x, y) about an image's centre, in pixels; its inverse says what is read where.
        shifts: (n, 2) along x and y in shares of width and height.
    """
    n, channels, height, width = images.shape
    kernel = _wavelet(images.dtype).to(images.device).expand(channels, 1, -1, -1)
    border = 2 * _BORDER + _REACH
    edged = F.pad(images, (_BORDER,) * 4, mode="reflect")
    doubled = F.conv_transpose2d(edged, kernel * 2, stride=2, padding=border, groups=channels)
    x = torch.arange(-_REACH, 2 * width + _REACH) + 0.5 - width - _OFF_CENTRE
    y = torch.arange(-_REACH, 2 * height + _REACH) + 0.5 - height - _OFF_CENTRE
    inverse = torch.linalg.inv(matrix)
    x_from = x[None, :] - 2 * width * shifts[:, :1]
    y_from = y[None, :] - 2 * height * shifts[:, 1:]
    at_x = inverse[:, 0, 0, None, None] * x_from[:, None, :] + inverse[:, 0, 1, None, None] * y_from[:, :, None]
    at_y = inverse[:, 1, 0, None, None] * x_from[:, None, :] + inverse[:, 1, 1, None, None] * y_from[:, :, None]
    grid = torch.stack([(at_x + _OFF_CENTRE) / width, (at_y + _OFF_CENTRE) / height], dim=3).to(images)
    read = read_at(doubled, grid)
    return F.conv2d(read, kernel / 2, stride=2, groups=channels)


def read_at(images: Tensor, grid: Tensor) -> Tensor:
    """`grid_sample`, bilinear and reflected, which torch differentiates once only. It is linear in the images."""
    shape = images.shape

    def read(x: Tensor) -> Tensor:
        return F.grid_sample(x, grid, "bilinear", "reflection", align_corners=False)

    def write(y: Tensor) -> Tensor:
        like = y.new_empty(1).expand(shape)  # its shape is all that is looked at
        return torch.ops.aten.grid_sampler_2d_backward(y, like, grid, _BILINEAR, _REFLECT, False, [True, False])[0]

    return linear(images, read, write)


@cache
def _wavelet(dtype: torch.dtype) -> Tensor:
    taps = torch.tensor(_SYM6, dtype=torch.float64)
    return torch.outer(taps, taps).to(dtype)


# -- colour --------------------------------------------------------------------------------------------------------


def _coloured(images: Tensor, draw: _Draws) -> Tensor:
    """Every pixel's channels by one affine map for each image, of mid-grey 0."""
    channels = images.shape[1]
    brightness = draw.kept(draw.normal(_BRIGHTNESS), 0)
    contrast = draw.kept(torch.exp2(draw.normal(_CONTRAST)), 1)
    inverted = draw.kept(draw.uniform(0, 2).floor(), 0)
    if channels == 1:
        factor = (contrast * (1 - 2 * inverted)).to(images)[:, None, None, None]
        # Brightness comes first in the paper, so the others act on it, too.
        return images * factor + brightness.to(images)[:, None, None, None] * factor
    hue = draw.kept(draw.uniform(-math.pi, math.pi), 0)
    saturation = draw.kept(torch.exp2(draw.normal(_SATURATION)), 1)
    grey = torch.full((3, 3), 1 / 3)  # projects on the axis of grey
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    cosine, sine = hue.cos()[:, None, None], hue.sin()[:, None, None]
    rotation = grey + cosine * (torch.eye(3) - grey) + sine * cross
    flip = torch.eye(3) - 2 * grey * inverted[:, None, None]
    saturated = grey + (torch.eye(3) - grey) * saturation[:, None, None]
    matrix = saturated @ rotation @ flip * contrast[:, None, None]
    offset = (matrix.sum(2) * brightness[:, None])[:, :, None]
    coloured = torch.baddbmm(offset.to(images), matrix.to(images), images.flatten(2))
    return coloured.view(images.shape)
