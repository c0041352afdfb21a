"""Two kinds of picture that can be evaluated on any window: clouds of beads, and band-limited noise.

Both are functions of position that are zero, or periodic, beyond a finite reach, so a window rendered alone equals the
same window of the whole image up to the rounding of float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REACH = 3.0  # a bead ends at this many of its standard deviations, where it has fallen to 1 %
TILE = 64  # pixels; thin beads reach few pixels, so most of a large picture of one bead would be zeros


@dataclass(frozen=True)
class Beads:
    """Gaussian blobs in the breast: centre (n, 3) in mm, standard deviation (n,) in mm, weight (n,).

    A Gaussian blob projects along any direction to a Gaussian disc, so one cloud gives every view, and a disc is a
    product of a function of the row and one of the column, so a picture of all discs is a single matrix product.
    """

    centre: np.ndarray
    sigma: np.ndarray
    weight: np.ndarray

    def projected(self, matrix: np.ndarray) -> Discs:
        """Discs in a view whose (row, column) in mm is `matrix` (2, 3) times the position; peak value = weight."""
        return Discs(self.centre @ matrix.T.astype(np.float32), self.sigma, self.weight)


@dataclass(frozen=True)
class Discs:
    """Gaussian discs in a view: centre (n, 2) of (row, column) in mm, sigma (n,) in mm, weight (n,)."""

    centre: np.ndarray
    sigma: np.ndarray
    weight: np.ndarray

    def on(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """float32 (len(rows), len(columns)): sum of all discs at these coordinates in mm, both ascending."""
        picture = np.empty((len(rows), len(columns)), dtype=np.float32)
        beside = self._near(1, columns)
        for top in range(0, len(rows), TILE):
            strip = slice(top, top + TILE)
            across = beside._near(0, rows[strip])
            vertical = _bell(rows[strip], across.centre[:, 0], across.sigma) * across.weight[:, None]
            for left in range(0, len(columns), TILE):
                tile = slice(left, left + TILE)
                near = across._is_near(1, columns[tile])
                horizontal = _bell(columns[tile], across.centre[near, 1], across.sigma[near])
                picture[strip, tile] = vertical[near].T @ horizontal
        return picture

    def _is_near(self, axis: int, positions: np.ndarray) -> np.ndarray:
        reach = np.float32(REACH) * self.sigma
        return (self.centre[:, axis] > positions[0] - reach) & (self.centre[:, axis] < positions[-1] + reach)

    def _near(self, axis: int, positions: np.ndarray) -> Discs:
        near = self._is_near(axis, positions)
        return Discs(self.centre[near], self.sigma[near], self.weight[near])


def _bell(positions: np.ndarray, centre: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """float32 (n, len(positions)): exp(-z^2/2), lowered and cut to be exactly zero from REACH sigmas on."""
    z = (positions[None].astype(np.float32) - centre[:, None]) / sigma[:, None]
    np.multiply(z, z, out=z)
    z *= np.float32(-0.5)
    np.exp(z, out=z)
    z -= np.float32(np.exp(-0.5 * REACH**2))
    return np.maximum(z, 0, out=z)


class Octaves:
    """Smooth random field: sum of B-spline lattices whose spacing halves, amplitude ~ spacing ** exponent.

    A power spectrum 1 / f^beta of a plane field is exponent = (beta - 2) / 2; mammograms have beta near 3 (Burgess,
    Jacobson & Judy 2001). Each lattice repeats after `NODES` nodes; octaves repeat at different lengths, so the sum
    does not within a breast. Zero mean and unit variance, nearly.
    """

    NODES = 96

    def __init__(self, coarsest_mm: float, count: int, exponent: float, rng: np.random.Generator) -> None:
        self.spacings = coarsest_mm * 0.5 ** np.arange(count)
        self.lattices = rng.standard_normal((count, self.NODES, self.NODES), dtype=np.float32)
        self.offsets = rng.uniform(0, self.NODES, (count, 2))
        amplitudes = self.spacings**exponent
        # A cubic B-spline surface over white noise has the variance (sum of squared weights, averaged) 0.4794^2.
        self.amplitudes = (amplitudes / np.linalg.norm(amplitudes) / 0.4794).astype(np.float32)

    def on(self, rows: np.ndarray, columns: np.ndarray) -> list[np.ndarray]:
        """One float32 (len(rows), len(columns)) field per octave, coarsest first; their sum is the field."""
        fields = []
        for spacing, lattice, offset, amplitude in zip(
            self.spacings, self.lattices, self.offsets, self.amplitudes, strict=True
        ):
            down, first_row = _splines(rows / spacing + offset[0])
            across, first_column = _splines(columns / spacing + offset[1])
            nodes = lattice.take(range(first_row, first_row + down.shape[1]), axis=0, mode="wrap")
            nodes = nodes.take(range(first_column, first_column + across.shape[1]), axis=1, mode="wrap")
            fields.append((down * amplitude) @ nodes @ across.T)
        return fields


def _splines(positions: np.ndarray) -> tuple[np.ndarray, int]:
    """Cubic B-spline weights float32 (len(positions), nodes) of the nodes first, first + 1, ..., and `first`."""
    cell = np.floor(positions).astype(int)
    t = positions - cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    first = int(cell.min()) - 1
    matrix = np.zeros((len(positions), int(cell.max()) + 3 - first), dtype=np.float32)
    np.put_along_axis(matrix, cell[:, None] - 1 - first + np.arange(4)[None], weights.astype(np.float32), axis=1)
    return matrix, first


def grain(seed: int, top: int, left: int, height: int, width: int) -> np.ndarray:
    """float32 (height, width): white unit noise of the pixels from (top, left), which may be negative.

    Drawn in tiles, each from its own counter-based stream, so that a pixel's noise depends on its place only.
    """
    tile = 64
    rows = range(top // tile, -(-(top + height) // tile))
    columns = range(left // tile, -(-(left + width) // tile))
    canvas = np.empty((len(rows) * tile, len(columns) * tile), dtype=np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            # Counters are unsigned: tiles left of or above the image start at -8.
            generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, row + 8, column + 8]))
            canvas[i * tile : (i + 1) * tile, j * tile : (j + 1) * tile] = generator.standard_normal(
                (tile, tile), dtype=np.float32
            )
    y, x = top - rows[0] * tile, left - columns[0] * tile
    return canvas[y : y + height, x : x + width]


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, a cubic with level ends in between."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)
