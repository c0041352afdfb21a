"""Texture space: 59 classical measurements of an image's grey values, without any learned weight.

    16  histogram of intensity, 16 equal bins
    20  local binary patterns, rotation invariant and uniform (Ojala et al., TPAMI 2002): 8 square neighbours at distance 1
        and at distance 2, 10 bins each
    15  gradients at full, half and quarter resolution, 5 each: mean magnitude, peakedness, dominant orientation (2, from
        the structure tensor of Bigun and Granlund, ICCV 1987), Laplacian
     8  power in 8 rings of spatial frequency from 0 to Nyquist, under a Hann window

Colour images are measured on their luminance (Rec. 601), so hue goes unseen here. A Fréchet distance adds up squared
differences of all numbers, so they are brought to comparable units beforehand: shares as their square roots (Hellinger),
amplitudes as natural logarithms with a floor of one grey level, below which 8 bits hold nothing but rounding.

Frequencies are relative to Nyquist and gradients to one pixel, so two sets can be compared at the same resolution only.
No step mixes images, and none depends on how they are divided into batches.

Not scikit-image's: `local_binary_pattern` takes one image at a time and computes in floats; here whole batches are measured in
integers.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

DIMENSIONS = 59

_HISTOGRAM_BINS = 16
_PATTERN_DISTANCES = (1, 2)
_PATTERN_BINS = 10
_SCALES = 3
_RINGS = 8
_GREY_LEVEL = 1 / 255
# Images measured at a time: intermediate arrays of about 8 MB, which stay in the cache.
_PIXELS_AT_A_TIME = 2**18


def texture(images: np.ndarray) -> np.ndarray:
    """Texture of each image.

    Args:
        images: uint8 (n, 1 or 3, height, width), sides of 16 or more.

    Returns:
        float64 (n, 59): histogram, patterns at distance 1 and 2, gradients from fine to coarse, power from low to high
        frequency.
    """
    features = np.empty((len(images), DIMENSIONS))
    step = max(1, _PIXELS_AT_A_TIME // (images.shape[2] * images.shape[3]))
    for start in range(0, len(images), step):
        grey = _luminance(images[start : start + step])
        unit = grey / 255.0
        features[start : start + step] = np.concatenate(
            [
                np.sqrt(_shares(grey >> 4, _HISTOGRAM_BINS)),
                *(np.sqrt(_shares(_patterns(grey, distance), _PATTERN_BINS)) for distance in _PATTERN_DISTANCES),
                *_gradients(unit),
                _log_spectrum(unit),
            ],
            axis=1,
        )
    return features


def _luminance(images: np.ndarray) -> np.ndarray:
    """uint8 (n, c, h, w) to uint8 (n, h, w), in integers: the same bits on every machine."""
    if images.shape[1] == 1:
        return np.ascontiguousarray(images[:, 0])
    red, green, blue = (images[:, channel].astype(np.uint16) for channel in range(3))
    return ((77 * red + 150 * green + 29 * blue + 128) >> 8).astype(np.uint8)


def _shares(values: np.ndarray, bins: int) -> np.ndarray:
    """Share of each value 0..bins-1 in each image: (n, h, w) to (n, bins)."""
    count = len(values)
    flat = values.reshape(count, -1)
    labelled = flat + (np.arange(count) * bins)[:, None]
    return np.bincount(labelled.ravel(), minlength=count * bins).reshape(count, bins) / flat.shape[1]


def _pattern_table() -> np.ndarray:
    """Code of 8 neighbours in circular order to its bin: the number of ones, or 9 with more than two changes."""
    codes = np.arange(256)
    bits = (codes[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), _PATTERN_BINS - 1).astype(np.uint8)


_PATTERN_TABLE = _pattern_table()
_CIRCLE = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def _patterns(grey: np.ndarray, distance: int) -> np.ndarray:
    """Bin of the pattern around each pixel that has all its neighbours."""
    height, width = grey.shape[1] - 2 * distance, grey.shape[2] - 2 * distance
    centre = grey[:, distance : distance + height, distance : distance + width]
    codes = np.zeros(centre.shape, np.uint8)
    for bit, (down, right) in enumerate(_CIRCLE):
        top, left = distance * (1 + down), distance * (1 + right)
        neighbour = grey[:, top : top + height, left : left + width]
        codes |= (neighbour >= centre).view(np.uint8) << np.uint8(bit)
    return _PATTERN_TABLE[codes]


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean of each image. One contiguous row an image: numpy adds it up in the same order whatever n is."""
    return np.ascontiguousarray(values).reshape(len(values), -1).mean(axis=1)


def _gradients(unit: np.ndarray) -> list[np.ndarray]:
    """Five numbers (n, 5) at each scale: log of the mean gradient magnitude, log of its root mean square over its mean,
    the two components of the dominant orientation (length 0 without one, 1 for parallel stripes), and log of the root
    mean square of the Laplacian."""
    features = []
    for scale in range(_SCALES):
        if scale:
            even = unit[:, : unit.shape[1] // 2 * 2, : unit.shape[2] // 2 * 2]
            unit = (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 4
        inner = unit[:, 1:-1, 1:-1]
        up, down, left, right = unit[:, :-2, 1:-1], unit[:, 2:, 1:-1], unit[:, 1:-1, :-2], unit[:, 1:-1, 2:]
        dy, dx = (down - up) / 2, (right - left) / 2
        xx, yy, xy = dx * dx, dy * dy, _mean(dx * dy)
        energy = xx + yy
        xx, yy, magnitude, power = _mean(xx), _mean(yy), _mean(np.sqrt(energy)), _mean(energy)
        laplacian = up + down + left + right - 4 * inner
        features.append(
            np.stack(
                [
                    np.log(magnitude + _GREY_LEVEL),
                    np.log((np.sqrt(power) + _GREY_LEVEL) / (magnitude + _GREY_LEVEL)),
                    (xx - yy) / (power + _GREY_LEVEL**2),
                    2 * xy / (power + _GREY_LEVEL**2),
                    np.log(np.sqrt(_mean(laplacian * laplacian)) + _GREY_LEVEL),
                ],
                axis=1,
            )
        )
    return features


def _log_spectrum(unit: np.ndarray) -> np.ndarray:
    """Log amplitude in 8 rings of equal width from 0 to Nyquist, the mean itself and the corners left out: (n, 8)."""
    count, height, width = unit.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    centred = (unit - _mean(unit)[:, None, None]) * window
    # White noise of variance v has power v at every frequency.
    power = np.abs(scipy.fft.rfft2(centred)) ** 2 / np.square(window).sum()
    down, right = np.meshgrid(2 * scipy.fft.fftfreq(height), 2 * scipy.fft.rfftfreq(width), indexing="ij")
    ring = np.ceil(np.hypot(down, right) * _RINGS - 1e-9).astype(int)  # 1..8; 0 is the mean, 9 and more the corners
    # rfft2 leaves out the mirror images of all columns but the first and, for an even width, the last.
    weight = np.full(ring.shape, 2.0)
    weight[:, 0] = 1.0
    if width % 2 == 0:
        weight[:, -1] = 1.0
    flat, features = (power * weight).reshape(count, -1), np.empty((count, _RINGS))
    for index in range(_RINGS):
        members = np.flatnonzero(ring == index + 1)
        features[:, index] = np.ascontiguousarray(flat[:, members]).sum(axis=1) / weight.ravel()[members].sum()
    return np.log(np.sqrt(features) + _GREY_LEVEL)
