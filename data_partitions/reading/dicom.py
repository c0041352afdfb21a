"""DICOM files of projection X-ray: pixels at full depth, the header that a study needs, and the image a reader sees.

The grey value on a screen is made in three steps (DICOM PS3.3, C.11 and C.7.6.3.1.2): the modality transform (rescale
slope and intercept, or a table) gives physical values; the value-of-interest transform (a window, or a table) picks the
range that is shown; MONOCHROME1 means that low values are bright, so the result is inverted. Where a file has no usable
window, its own smallest and largest value take its place.

Mammograms come from thirty years of devices: tags may be missing or empty, and text may be burnt into the pixels. A
missing tag is not a fault as long as the pixels can be decoded. Truncated pixels, colour and several frames are faults.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, apply_voi, get_decoder
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scipy.special import expit

EXTENSIONS = (".dcm", ".dicom")
EXTRA = "dicom-codecs"
GREY = ("MONOCHROME1", "MONOCHROME2")


class BadDicom(ValueError):
    """A file whose pixels cannot be used: `code` is bad_image, bad_photometric or missing_decoder."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class DicomHeader:
    """What a header says; "" or None where a tag is missing.

    spacing_mm: of a pixel, from PixelSpacing or else ImagerPixelSpacing (on the detector: the breast is some 5 to 10 %
    smaller); None where both are missing, zero or not square. scanner: manufacturer and model. intent: "FOR PRESENTATION"
    (what a reader sees) or "FOR PROCESSING" (raw). age_years: of the patient.
    """

    shape: tuple[int, int]
    photometric: str
    spacing_mm: float | None
    scanner: str
    laterality: str
    view: str
    intent: str
    age_years: float | None


@dataclass(frozen=True)
class DicomPixels:
    """Values of one image after the modality transform, and how they are shown.

    values: (height, width), uint8 or uint16 as stored, or float32 where a rescale, a sign or a table made them so.
    shown: float32 (height, width) in [0, 1] after the value-of-interest transform; 1 is bright (dense tissue).
    """

    header: DicomHeader
    values: np.ndarray
    shown: np.ndarray

    def levels(self, dtype: np.dtype) -> np.ndarray:
        """uint8 or uint16 (height, width): black is 0, white the largest value."""
        return np.rint(self.shown * np.float32(np.iinfo(dtype).max)).astype(dtype)


def read_header(path: Path) -> DicomHeader:
    """The header alone: no pixel is read. Raises BadDicom."""
    return _header(parsed(path, stop_before_pixels=True))


def greyscale_header(dataset: pydicom.Dataset) -> DicomHeader:
    """The header of a single grey image whose decoder is installed. Raises BadDicom."""
    header = _header(dataset)
    if header.photometric not in GREY:
        raise BadDicom(
            "bad_photometric",
            f"has the photometric interpretation {header.photometric!r}; expected {' or '.join(GREY)}: export the grey "
            "image instead of a screenshot",
        )
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise BadDicom("bad_image", f"has {frames} frames; expected one projection: export the images one by one")
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise BadDicom(
            "bad_image", f"is compressed as {syntax.name}, which is not for images; export it again"
        ) from None
    if not decoder.is_available:
        raise BadDicom(
            "missing_decoder",
            f"is compressed as {syntax.name}; install its decoder: pip install 'polycentre[{EXTRA}]'",
        )
    return header


def shown_pixels(
    stored: np.ndarray, dataset: pydicom.Dataset, extremes: tuple[float, float] | None = None
) -> DicomPixels:
    """Stored values, transformed and as they are shown.

    extremes: smallest and largest value of the image after the modality transform, used where the file has no window; None:
    those of `stored`.
    """
    header = _header(dataset)
    values = rescaled(stored, dataset)
    shown = _shown(values, dataset, extremes)
    return DicomPixels(header, values, 1 - shown if header.photometric == "MONOCHROME1" else shown)


def parsed(path: Path | BinaryIO, *, stop_before_pixels: bool) -> pydicom.Dataset:
    """The data set of a file. With `stop_before_pixels` an open file is left at its pixels. Raises BadDicom."""
    try:
        # force: old files are DICOM without the preamble; the checks below reject everything else.
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=stop_before_pixels)
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    except Exception as error:  # pydicom raises what the bytes make it raise: struct.error, KeyError, EOFError, ...
        raise BadDicom("bad_image", f"is not a DICOM file that can be read ({error}); copy it again") from error
    if not rows or not columns:
        raise BadDicom("bad_image", "is not a DICOM image (no Rows and Columns); copy it again or drop its row")
    if not dataset.get("PhotometricInterpretation") and int(dataset.get("SamplesPerPixel") or 1) == 1:
        dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.SamplesPerPixel = dataset.get("SamplesPerPixel") or 1
    dataset.PixelRepresentation = dataset.get("PixelRepresentation") or 0
    if not getattr(dataset, "file_meta", None):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset


