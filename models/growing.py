"""What models that grow have in common: how far a network has grown, what follows from the moment, and a schedule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from basics.image_shape import size_text
from models.generative_training import GrowingStage
from models.phases import Moment

Size = tuple[int, int]
# From this many pixels on every doubling halves the batch, so that a step's memory stays about the same, down to the fewest.
_PIXELS_OF_FULL_BATCH = 192**2
_FEWEST = 4


class Grown(nn.Module):
    """A network that knows how far it has grown; at first it is fully grown.

    The buffer `grown` holds the index of its size and the share of the new layers, 1 where nothing fades in. It is shared
    with the weights, so that a half-grown generator is sampled as it is.
    """

    grown: torch.Tensor

    def __init__(self, full: int):
        super().__init__()
        self.register_buffer("grown", torch.tensor([float(full), 1.0]))

    @property
    def level_and_fade(self) -> tuple[int, float]:
        """What `grown` holds."""
        level, fade = self.grown.tolist()
        return int(level), fade

    def grow_to(self, level: int, fade: float) -> None:
        """Set it."""
        self.grown.copy_(torch.tensor([float(level), fade]))


def level_and_fade(moment: Moment, sizes: Sequence[Size], share: float) -> tuple[int, float]:
    """Index of the moment's size, and the share of its new layers, which rises to 1 within a share of the stage.

    Nothing fades in where the stage before had the same size, or left out a size: layers between them are new, too.
    """
    if moment.size is None:
        return len(sizes) - 1, 1.0
    level = sizes.index(moment.size)
    if not level or moment.size_before != sizes[level - 1] or not share:
        return level, 1.0
    return level, min(1.0, (moment.stage_step + 1) / (share * moment.stage_steps))


def equal_images(sizes: Sequence[Size], steps: int, batch_size: int) -> tuple[GrowingStage, ...]:
    """A stage for each size in which the critic's first step sees equally many images; optimizers begin anew with each.

    Args:
        batch_size: up to about 128 to 190 px; it is halved with every further doubling, but not below 4.

    Raises:
        ValueError: there are fewer steps than sizes.
    """
    if steps < len(sizes):
        names = ", ".join(map(size_text, sizes))
        raise ValueError(
            f"steps is {steps}, and images grow through {len(sizes)} sizes ({names}); set steps to {len(sizes)} or more, or "
            "grow: false"
        )
    batches = [_batch_of(size, batch_size) for size in sizes]
    shares = [1 / batch for batch in batches]
    total, spare = sum(shares), steps - len(sizes)
    ends = [round(spare * sum(shares[: number + 1]) / total) for number in range(len(sizes))]
    return tuple(
        GrowingStage(steps=1 + end - begin, image_size=size, batch_size=batch, reset_optimizer=True)
        for size, batch, begin, end in zip(sizes, batches, [0, *ends[:-1]], ends, strict=True)
    )


def _batch_of(size: Size, batch_size: int) -> int:
    pixels, batch = size[0] * size[1], batch_size
    while pixels > _PIXELS_OF_FULL_BATCH and batch // 2 >= _FEWEST:
        pixels, batch = pixels // 4, batch // 2
    return batch
