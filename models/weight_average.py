"""Exponential moving average of a network's weights.

The decay grows as (1 + step) / (10 + step) up to its final value, so that the random initial weights have left the
average after a few hundred steps. With a constant .998 they would still be 17 % of it at step 900. Counted in images
(Karras et al. 2020), the half-life grows with the images seen.
"""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Move `average` towards `network`. Buffers (batch-norm statistics) are averages already: they are copied.

    Args:
        keep: share of the average that stays, from 0 to 1.
    """
    targets: list[torch.Tensor] = list(average.parameters())
    sources: list[torch.Tensor] = list(network.parameters())
    torch._foreach_lerp_(targets, sources, 1.0 - keep)
    for target, source in zip(average.buffers(), network.buffers(), strict=True):
        target.copy_(source)


def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """`move_average` with a decay that grows.

    Args:
        step: number of updates before this one.
    """
    move_average(average, network, average_decay(decay, step))


def average_decay(decay: float, step: int) -> float:
    """What an update keeps of the average, after `step` updates before it."""
    return min(decay, (1 + step) / (10 + step))


def average_decay_by_images(half_life: float, ramp: float | None, images: int, seen: int) -> float:
    """What an update keeps of the average: 1/2 after `half_life` images.

    Args:
        ramp: the half-life is at most this share of the images before; None: constant from the start.
        images: seen before this update.
        seen: in this update.
    """
    if seen == 0:
        return 1.0
    images_to_half = half_life if ramp is None else min(half_life, ramp * images)
    return 0.5 ** (seen / images_to_half) if images_to_half > 0 else 0.0
