"""A phantom patient: habitus, density, tissue and lesions, all in the millimetres of the body.

The breast is half an ellipsoid on the chest wall: x forward to the nipple, y to the side, z up. Its tissue is a cloud
of beads (see `phantom_fields`): lobes of gland along ducts that fan out from the nipple, lobules and fatty holes in
them, strands (ducts and ligaments) and vessels. Both views of a breast are projections of the same cloud.

Everything here depends on the seed, the centre and the patient's number only, not on the scanner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from basics.seeds import stream
from data_partitions.phantom.fields import Beads

SPACING = 1.8  # between the beads of a thread, in their standard deviations
DENSITIES = "abcd"
SHAPES = ("round", "oval", "lobulated", "microlobulated", "irregular", "spiculated")
# Invented, in the order of the BI-RADS lexicon's suspicion (ACR BI-RADS Atlas, 5th edition).
MALIGNANT_BY_SHAPE: dict[str, float] = dict(zip(SHAPES, (0.05, 0.06, 0.22, 0.50, 0.72, 0.93), strict=True))
KINDS = {"mass": 0.64, "calcification": 0.24, "distortion": 0.12}
BIRADS = ("2", "3", "4a", "4b", "4c", "5")
BIRADS_STEPS = (0.12, 0.27, 0.42, 0.58, 0.78)  # thresholds of the suspicion between the six categories


@dataclass(frozen=True)
class Population:
    """Who comes to this centre: shares of the densities a to d, malignant share, size and conspicuity of lesions."""

    densities: tuple[float, float, float, float] = (0.15, 0.36, 0.34, 0.15)
    malignant: float = 0.45
    lesion_size: float = 1.0
    contrast: float = 1.0


@dataclass(frozen=True)
class Finding:
    """A lesion in the body. `centre`: (3,) mm; `radius_mm` of its core; a sham is a place where none is."""

    kind: str
    shape: str
    malignant: bool
    birads: str
    centre: np.ndarray
    radius_mm: float
    contrast: float
    seed: int
    sham: bool


@dataclass(frozen=True, eq=False)  # compared by identity, so that it can be a cache key
class Patient:
    """Age in years, density a to d, the breast's half axes in mm (x, y, z), share of gland, and the two breasts' sites.

    `sites`: laterality -> findings there, real ones or shams.
    """

    number: int
    age: float
    density: str
    axes: tuple[float, float, float]
    gland: float
    nodularity: float
    strands: float
    seed: int
    sites: dict[str, tuple[Finding, ...]]


def draw_patient(seed: int, centre: str, number: int, population: Population, lesion_fraction: float) -> Patient:
    """Patient `number` of a centre. One breast has a lesion, or none has; each breast without has one sham site."""
    rng = stream(seed, "phantom patient", centre, number)
    density = int(rng.choice(4, p=np.asarray(population.densities) / sum(population.densities)))
    depth = float(np.clip(rng.normal(92, 14), 62, 122))
    lateral = float(np.clip(rng.normal(82, 9), 58, 102))
    vertical = float(np.clip(lateral * rng.normal(1.05, 0.06), 60, 108))
    side = "LR"[int(rng.integers(2))] if rng.random() < lesion_fraction else None
    axes = (depth, lateral, vertical)
    return Patient(
        number=number,
        age=float(round(np.clip(rng.normal(62 - 3.5 * density, 9), 38, 88))),
        density=DENSITIES[density],
        axes=axes,
        gland=float(np.clip((0.12, 0.32, 0.58, 0.85)[density] + rng.normal(0, 0.05), 0.05, 1.0)),
        nodularity=float(rng.uniform(0.3, 1.0)),
        strands=float(rng.uniform(0.5, 1.0)),
        seed=int(rng.integers(2**31)),
        sites={
            laterality: (_draw_finding(rng, population, axes, sham=laterality != side),) for laterality in "LR"
        },
    )  # fmt: skip


def _draw_finding(
    rng: np.random.Generator, population: Population, axes: tuple[float, float, float], *, sham: bool
) -> Finding:
    """Real findings and shams are drawn alike, so neither place nor size tells them apart."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    malignant = bool(rng.random() < population.malignant)
    likely = np.array([MALIGNANT_BY_SHAPE[s] if malignant else 1 - MALIGNANT_BY_SHAPE[s] for s in SHAPES])
    shape = str(rng.choice(SHAPES, p=likely / likely.sum()))
    suspicion = 0.6 * (MALIGNANT_BY_SHAPE[shape] if kind == "mass" else 0.5) + 0.4 * malignant + rng.normal(0, 0.12)
    radius = float(np.clip(population.lesion_size * rng.lognormal(np.log(5.5), 0.38), 2.5, 15))
    # Uniform in the inner 80 % of the half ellipsoid, behind the nipple and off the chest wall: whole in both views.
    while True:
        place = rng.uniform((0.16, -0.8, -0.8), (0.8, 0.8, 0.8))
        if np.linalg.norm(place) < 0.8:
            break
    return Finding(
        kind=kind,
        shape=shape if kind == "mass" else "",
        malignant=malignant,
        birads=BIRADS[int(np.searchsorted(BIRADS_STEPS, suspicion))],
        centre=(place * axes).astype(np.float32),
        radius_mm=radius,
        contrast=float(population.contrast * np.clip(rng.lognormal(0.0, 0.4), 0.35, 2.2)),
        seed=int(rng.integers(2**31)),
        sham=sham,
    )


