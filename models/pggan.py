"""Progressive growing of GANs (Karras et al. 2018), in the setting of Korkinof et al., "High-Resolution Mammogram Synthesis
using Progressive Generative Adversarial Networks" (2018).

Both networks begin at 4x4 (mammograms: 5x4) and get one more block for each doubling of the sides. A new block fades in
over the first part of its stage: its image is mixed with the doubled one of the block before, and real images lose the
same share of their detail. The critic is trained by WGAN-GP at the present size, with a drift term that keeps its scores near 0
and more steps the larger the images are. With labels it names the class, too (AC-GAN), of real and of generated images.

The equalised layers are in `equalised`. Where the paper takes the whole batch's images of one kind in a pass of its own, real and
generated ones share a pass here, and no group of the minibatch standard deviation; the scores are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate, leaky_relu, one_hot

from basics.image_shape import ImageShape
from models.adversarial import SEES_NO_REAL_IMAGE, AdversarialModel
from models.convolutional_gan import Grid
from models.equalised import RELU_GAIN, EqualisedConv2d, EqualisedLinear, pixel_norm, with_minibatch_deviation
from models.generative import Batch, GenerativeSettings, GenerativeTraining, Logs, Moment, Phase
from models.growing import Grown, equal_images, level_and_fade
from models.wgan_gp import gradient_penalties

WIDTHS = {"paper": 512, "small": 32}
_FEWEST_HALVINGS = 2
_SLOPE = 0.2
_GROUP = 4
_GROUPED = "its minibatch standard deviation lets every image of a group change the scores of the others"


class PGGAN(GenerativeSettings):
    """Hyper-parameters; field names are YAML keys."""

    adversarial = True

    width: Literal["paper", "small"] | int = Field(
        default="small",
        description="channels of the smallest maps: paper (512), small (32), or a number; halved at each doubling from 64 px on",
    )
    latent: int = Field(default=128, ge=1, description="paper: 512")
    critic_steps: tuple[int, ...] = Field(
        default=(1, 2, 3, 4, 5),
        min_length=1,
        description="to one generator step, in each stage; the last holds for later ones",
    )
    gradient_penalty: float = Field(default=10.0, ge=0, description="weight of the penalty (lambda)")
    drift: float = Field(default=0.001, ge=0, description="weight of the squared scores of real images")
    label_weight: float = Field(default=1.0, ge=0, description="weight of the classifier's loss, with labels")
    grow: bool = Field(default=True, description="false: the full size from the start, without a growing schedule")
    fade: float = Field(default=0.5, ge=0, le=1, description="share of a stage in which its new layers fade in")

    @field_validator("width")
    @classmethod
    def _some_channels(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"is {value}; give paper, small, or a number of channels from 1 on")
        return value

    @field_validator("critic_steps")
    @classmethod
    def _some_steps(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1:
            raise ValueError(f"are {list(value)}; each stage needs one or more")
        return value

    @classmethod
    def training_defaults(cls) -> GenerativeTraining:
        return GenerativeTraining(batch_size=16, learning_rate=0.0015, betas=(0.0, 0.99), flips="both", ema=0.999)

    def resolved_training(self, size: tuple[int, int], training: GenerativeTraining) -> GenerativeTraining:
        """With a growing schedule, unless it has one: see `equal_images`."""
        if not self.grow or training.growing:
            return training
        sizes = _sizes(Grid.of(size, "pggan", _FEWEST_HALVINGS))
        return training.model_copy(update={"growing": equal_images(sizes, training.steps, training.batch_size)})

    def build(self, shape: ImageShape, num_classes: int | None) -> PGGANModel:
        return PGGANModel(self, shape, num_classes)


class PGGANModel(AdversarialModel):
    """See `AdversarialModel`; the network "discriminator" is the critic, with a head for classes where there are labels."""

    def __init__(self, settings: PGGAN, shape: ImageShape, num_classes: int | None):
        self._grid = Grid.of(shape.size, "pggan", _FEWEST_HALVINGS)
        most = settings.width if isinstance(settings.width, int) else WIDTHS[settings.width]
        widths = [max(1, min(most, 8 * most >> level)) for level in range(self._grid.halvings + 1)]
        first = 0 if settings.grow else self._grid.halvings
        super().__init__(
            Generator(self._grid, shape.channels, widths, settings.latent, num_classes, first),
            Critic(self._grid, shape.channels, widths, num_classes, first),
            shape, settings.latent, num_classes,
        )  # fmt: skip
        self.settings = settings

    @property
    def trained_sizes(self) -> tuple[tuple[int, int], ...]:
        return _sizes(self._grid) if self.settings.grow else (self.shape.size,)

    def tell(self, moment: Moment) -> None:
        super().tell(moment)
        level, fade = level_and_fade(moment, self.trained_sizes, self.settings.fade)
        for network in self.networks.values():
            assert isinstance(network, Grown)
            network.grow_to(level if self.settings.grow else self._grid.halvings, fade)

    @property
    def critic(self) -> Critic:
        """The network "discriminator"."""
        network = self.networks["discriminator"]
        assert isinstance(network, Critic)
        return network

    def phases(self) -> list[Phase]:
        return [
            Phase(
                "critic",
                "discriminator",
                self.critic_loss,
                repeats=self.settings.critic_steps,
                losses=_GROUPED,
            ),
            Phase("generator", "generator", self.generator_loss, fresh_images=False, losses=SEES_NO_REAL_IMAGE),
        ]

    def critic_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        critic, real, s = self.critic, self.faded(batch.real()), self.settings
        with torch.no_grad():
            fake = self.fakes(batch, rng).to(real.dtype)
        scores, classes = critic.judge(torch.cat([real, fake]), sets=2)
        on_real, on_fake = scores.float().chunk(2)
        distance, drift = on_real.mean() - on_fake.mean(), on_real.square().mean()
        penalty = gradient_penalties(critic, real, fake, None, rng).mean()
        loss = s.gradient_penalty * penalty + s.drift * drift - distance
        logs = {"wasserstein": distance.detach(), "gradient_penalty": penalty.detach()}
        if classes is not None and batch.labels is not None:
            wrong = cross_entropy(classes.float(), batch.labels.repeat(2))
            loss, logs["label_loss"] = loss + s.label_weight * wrong, wrong.detach()
        return loss, {"critic_loss": loss.detach()} | logs

    def generator_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        scores, classes = self.critic.judge(self.fakes(batch, rng))
        loss, logs = -scores.float().mean(), {}
        if classes is not None and batch.labels is not None:
            wrong = cross_entropy(classes.float(), batch.labels)
            loss, logs = loss + self.settings.label_weight * wrong, {"generated_label_loss": wrong.detach()}
        return loss, {"generator_loss": loss.detach()} | logs

    def faded(self, images: Tensor) -> Tensor:
        """Real images (n, c, h, w) without the share of their detail that generated ones do not have yet."""
        _, fade = self.critic.level_and_fade
        return images if fade == 1 else torch.lerp(doubled(halved(images)), images, fade)

    def draw(self, generator: nn.Module, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        images = super().draw(generator, n, labels, rng)
        return images if images.shape[2:] == self.shape.size else interpolate(images, self.shape.size)


class Generator(Grown):
    """Noise (n, latent) and labels (n,) to images (n, channels, h, w) in about [-1, 1], of the size that it has grown to.

    Args:
        widths: channels of the maps of each level, from the grid to the full image.
        first: the lowest level that makes an image.
    """

    def __init__(
        self, grid: Grid, channels: int, widths: Sequence[int], latent: int, num_classes: int | None, first: int
    ):
        super().__init__(grid.halvings)
        self.num_classes, self.first = num_classes, first
        inputs = latent + (num_classes or 0)
        self.grid = (widths[0], grid.height, grid.width)
        # Karras et al. give it a quarter of the usual gain.
        self.begin = EqualisedLinear(inputs, widths[0] * grid.height * grid.width, RELU_GAIN / 4)
        self.resampled = nn.ModuleList(
            EqualisedConv2d(widths[max(0, level - 1)], width, resample="up" if level else "none")
            for level, width in enumerate(widths)
        )
        self.second = nn.ModuleList(EqualisedConv2d(width, width) for width in widths[1:])
        self.to_image = nn.ModuleList(EqualisedConv2d(width, channels, 1, gain=1) for width in widths[first:])

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.num_classes is not None:
            assert labels is not None, "a conditional generator is given labels"
            noise = torch.cat([noise, one_hot(labels, self.num_classes).to(noise.dtype)], dim=1)
        level, fade = self.level_and_fade
        x = self.begin(pixel_norm(noise)).unflatten(1, self.grid)
        x = pixel_norm(leaky_relu(x, _SLOPE))
        before = x
        for number in range(level + 1):
            before = x
            x = pixel_norm(leaky_relu(self.resampled[number](x), _SLOPE))
            if number:
                x = pixel_norm(leaky_relu(self.second[number - 1](x), _SLOPE))
        image = self.to_image[level - self.first](x)
        return image if fade == 1 else torch.lerp(doubled(self.to_image[level - 1](before)), image, fade)


class Critic(Grown):
    """Images of the size that it has grown to, (n, channels, h, w), to scores (n,).

    Args:
        widths: channels of the maps of each level, from the grid to the full image.
        first: the lowest level that takes an image.
    """

    def __init__(self, grid: Grid, channels: int, widths: Sequence[int], num_classes: int | None, first: int):
        super().__init__(grid.halvings)
        self.first = first
        self.from_image = nn.ModuleList(EqualisedConv2d(channels, width, 1) for width in widths[first:])
        self.same = nn.ModuleList(EqualisedConv2d(width, width) for width in widths[1:])
        self.resampled = nn.ModuleList(
            EqualisedConv2d(width, narrow, resample="down")
            for width, narrow in zip(widths[1:], widths[:-1], strict=True)
        )
        self.last = EqualisedConv2d(widths[0] + 1, widths[0])
        self.flat = EqualisedLinear(widths[0] * grid.height * grid.width, widths[0])
        self.score = EqualisedLinear(widths[0], 1, gain=1)
        self.classes = None if num_classes is None else EqualisedLinear(widths[0], num_classes, gain=1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Labels change no score: the classifier's loss compares them."""
        return self.judge(images)[0]

    def judge(self, images: Tensor, sets: int = 1) -> tuple[Tensor, Tensor | None]:
        """Scores (n,), and logits (n, classes) where there are labels.

        Args:
            sets: see `with_minibatch_deviation`.
        """
        level, fade = self.level_and_fade
        x = leaky_relu(self.from_image[level - self.first](images), _SLOPE)
        for number in range(level, 0, -1):
            x = leaky_relu(self.same[number - 1](x), _SLOPE)
            x = leaky_relu(self.resampled[number - 1](x), _SLOPE)
            if number == level and fade != 1:
                x = torch.lerp(leaky_relu(self.from_image[level - 1](halved(images)), _SLOPE), x, fade)
        x = leaky_relu(self.last(with_minibatch_deviation(x, _GROUP, sets)), _SLOPE)
        x = leaky_relu(self.flat(x.flatten(1)), _SLOPE)
        return self.score(x).flatten(), None if self.classes is None else self.classes(x)


def doubled(images: Tensor) -> Tensor:
    """Each value at four places: sides twice as long."""
    return interpolate(images, scale_factor=2.0, mode="nearest")


def halved(images: Tensor) -> Tensor:
    """Means over 2x2: sides half as long."""
    return avg_pool2d(images, 2)


def _sizes(grid: Grid) -> tuple[tuple[int, int], ...]:
    return tuple((grid.height << level, grid.width << level) for level in range(grid.halvings + 1))
