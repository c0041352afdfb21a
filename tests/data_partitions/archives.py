"""Small archives in the true layout of each public collection, with invented pixels: one function per archive.

Each returns the folder to name as `path` in a scenario. File names, columns and codes are those of the real archives;
sizes, numbers and pictures are made up. `breast` is bright on dark, so that healthy boxes find a place.
"""

import csv
import plistlib
from pathlib import Path

import numpy as np
from dicom_files import write_dicom

SHAPE = (240, 200)


def breast(seed: int, shape: tuple[int, int] = SHAPE, top: int = 4095, right: bool = False) -> np.ndarray:
    """uint16: a half disc of noisy tissue at the left (or right) edge on a dark ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    body = np.hypot((y - shape[0] / 2) / (0.45 * shape[0]), x / (0.8 * shape[1])) < 1
    grey = np.where(body, 0.5 + 0.1 * rng.standard_normal(shape), 0.01)
    pixels = np.clip(grey * top, 0, top).astype(np.uint16)
    return np.ascontiguousarray(pixels[:, ::-1]) if right else pixels


def square(top: float, left: float, side: float, points: int = 5) -> list[tuple[float, float]]:
    """(x, y) points along the outline of a square, corners first."""
    corners = [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]
    return (corners * points)[: max(4, points)]


def write_csv(path: Path, rows: list[dict], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


# --- INbreast


def inbreast_region(name: str, points: list[tuple[float, float]], **changes) -> dict:
    """One outline as OsiriX writes it: Point_mm is all zeros in the archive."""
    return {
        "Area": 0.7, "Center": "(0.000000, 0.000000, 0.000000)", "IndexInImage": 0, "Name": name,
        "NumberOfPoints": len(points), "Point_mm": ["(0.000000, 0.000000, 0.000000)"] * len(points),
        "Point_px": [f"({x:f}, {y:f})" for x, y in points], "Type": 15,
    } | changes  # fmt: skip


def write_inbreast_outlines(folder: Path, name: str, regions: list[dict]) -> None:
    (folder / "AllXML").mkdir(parents=True, exist_ok=True)
    images = [{"ImageIndex": 0, "NumberOfROIs": len(regions), "ROIs": regions}]
    (folder / "AllXML" / f"{name}.xml").write_bytes(plistlib.dumps({"Images": images}))


def inbreast_row(number: int, laterality: str, view: str, acr: str, birads: str) -> dict:
    return {
        "Patient ID": "removed", "Patient age": "removed", "Laterality": laterality, "View": view,
        "Acquisition date": "201001", "File Name": str(number), "ACR": acr, "Bi-Rads": birads, "Mass ": "", "Micros": "",
    }  # fmt: skip


def write_inbreast(folder: Path, patients: int = 8, table: bool = True) -> Path:
    """Patients with two breasts, CC and MLO; every second has a mass with a calcification, the others are BI-RADS 1."""
    root = folder / "INbreast Release 1.0"
    rows = []
    for patient in range(patients):
        sick = patient % 2
        for place, (side, view) in enumerate((s, v) for s in "LR" for v in ("CC", "MLO")):
            number = 20586900 + 10 * patient + place
            found = sick and side == "L"
            rows.append(
                inbreast_row(
                    number, side, view, str(1 + patient % 4), ("5" if patient % 4 == 1 else "2") if found else "1"
                )
            )
            code = f"{0x6C613A14B80A8591 + patient:x}"
            write_dicom(
                root / "AllDICOMs" / f"{number}_{code}_MG_{side}_{'ML' if view == 'MLO' else view}_ANON.dcm",
                breast(number, right=side == "R"), BitsStored=14, HighBit=13, ImagerPixelSpacing=[0.07, 0.07],
                Manufacturer="SIEMENS", ManufacturerModelName="MammoNovation", WindowCenter=2048, WindowWidth=4096,
            )  # fmt: skip
            if found:
                regions = [
                    inbreast_region("Mass", square(100.25, 40.5, 30)), inbreast_region("Calcification", [(60.5, 60.25)]),
                    inbreast_region("Cluster", square(150.5, 60.5, 12)),
                ]  # fmt: skip
                write_inbreast_outlines(root, str(number), regions)
    if table:
        write_csv(root / "INbreast.csv", rows, delimiter=";")
    return root