def stored_values(dataset: pydicom.Dataset) -> np.ndarray:
    """Pixel values as stored, (height, width). Raises BadDicom."""
    try:
        return np.asarray(dataset.pixel_array)
    except Exception as error:  # each decoder has errors of its own kind
        raise BadDicom("bad_image", f"does not decode ({error}); copy the file again or drop its row") from error


def rescaled(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """The modality transform: values as stored where the file asks for none, else float32."""
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    if dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(stored, dataset).astype(np.float32)
    if slope is not None and intercept is not None and (slope, intercept) != (1.0, 0.0):
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return stored if stored.dtype in (np.uint8, np.uint16) else stored.astype(np.float32)


def is_windowed(dataset: pydicom.Dataset) -> bool:
    """Whether the file says which values are shown; otherwise its own smallest and largest do."""
    return bool(dataset.get("VOILUTSequence")) or _window(dataset) is not None


def _window(dataset: pydicom.Dataset) -> tuple[str, float, float] | None:
    """Function, centre and width; None where the file has no usable window."""
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return None
    return function, centre, width


def _shown(values: np.ndarray, dataset: pydicom.Dataset, extremes: tuple[float, float] | None = None) -> np.ndarray:
    """float32 in [0, 1]: the table or the window of the file applied, or its own range."""
    if dataset.get("VOILUTSequence"):
        table = dataset.VOILUTSequence[0]
        top = 2 ** int(table.LUTDescriptor[2]) - 1
        # A table is looked up by whole numbers.
        looked_up = apply_voi(np.rint(values).astype(np.int32), dataset)
        return np.clip(looked_up.astype(np.float32) / np.float32(top), 0, 1)
    window, grey = _window(dataset), values.astype(np.float32)
    if window is not None:
        function, centre, width = window
        if function == "SIGMOID":
            return expit(4 * (grey - np.float32(centre)) / np.float32(width))
        if function == "LINEAR":  # its steps count whole values, from the middle of the first to that of the last
            centre, width = centre - 0.5, width - 1
        return np.clip((grey - np.float32(centre)) / np.float32(width) + np.float32(0.5), 0, 1)
    low, high = extremes or (float(grey.min()), float(grey.max()))
    return np.clip((grey - np.float32(low)) / np.float32(high - low if high > low else 1), 0, 1)


def _header(dataset: pydicom.Dataset) -> DicomHeader:
    return DicomHeader(
        shape=(int(dataset.Rows), int(dataset.Columns)),
        photometric=str(dataset.get("PhotometricInterpretation") or ""),
        spacing_mm=_spacing(dataset),
        scanner=" ".join(text for text in (_text(dataset, "Manufacturer"), _text(dataset, "ManufacturerModelName")) if text),
        laterality=_text(dataset, "ImageLaterality") or _text(dataset, "Laterality"),
        view=_text(dataset, "ViewPosition"),
        intent=_text(dataset, "PresentationIntentType"),
        age_years=_age(_text(dataset, "PatientAge")),
    )  # fmt: skip


def _spacing(dataset: pydicom.Dataset) -> float | None:
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            down, across = (float(value) for value in dataset.get(name) or ())
        except (TypeError, ValueError):  # missing, one number, or no numbers
            continue
        if down > 0 and abs(down - across) <= 0.01 * down:
            return down
    return None


def _age(text: str) -> float | None:
    """Years of an age such as 059Y, 018M or 010W."""
    number, unit = text[:-1], text[-1:]
    per_year = {"Y": 1, "M": 12, "W": 52, "D": 365}
    return int(number) / per_year[unit] if number.isdigit() and unit in per_year else None


def _number(dataset: pydicom.Dataset, name: str) -> float | None:
    """The first value of a tag that may hold several; None without one."""
    value: Any = dataset.get(name)
    try:
        number = float(value[0] if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _text(dataset: pydicom.Dataset, name: str) -> str:
    return str(dataset.get(name) or "").strip()
