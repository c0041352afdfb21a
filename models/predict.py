"""A classifier outside training: probabilities, and batch norm's statistics recomputed on chosen images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.generative import Precision
from models.patch_arrays import PatchArrays, to_float

Normalise = Literal["none", "per_patch"]

_PREDICT_BATCH = 256
_STATISTICS_BATCH = 64


@torch.inference_mode()
def predict(
    network: nn.Module,
    patches: PatchArrays,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    normalise: Normalise = "none",
) -> np.ndarray:
    """Class probabilities, float64 (n, classes), in the order of the patches' rows."""
    device = torch.device(device)
    network.to(device).eval()
    parts = []
    for start in range(0, len(patches), _PREDICT_BATCH):
        images = patches.take(np.arange(start, min(start + _PREDICT_BATCH, len(patches))))
        images = normalised(to_float(images.to(device, memory_format=torch.channels_last)), normalise)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(images)
        parts.append(logits.double().softmax(dim=1).cpu())
    if not parts:  # an empty test set: how many classes there are is seen on any image
        blank = torch.zeros(1, *patches.pixels.shape[1:], device=device)
        return np.empty((0, network(blank).shape[1]))
    return torch.cat(parts).numpy()


def normalised(images: Tensor, how: Normalise) -> Tensor:
    """As they are, or every image brought to mean 0 and deviation 1 over all its values (a flat one stays at 0)."""
    if how == "none":
        return images
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
    return (images - mean) / deviation.clamp_min(1e-3)


@torch.no_grad()
def recompute_batch_norm(network: nn.Module, images: Tensor | None, normalise: Normalise, precision: Precision) -> None:
    """Set batch norm's running statistics to plain means over the images (as they are stored).

    They stay as they are where `images` is None, or is one image in which a layer finds no variance.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if images is None or not layers:
        return
    device = next(network.parameters()).device

    def run(part: Tensor) -> None:
        part = normalised(to_float(part.to(device, memory_format=torch.channels_last)), normalise)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            network(part)

    network.eval()
    parts = list(images.split(_STATISTICS_BATCH))
    if len(parts[-1]) == 1 and _values_per_channel(layers, lambda: run(parts[-1])) == 1:
        if len(parts) == 1:
            return
        # Torch refuses to train batch norm on one value per channel: the last image joins the part before it.
        parts[-2:] = [torch.cat(parts[-2:])]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean
        layer.train()
    for part in parts:
        run(part)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def _values_per_channel(layers: Sequence[nn.Module], run: Callable[[], None]) -> int:
    """The fewest values of a channel, over images and positions, that any of the layers is given in a run."""
    found: list[int] = []

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].numel() // inputs[0].shape[1])

    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    run()
    for hook in hooks:
        hook.remove()
    return min(found)