@dataclass(frozen=True)
class Tissue:
    """The clouds of one breast: `gland` (peak sum about 1 in a dense part), `strands` (thin and bright), `specks`."""

    gland: Beads
    strands: Beads
    specks: Beads


def grow_tissue(patient: Patient, laterality: str) -> Tissue:
    """Tissue of one breast; left and right are drawn apart, but for the same density and habitus."""
    rng = stream(patient.seed, "tissue", laterality)
    nipple = np.array([patient.axes[0], 0, 0])
    return Tissue(_gland(rng, patient, nipple), _strands(rng, patient, nipple), _specks(rng, patient))


def _gland(rng: np.random.Generator, patient: Patient, nipple: np.ndarray) -> Beads:
    """Lobes strung along ducts from the nipple, lobules on them, and holes of fat between."""
    axes = np.asarray(patient.axes)
    lobes = int(10 + 26 * patient.gland)
    towards = (
        np.column_stack([rng.uniform(0.02, 0.55, lobes), *(rng.normal(0, 0.24 + 0.22 * patient.gland, (2, lobes)))])
        * axes
    )
    along = np.sort(rng.uniform(0.12, 1.0, (lobes, 6)), axis=1)[..., None]
    centres = (nipple + (towards[:, None] - nipple) * along + rng.normal(0, 3.0, (lobes, 6, 3))).reshape(-1, 3)
    sigmas = (3.0 + 6.5 * along[..., 0] * rng.uniform(0.6, 1.3, (lobes, 6))).ravel()
    weights = rng.uniform(0.10, 0.30, lobes * 6) * (0.55 + 0.75 * patient.gland)
    parents = rng.integers(0, len(centres), 900)
    lobule_centres = centres[parents] + rng.normal(0, 1.0, (900, 3)) * sigmas[parents, None] * 1.3
    lobule_sigmas = rng.uniform(0.9, 3.2, 900)
    lobule_weights = rng.normal(0.02, 0.16 * patient.nodularity, 900) * weights[parents] / 0.2
    return _cloud([centres, lobule_centres], [sigmas, lobule_sigmas], [weights, lobule_weights])


