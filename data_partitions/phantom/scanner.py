"""Scanners of the phantom: optics, noise, processing and tone, as functions of the place on the detector.

Each step has a finite reach, so a window that is rendered with HALO pixels around it and cut is exactly the window of
the whole image. The three are made up; what they have in common with real ones is named at each field.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from basics.image_shape import Storage
from data_partitions.phantom.fields import Discs, grain

HALO = 12  # pixels: the reach of blur, grain and sharpening in a row (checked below)
TRUNCATE = 3.0  # a filter kernel ends at this many standard deviations


@dataclass(frozen=True)
class Scanner:
    """Acquisition of one kind of machine; lengths in pixels of 0.2 mm, amplitudes in the image's range 0 .. 1."""

    blur: float  # unsharpness of focus and detector, standard deviation
    noise: float  # at full exposure; it grows with attenuation, where fewer photons arrive
    grain: float  # standard deviation of the noise's correlation; 0: white
    sharpen: float  # share of the unsharp mask that is added
    sharpen_radius: float
    gain: float
    gamma: float
    steepness: float  # of the sigmoid tone curve (film's characteristic curve, or vendor processing); 0: straight
    middle: float  # of the sigmoid
    black: float  # fog, or the darkest value of the display window
    white: float
    exposure: float  # standard deviation of the exposure between images
    dust: float  # specks per image

    def __post_init__(self) -> None:
        radii = [int(TRUNCATE * s + 0.5) for s in (self.blur, self.grain, self.sharpen_radius)]
        assert radii[0] + radii[2] <= HALO and radii[1] + radii[2] <= HALO, "the halo is too small for this scanner"

    @cached_property
    def grain_deviation(self) -> float:
        """Standard deviation of white unit noise after the grain's filter: the sum of squares of the 1-d kernel."""
        impulse = np.zeros(2 * HALO + 1)
        impulse[HALO] = 1
        return float(np.sum(gaussian_filter1d(impulse, self.grain, truncate=TRUNCATE) ** 2))


SCANNERS = {
    "digital": Scanner(
        blur=0.5, noise=0.012, grain=0.0, sharpen=0.5, sharpen_radius=1.5,
        gain=1.15, gamma=1.0, steepness=0.0, middle=0.5, black=0.0, white=1.0, exposure=0.03, dust=0,
    ),
    "digital-2": Scanner(
        blur=0.8, noise=0.012, grain=0.5, sharpen=1.2, sharpen_radius=3.0,
        gain=1.05, gamma=1.3, steepness=5.0, middle=0.42, black=0.0, white=0.95, exposure=0.04, dust=0,
    ),
    "film": Scanner(
        blur=1.4, noise=0.036, grain=1.2, sharpen=0.0, sharpen_radius=0.0,
        gain=1.15, gamma=0.75, steepness=5.0, middle=0.60, black=0.08, white=0.88, exposure=0.10, dust=30,
    ),
}  # fmt: skip


class Acquisition:
    """One exposure on one scanner: its noise, exposure and dust belong to the image."""

    def __init__(self, scanner: Scanner, size_mm: tuple[float, float], top_mm: float, rng: np.random.Generator) -> None:
        self.scanner = scanner
        self.noise_seed = int(rng.integers(2**63))
        self.exposure = 1 + scanner.exposure * float(rng.normal())
        self.tilt = 1.5 * scanner.exposure * float(rng.normal()) / size_mm[0]
        specks = int(rng.poisson(scanner.dust))
        places = rng.uniform((top_mm, 0), (top_mm + size_mm[0], size_mm[1]), (specks, 2))
        self.dust = Discs(
            places.astype(np.float32),
            rng.uniform(0.1, 0.3, specks).astype(np.float32),
            rng.choice([-0.4, 0.6], specks).astype(np.float32),
        )

    def developed(
        self, attenuation: np.ndarray, rows: np.ndarray, columns: np.ndarray, top: int, left: int, storage: Storage = "uint8"
    ) -> np.ndarray:  # fmt: skip
        """uint8 or uint16 image without its halo. attenuation: float32 (h + 2 HALO, w + 2 HALO) at these coordinates in mm.

        top, left: pixel of the first row and column, halo included, which is where the noise is looked up.
        """
        scanner = self.scanner
        picture = gaussian_filter(attenuation, scanner.blur, truncate=TRUNCATE)
        noise = grain(self.noise_seed, top, left, *attenuation.shape)
        if scanner.grain:
            noise = gaussian_filter(noise, scanner.grain, truncate=TRUNCATE) / scanner.grain_deviation
        picture += noise * (scanner.noise * (0.4 + np.sqrt(np.clip(picture, 0, 1))))
        if scanner.sharpen:
            picture += scanner.sharpen * (picture - gaussian_filter(picture, scanner.sharpen_radius, truncate=TRUNCATE))
        inner = slice(HALO, -HALO)
        picture, rows, columns = picture[inner, inner], rows[inner], columns[inner]
        light = (scanner.gain * self.exposure * (1 + self.tilt * rows)).astype(np.float32)[:, None]
        picture = np.clip(picture * light, 0, 1)
        if scanner.gamma != 1:
            picture = picture ** np.float32(scanner.gamma)
        if scanner.steepness:
            picture = _sigmoid(picture, scanner.steepness, scanner.middle)
        picture = scanner.black + (scanner.white - scanner.black) * picture
        if scanner.dust:
            picture = picture + self.dust.on(rows, columns)
        return np.rint(np.clip(picture, 0, 1) * np.iinfo(storage).max).astype(storage)


def _sigmoid(x: np.ndarray, steepness: float, middle: float) -> np.ndarray:
    """Logistic curve through (0, 0) and (1, 1)."""
    low, high = (1 / (1 + np.exp(-steepness * (end - middle))) for end in (0.0, 1.0))
    return ((1 / (1 + np.exp(-steepness * (x - np.float32(middle)))) - low) / (high - low)).astype(np.float32)
