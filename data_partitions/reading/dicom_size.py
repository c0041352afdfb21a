"""The size of a DICOM pixel in the patient, and magnification views (PS3.3, 10.7.1.3)."""

from __future__ import annotations

import numpy as np
import pydicom

from data_partitions.reading.dicom_tags import number, text

# Codes of a view modifier for magnification: SNOMED CT, and the older SNOMED RT.
MAGNIFICATION = frozenset(("399163009", "R-102D6"))
MAGNIFIED = 1.3  # contact views have a factor of 1.0 to 1.1, magnification views 1.5 to 2


def spacing(dataset: pydicom.Dataset) -> tuple[float | None, list[str]]:
    """Size of a pixel in mm, and facts about it (PS3.3, 10.7.1.3)."""
    (given, first), (imager, second) = (_square_side(dataset, name) for name in ("PixelSpacing", "ImagerPixelSpacing"))
    found, facts = _size(dataset, given, imager)
    if "oblong" in (first, second):  # what the other tag says is then doubtful, too
        found, facts = None, []
    return found, facts + (["spacing_unusable"] if first or second else [])


def _size(dataset: pydicom.Dataset, given: float | None, imager: float | None) -> tuple[float | None, list[str]]:
    calibrated = text(dataset, "PixelSpacingCalibrationType").upper() in ("GEOMETRY", "FIDUCIAL")
    differs = given is not None and imager is not None and abs(given - imager) > 0.001 * imager
    if given is not None and (calibrated or differs):  # in the patient, whether the file says so or not
        return given, [] if calibrated else ["spacing_uncalibrated"]
    detector, factor = given or imager, number(dataset, "EstimatedRadiographicMagnificationFactor")
    if detector is None or factor is None or not 1 < factor <= 10:
        return detector, []
    return detector / factor, ["spacing_magnified"]


def _square_side(dataset: pydicom.Dataset, name: str) -> tuple[float | None, str]:
    """Side of a square pixel, and what is wrong with a tag that gives another size or none: "oblong" or "no size"."""
    value = dataset.get(name)
    if value is None or value == "":
        return None, ""
    try:
        down, across = (float(value) for value in value)
    except (TypeError, ValueError):  # one number, or no numbers
        return None, "no size"
    if not (np.isfinite((down, across)).all() and down > 0 and across > 0):
        return None, "no size"
    return (down, "") if abs(down - across) <= 0.01 * down else (None, "oblong")


def is_magnified(dataset: pydicom.Dataset) -> bool:
    modifiers = [
        modifier
        for view in (dataset, *(dataset.get("ViewCodeSequence") or ()))
        for modifier in view.get("ViewModifierCodeSequence") or ()
    ]
    factor = number(dataset, "EstimatedRadiographicMagnificationFactor")
    return any(str(modifier.get("CodeValue")) in MAGNIFICATION for modifier in modifiers) or (
        factor is not None and factor >= MAGNIFIED
    )
