"""Where the body is on a dark ground: the largest bright area, its holes filled.

scikit-image would be a dependency for Otsu's ten lines alone, and might resolve ties in another way.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

OPENING = 2  # samples: labels and markers that touch the body by a thinner bridge are cut off


def body_mask(grey: np.ndarray) -> np.ndarray:
    """bool, like `grey`, uint8: the largest bright area on a dark ground, its holes filled.

    The threshold is Otsu's on the square root of the brightness, which spreads the dark end where skin and background
    meet. An opening first cuts off labels and markers that touch the body by a thin bridge.
    """
    areas, count = ndimage.label(_opened(grey > _otsu(np.bincount(grey.ravel(), minlength=256))))
    if not count:
        return np.zeros_like(grey, dtype=bool)
    largest = 1 + int(np.bincount(areas.ravel())[1:].argmax()) if count > 1 else 1
    return _filled(areas == largest)


def _opened(mask: np.ndarray) -> np.ndarray:
    """Opening by a cross, OPENING times each way; outside the image is background.

    Equal to `scipy.ndimage.binary_opening`, which takes ten times as long.
    """
    for _ in range(OPENING):
        mask = _crossed(mask, np.logical_and)
    for _ in range(OPENING):
        mask = _crossed(mask, np.logical_or)
    return mask


def _crossed(mask: np.ndarray, combine: np.ufunc) -> np.ndarray:
    """Each sample combined with its four neighbours."""
    wide = np.pad(mask, 1)
    out = wide[1:-1, 1:-1].copy()
    for neighbour in (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]):
        combine(out, neighbour, out=out)
    return out


def _filled(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes filled: areas of the rest that do not reach the border.

    Equal to `scipy.ndimage.binary_fill_holes`, in a fifth of its time.
    """
    areas, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, dtype=bool)
    for edge in (areas[0], areas[-1], areas[:, 0], areas[:, -1]):
        outside[edge] = True
    outside[0] = False  # the mask itself
    return np.take(~outside, areas, mode="clip")  # all areas exist: not checked one by one


def _otsu(counts: np.ndarray) -> int:
    """The last grey value of the darker class: it maximises the variance of square roots between the classes (Otsu 1979).

    counts: of each grey value 0 .. 255.
    """
    below = counts.cumsum()
    above = below[-1] - below
    mass = (counts * np.sqrt(np.arange(256))).cumsum()
    split = np.flatnonzero((below > 0) & (above > 0))  # grey values that leave something on both sides
    if not len(split):
        return int(counts.argmax())
    between = (mass[-1] * below[split] / below[-1] - mass[split]) ** 2 / (below[split] * above[split])
    return int(split[between.argmax()])
