"""One view of a phantom breast: what the X-ray meets at each place of a window, before any scanner sees it.

A view is a linear map from the body to the detector. CC looks from above: rows are the lateral axis. MLO looks at 45
degrees: rows mix the lateral and the vertical axis, upwards first, and the pectoral muscle covers the upper chest wall.
Columns are depth in both, so a lesion lies at one depth in both views. Chest wall at column 0.

Large structures are projections of the shared cloud of beads. Fine texture is drawn for each view apart: by the central
slice theorem two projections of a random field share one line of their spectra only, so they look unrelated anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from basics.seeds import stream
from data_partitions.phantom.anatomy import Finding, Patient, grow_tissue, threads
from data_partitions.phantom.fields import Beads, Octaves, smoothstep

VIEWS = ("CC", "MLO")
DIAGONAL = float(np.sqrt(0.5))
# (row, column) in mm = matrix @ (x, y, z) in mm; rows grow downwards, away from the axilla in MLO.
PROJECTIONS = {
    "CC": np.array([[0, 1, 0], [1, 0, 0]], dtype=np.float32),
    "MLO": np.array([[0, DIAGONAL, -DIAGONAL], [1, 0, 0]], dtype=np.float32),
}
SKIN = 1.05  # the skin lies this much outside the tissue's ellipsoid
FALL_OFF_MM = 24.0  # a compressed breast thins over this distance from its edge
CONTOUR_POINTS = 48

# How a mass bulges: amplitude of the harmonics 2 .. 11 of its outline, and the share of its profile that is a soft
# halo.
ROUGHNESS = {
    "round": 0.04, "oval": 0.05, "lobulated": 0.13, "microlobulated": 0.06, "irregular": 0.17, "spiculated": 0.08,
}  # fmt: skip
SOFTNESS = {
    "round": 0.12, "oval": 0.12, "lobulated": 0.18, "microlobulated": 0.25, "irregular": 0.45, "spiculated": 0.40,
}  # fmt: skip


@dataclass(frozen=True)
class Outline:
    """Star-shaped outline of a lesion in a view: radius in mm as a Fourier series of the angle."""

    finding: Finding
    view: str

    @property
    def centre(self) -> np.ndarray:
        """(2,) row and column in mm."""
        return PROJECTIONS[self.view] @ self.finding.centre

    def radius(self, angle: np.ndarray) -> np.ndarray:
        """Radius in mm at these angles, float32 of their shape."""
        finding = self.finding
        if finding.kind != "mass":
            return np.full_like(angle, finding.radius_mm * (1.1 if finding.kind == "calcification" else 1.4))
        rng = stream(finding.seed, "outline", self.view)
        series = np.ones_like(angle)
        fine = finding.shape in ("microlobulated", "irregular")
        for harmonic in range(2, 12):
            strong = 1.8 if (finding.shape, harmonic in (3, 4)) == ("lobulated", True) else 1.0
            height = ROUGHNESS[finding.shape] * strong * rng.normal() / (harmonic - 1) ** (0.35 if fine else 1.0)
            series += np.float32(height) * np.cos(harmonic * angle + np.float32(rng.uniform(0, 2 * np.pi)))
        flat = rng.uniform(0.62, 0.8) if finding.shape == "oval" else rng.uniform(0.82, 1.0)
        tilted = angle - np.float32(rng.uniform(0, np.pi))
        ellipse = flat / np.sqrt((flat * np.cos(tilted)) ** 2 + np.sin(tilted) ** 2)
        return (finding.radius_mm * np.clip(series * ellipse, 0.45, 1.8)).astype(np.float32)

    def points(self) -> np.ndarray:
        """float32 (CONTOUR_POINTS, 2): the outline's (row, column) in mm."""
        angle = np.linspace(0, 2 * np.pi, CONTOUR_POINTS, endpoint=False, dtype=np.float32)
        return self.centre + self.radius(angle)[:, None] * np.column_stack([np.sin(angle), np.cos(angle)])


