"""Random-network space: 704 numbers from a convolutional network whose weights are drawn once and never trained.

Naeem et al. (ICML 2020) recommend random embeddings for images unlike those that the usual networks were trained on.
Theirs is a VGG; this one is small enough for one core. In full:

    input          x / 127.5 - 1; a grey image stands for its three equal channels
    4 blocks       3x3 convolution with bias, stride 1, zero padding: 3-32-64-128-128 channels; ReLU; after the block 2x2
                   average pooling, without remainder
    features       mean and standard deviation over all positions of each block's output, before its pooling:
                   2 x (32 + 64 + 128 + 128) = 704
    weights        uniform in +-sqrt(6 / fan-in) (He et al., ICCV 2015: the variance of ReLU layers is kept), biases
                   uniform in +-1/2, from 24 bits each of PCG64(20190704), layer by layer, weights before biases
    zero sums      the 3x3 kernels of the first 16 channels and of all later blocks have their mean subtracted; those of
                   the first 16 channels are then multiplied by 4

The last line is what makes the space see more than brightness. With plain random kernels the level of a map drowns its
structure: on phantom patches a blur of one pixel then moves the distance to 1.4 times the real-against-real floor, with
zero sums to 12 times, and brightness and collapse are seen as before.

The weights are made of integers and one square root, so they are the same bits on any machine and under any version of
numpy; the features agree across machines to float32 rounding. A distance in this space is not an FID and has no unit:
compare it with the distance between two halves of the real images.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch.nn import functional

SEED = 20190704
WIDTHS = (32, 64, 128, 128)
DIMENSIONS = 2 * sum(WIDTHS)
# Neighbouring pixels differ by far less than brightness does between images; this evens the two out.
EDGE_CHANNELS, EDGE_GAIN = WIDTHS[0] // 2, 4.0

# Convolutions may round differently for another batch size; with one size for each image size they do not.
_PIXELS_AT_A_TIME = 2**16


@cache
def _weights() -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    bits = np.random.PCG64(SEED)

    def uniform(*shape: int) -> np.ndarray:
        """float64 in [-1, 1)."""
        return ((bits.random_raw(math.prod(shape)) >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0).reshape(shape)

    layers: list[tuple[torch.Tensor, torch.Tensor]] = []
    inputs = 3
    for width in WIDTHS:
        kernels = uniform(width, inputs, 3, 3)
        centred = kernels[:EDGE_CHANNELS] if not layers else kernels
        centred -= centred.mean(axis=(2, 3), keepdims=True)
        if not layers:
            centred *= EDGE_GAIN
        weight, bias = kernels * math.sqrt(6 / (inputs * 9)), uniform(width) / 2
        layers.append((torch.from_numpy(weight).float(), torch.from_numpy(bias).float()))
        inputs = width
    return tuple(layers)


@torch.no_grad()
def random_network(images: np.ndarray) -> np.ndarray:
    """Features of each image, computed on the CPU.

    Args:
        images: uint8 (n, 1 or 3, height, width), sides of 16 or more.

    Returns:
        float64 (n, 704): means of the four blocks' channels, then their standard deviations.
    """
    (first, bias), *rest = _weights()
    if images.shape[1] == 1:
        first = first.sum(dim=1, keepdim=True)
    layers = [(first, bias), *rest]
    features = np.empty((len(images), DIMENSIONS))
    step = max(1, _PIXELS_AT_A_TIME // (images.shape[2] * images.shape[3]))
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        x = torch.zeros(step, *images.shape[1:])
        x[: len(batch)] = torch.from_numpy(batch.astype(np.float32)) / 127.5 - 1.0
        means, deviations = [], []
        for index, (weight, offset) in enumerate(layers):
            if index:
                x = functional.avg_pool2d(x, 2)
            x = functional.relu_(functional.conv2d(x, weight, offset, padding=1))
            variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
            means.append(mean)
            deviations.append(variance.sqrt_())
        features[start : start + step] = torch.cat(means + deviations, dim=1)[: len(batch)].double().numpy()
    return features