def _strands(rng: np.random.Generator, patient: Patient, nipple: np.ndarray) -> Beads:
    """Thin curved threads: ducts from the nipple, ligaments anywhere, and a few vessels under the skin."""
    axes = np.asarray(patient.axes)
    ducts, ligaments, vessels = 26, 110, 5
    # Starts and directions; a duct leaves the nipple backwards, a ligament runs mostly forwards.
    start = np.concatenate([
        np.repeat(nipple[None] - (4, 0, 0), ducts, axis=0),
        _in_breast(rng, ligaments) * axes,
        _in_breast(rng, vessels) * axes * (0.3, 0.95, 0.95),
    ])  # fmt: skip
    heading = np.concatenate([
        np.column_stack([-np.ones(ducts), *rng.normal(0, 0.45, (2, ducts))]),
        np.column_stack([rng.normal(0.7, 0.6, ligaments), *rng.normal(0, 0.6, (2, ligaments))]),
        np.column_stack([np.ones(vessels), *rng.normal(0, 0.35, (2, vessels))]),
    ])  # fmt: skip
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    length = np.concatenate([rng.uniform(20, 55, ducts), rng.uniform(9, 32, ligaments), rng.uniform(40, 80, vessels)])
    sigma = np.concatenate([
        rng.uniform(0.25, 0.5, ducts), rng.uniform(0.18, 0.40, ligaments), rng.uniform(0.45, 0.8, vessels)
    ])  # fmt: skip
    weight = np.concatenate([
        rng.uniform(0.15, 0.5, ducts), rng.uniform(0.12, 0.55, ligaments), rng.uniform(0.2, 0.4, vessels)
    ]) * patient.strands  # fmt: skip
    return threads(rng, start, heading, length, sigma, weight, bend=0.22)


def _specks(rng: np.random.Generator, patient: Patient) -> Beads:
    """Single benign calcifications, and now and then a small loose group: what a cluster has to be distinguished from."""
    axes = np.asarray(patient.axes)
    alone = _in_breast(rng, int(rng.poisson(5))) * axes
    groups = _in_breast(rng, int(rng.poisson(1.2))) * axes
    grouped = np.repeat(groups, 3, axis=0) + rng.normal(0, 4.0, (3 * len(groups), 3))
    centres = np.concatenate([alone, grouped])
    return _cloud([centres], [rng.uniform(0.16, 0.45, len(centres))], [rng.uniform(0.2, 0.9, len(centres))])


def threads(
    rng: np.random.Generator, start: np.ndarray, heading: np.ndarray, length: np.ndarray, sigma: np.ndarray,
    weight: np.ndarray, *, bend: float, fading: bool = False,
) -> Beads:  # fmt: skip
    """Curved threads as chains of beads. start, heading: (n, 3); length, sigma, weight: (n,), in mm.

    `bend`: sideways excursion as a share of the length. `fading`: thin out towards the end, as spicules do.
    Beads lie SPACING sigmas apart, where their sum is even to 0.5 %: 2 exp(-2 (pi / SPACING)^2).
    """
    counts = np.maximum(2, np.ceil(length / (SPACING * sigma))).astype(int)
    number = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
    t = (step / (counts - 1)[number])[:, None]
    sideways = rng.normal(0, 1, start.shape) * (bend * length)[:, None]
    wave = rng.normal(0, 1, start.shape) * (0.25 * bend * length)[:, None]
    path = start[number] + heading[number] * length[number, None] * t
    path += sideways[number] * t * t + wave[number] * np.sin(2 * np.pi * t)
    strength = weight[number] * rng.uniform(0.75, 1.0, len(number))
    if fading:
        strength = strength * (1 - t[:, 0]) ** 0.6
    # The sum along a straight chain is sqrt(2 pi) / SPACING times one bead.
    return _cloud([path], [sigma[number]], [strength * SPACING / np.sqrt(2 * np.pi)])


def _in_breast(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) uniform points of the unit half ball (x >= 0)."""
    direction = rng.normal(0, 1, (count, 3))
    direction[:, 0] = np.abs(direction[:, 0])
    radius = rng.uniform(0, 1, (count, 1)) ** (1 / 3)
    return 0.95 * radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)


def _cloud(centres: list[np.ndarray], sigmas: list[np.ndarray], weights: list[np.ndarray]) -> Beads:
    return Beads(
        np.concatenate(centres).astype(np.float32),
        np.concatenate(sigmas).astype(np.float32),
        np.concatenate(weights).astype(np.float32),
    )