class ViewOfBreast:
    """Everything that one projection of one breast needs, ready to be evaluated on windows."""

    def __init__(self, patient: Patient, laterality: str, view: str) -> None:
        matrix = PROJECTIONS[view]
        tissue = grown(patient, laterality)
        rng = stream(patient.seed, "view", laterality, view)
        self.patient = patient
        self.shape = silhouette(patient, view)
        self.gland = tissue.gland.projected(matrix)
        self.strands = tissue.strands.projected(matrix)
        self.specks = tissue.specks.projected(matrix)
        self.texture = Octaves(coarsest_mm=14.0, count=6, exponent=0.5, rng=rng)
        self.lesions = [
            (finding, Outline(finding, view), lesion_beads(finding).projected(matrix))
            for finding in patient.sites[laterality] if not finding.sham
        ]  # fmt: skip

    def attenuation(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """float32 (len(rows), len(columns)), about 0 .. 1.2: what lies at these coordinates in mm."""
        octaves = self.texture.on(rows, columns)
        coarse, fine = octaves[0] + octaves[1] + octaves[2], octaves[3] + octaves[4] + octaves[5]
        texture = coarse + fine
        depth = self.shape.depth(rows, columns)
        inside = np.clip(depth / FALL_OFF_MM, 0, 1)
        thickness = 1 - (1 - inside) ** 3
        # Gland and fat meet at a level of the summed lobes that the texture moves, so their border is scalloped.
        gland = self.gland.on(rows, columns) * (1 + 0.22 * texture) + 0.09 * coarse
        gland = smoothstep(gland, 0.0, 1.7) * smoothstep(depth, 3, 14)
        strands = self.strands.on(rows, columns) * smoothstep(depth, 1.5, 8)
        picture = 0.25 + 0.035 * texture + gland * (0.34 + 0.07 * texture) + strands * (0.10 + 0.07 * gland)
        picture += self.specks.on(rows, columns) * np.float32(0.20) * smoothstep(depth, 2, 6)
        for finding, outline, beads in self.lesions:
            picture += finding.contrast * _lesion(finding, outline, beads, rows, columns, texture)
        picture *= thickness
        skin = np.exp(-(((depth - 0.9) / 0.8) ** 2)) * np.float32(0.09)
        picture = (picture + skin) * smoothstep(depth, -0.3, 0.3)
        muscle = self.shape.muscle(rows, columns)
        if muscle is not None:
            picture = picture * (1 - muscle) + muscle * (0.40 + 0.05 * texture + 0.22 * picture)
        return picture


@dataclass(frozen=True)
class Silhouette:
    """Outline of the breast, and of the pectoral muscle, in a view. All in mm; rows count from the nipple's level."""

    half_height: float
    depth_mm: float
    muscle_width: float
    muscle_end: float

    def depth(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """float32 (rows, columns): distance under the skin in mm to first order; negative outside."""
        r, c = rows.astype(np.float32)[:, None], columns.astype(np.float32)[None]
        reach = self.depth_mm + 5.0 * np.exp(-((r / 4.0) ** 2))  # with the nipple
        height = np.abs(r) / self.half_height
        level = 1 - height**2.2 - (c / reach) ** 2
        slope = np.hypot(2.2 * height**1.2 / self.half_height, 2 * c / reach**2)
        return np.clip(level / np.maximum(slope, 1e-3), -60, 200)

    def muscle(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray | None:
        """float32 (rows, columns) in [0, 1], or None where the view shows no muscle."""
        if not self.muscle_width:
            return None
        r, c = rows.astype(np.float32)[:, None], columns.astype(np.float32)[None]
        t = np.clip((self.muscle_end - r) / (self.muscle_end + self.half_height), 0, None)
        return smoothstep(self.muscle_width * t**0.85 - c, -1.0, 2.5) * smoothstep(t, 0.0, 0.08)


def silhouette(patient: Patient, view: str) -> Silhouette:
    """Projection of the patient's ellipsoid, a little larger for skin and fat."""
    depth, lateral, vertical = patient.axes
    if view == "CC":
        return Silhouette(SKIN * lateral, SKIN * depth, 0.0, 0.0)
    half = float(np.sqrt((lateral**2 + vertical**2) / 2))
    rng = stream(patient.seed, "muscle")
    return Silhouette(SKIN * half, SKIN * depth, rng.uniform(0.30, 0.48) * depth, rng.uniform(-0.05, 0.35) * half)


@lru_cache(maxsize=4)
def grown(patient: Patient, laterality: str):
    """Tissue of a breast, kept while its two views are rendered one after the other."""
    return grow_tissue(patient, laterality)


def lesion_beads(finding: Finding) -> Beads:
    """Spicules and calcifications of a lesion as beads in the body; empty for a smooth mass."""
    rng = stream(finding.seed, "lesion")
    if finding.kind == "calcification":
        count = int(rng.integers(10, 30) if finding.malignant else rng.integers(5, 13))
        stretch = np.array((1.0, 0.45, 0.45) if finding.malignant else (0.8, 0.8, 0.8))
        turn = np.linalg.qr(rng.normal(0, 1, (3, 3)))[0]
        offsets = np.clip(rng.normal(0, 0.42, (count, 3)), -0.95, 0.95) * stretch @ turn * finding.radius_mm
        sigma = rng.uniform(0.12, 0.26, count) if finding.malignant else rng.uniform(0.2, 0.42, count)
        weight = 0.29 * rng.uniform(0.4, 1.3, count)
        return Beads(*(a.astype(np.float32) for a in (finding.centre + offsets, sigma, weight)))
    count = {"distortion": int(rng.integers(34, 60)), "spiculated": int(rng.integers(26, 48))}.get(
        finding.kind if finding.kind == "distortion" else finding.shape, 0
    )
    heading = rng.normal(0, 1, (count, 3))
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    start = finding.centre + heading * finding.radius_mm * (0.1 if finding.kind == "distortion" else 0.85)
    length = finding.radius_mm * rng.uniform(0.4, 1.5, count)
    sigma = rng.uniform(0.14, 0.34, count)
    return threads(rng, start, heading, length, sigma, rng.uniform(0.02, 0.09, count), bend=0.16, fading=True)


def _lesion(
    finding: Finding, outline: Outline, beads, rows: np.ndarray, columns: np.ndarray, texture: np.ndarray
) -> np.ndarray:
    """float32 (rows, columns): what a lesion of contrast 1 adds."""
    added = beads.on(rows, columns)
    r = rows.astype(np.float32)[:, None] - np.float32(outline.centre[0])
    c = columns.astype(np.float32)[None] - np.float32(outline.centre[1])
    reach = 3 * finding.radius_mm
    near_rows, near_columns = np.nonzero(np.abs(r[:, 0]) < reach)[0], np.nonzero(np.abs(c[0]) < reach)[0]
    if finding.kind == "calcification" or not len(near_rows) or not len(near_columns):
        return added
    part = (slice(near_rows[0], near_rows[-1] + 1), slice(near_columns[0], near_columns[-1] + 1))
    r, c = r[part[0]], c[:, part[1]]
    ratio2 = (r * r + c * c) / outline.radius(np.arctan2(r, c)) ** 2
    if finding.kind == "distortion":
        added[part] += 0.04 * np.exp(-3 * ratio2)
        return added
    soft = SOFTNESS[finding.shape]
    # A dome, as thick as a ball of tissue is, and a halo that falls to 3e-6 at three radii.
    dome = (1 - soft) * np.sqrt(np.clip(1 - 0.92 * ratio2, 0, 1)) * smoothstep(-ratio2, -1.05, -0.9)
    added[part] += 0.185 * (dome + soft * np.exp(-1.6 * ratio2)) * (1 + 0.18 * texture[part])
    return added
