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
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scipy.special import expit

from basics.words import one_line
from data_partitions.errors import BadFile
from data_partitions.reading.dicom_bits import check_surplus, is_padding, padding, stored_bits
from data_partitions.reading.dicom_size import is_magnified
from data_partitions.reading.dicom_size import spacing as pixel_spacing
from data_partitions.reading.dicom_tables import Table, table
from data_partitions.reading.dicom_tags import LONGEST, number, text, whole
from data_partitions.reading.label_words import is_digits
from data_partitions.reading.limits import DEFAULT, Limits
from data_partitions.reading.opening import brief, check_bytes, check_frames, check_pixels, guarded

EXTRA = "dicom-codecs"
GREY = ("MONOCHROME1", "MONOCHROME2")
RAW = "FOR PROCESSING"
LATERALITY = ("ImageLaterality", "FrameLaterality", "Laterality")
# Groups of an enhanced object and the tags that they hold in place of the data set.
FRAME_GROUPS = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    "FrameAnatomySequence": ("FrameLaterality",),
}


@dataclass(frozen=True)
class DicomHeader:
    """What a header says; "" or None where a tag is missing.

    spacing_mm: of a pixel in the patient; None where it is missing, zero or not square. Without a magnification factor it is
    that on the detector, where the breast is some 5 to 10 % larger. scanner: manufacturer and model. intent: "FOR
    PRESENTATION" (what a reader sees) or "FOR PROCESSING" (raw). age_years: of the patient. study: its UID. magnified: a
    magnification view. facts: what was changed or is doubtful, by the names in `facts`.
    """

    shape: tuple[int, int]
    photometric: str
    spacing_mm: float | None
    scanner: str
    laterality: str
    view: str
    intent: str
    age_years: float | None
    study: str = ""
    magnified: bool = False
    facts: tuple[str, ...] = ()


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


def read_header(path: Path, limits: Limits = DEFAULT) -> DicomHeader:
    """The header alone: no pixel is read. Raises BadFile."""
    check_bytes(path, limits)
    with guarded():
        return _header(parsed(path, stop_before_pixels=True))


def greyscale_header(dataset: pydicom.Dataset, limits: Limits = DEFAULT) -> DicomHeader:
    """The header of a single grey image whose decoder is installed. Raises BadFile."""
    header = _header(dataset)
    if header.photometric not in GREY:
        raise BadFile(
            "bad_photometric",
            f"has the photometric interpretation {header.photometric!r}; expected {' or '.join(GREY)}: export the grey "
            "image instead of a screenshot",
        )
    check_pixels(*header.shape, limits)
    check_frames(int(dataset.get("NumberOfFrames") or 1), limits)
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise BadFile(
            "bad_image", f"is compressed as {one_line(syntax.name, LONGEST)}, which is not for images; export it again"
        ) from None
    if not decoder.is_available:
        raise BadFile(
            "missing_decoder",
            f"is compressed as {syntax.name}; install its decoder: pip install 'polycentre[{EXTRA}]'",
        )
    return header


def shown_pixels(
    stored: np.ndarray, dataset: pydicom.Dataset, extremes: tuple[float, float] | None = None
) -> DicomPixels:
    """Stored values, transformed and as they are shown.

    extremes: smallest and largest value of the image after the modality transform, used where the file has no window; None:
    those of `stored` without padding.
    """
    header = _header(dataset)
    values, padded = rescaled(stored, dataset), padding(dataset)
    outside = np.zeros(stored.shape, dtype=bool) if padded is None else is_padding(stored, padded)
    if extremes is None and not is_windowed(dataset):
        inside = values[~outside] if padded is not None else values
        extremes = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)
    shown = _shown(values, dataset, extremes)
    shown = 1 - shown if header.photometric == "MONOCHROME1" else shown
    return DicomPixels(header, values, np.where(outside, np.float32(0), shown) if padded is not None else shown)


def parsed(path: Path | BinaryIO, *, stop_before_pixels: bool) -> pydicom.Dataset:
    """The data set of a file. With `stop_before_pixels` an open file is left at its pixels. Raises BadFile."""
    try:
        # force: old files are DICOM without the preamble; the checks below reject everything else.
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=stop_before_pixels)
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        _fill_from_first_frame(dataset)
    except Exception as error:  # pydicom raises what the bytes make it raise: struct.error, KeyError, EOFError, ...
        raise BadFile("bad_image", f"is not a DICOM file that can be read ({brief(error)}); copy it again") from error
    if rows <= 0 or columns <= 0:
        raise BadFile("bad_image", "is not a DICOM image (no Rows and Columns); copy it again or drop its row")
    dataset.SamplesPerPixel = dataset.get("SamplesPerPixel") or 1
    dataset.PixelRepresentation = dataset.get("PixelRepresentation") or 0
    if not getattr(dataset, "file_meta", None):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset


def _fill_from_first_frame(dataset: pydicom.Dataset) -> None:
    """Tags that an enhanced object keeps per frame, or shared by all frames, into the data set that has none of them."""
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in list(dataset.get(name) or ())[:1]:
            for group, tags in FRAME_GROUPS.items():
                for item in list(groups.get(group) or ())[:1]:
                    for tag in tags:
                        if tag in item and tag not in dataset:
                            setattr(dataset, tag, item[tag].value)


def stored_values(dataset: pydicom.Dataset) -> np.ndarray:
    """Pixel values of the first frame as stored, (height, width). Raises BadFile."""
    where = stored_bits(dataset)
    if where.below:
        raise BadFile(
            "bad_image",
            f"has HighBit {where.high} with {where.stored} bits stored in compressed pixels, which decoders read in different "
            "ways; export it uncompressed",
        )
    if "PixelData" in dataset and not dataset.file_meta.TransferSyntaxUID.is_compressed:
        check_surplus(dataset, len(dataset.PixelData))
    if not text(dataset, "PhotometricInterpretation"):  # decoders ask for it; see `_header`
        dataset.PhotometricInterpretation = "MONOCHROME2"
    with guarded():  # each decoder has errors of its own kind
        found = np.asarray(pixel_array(dataset, index=0))
        if found.shape != (int(dataset.Rows), int(dataset.Columns)):
            raise ValueError(
                f"the pixels are {found.shape}, and Rows and Columns say {dataset.Rows} x {dataset.Columns}"
            )
        return found


def rescaled(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """The modality transform: values as stored where the file asks for none, else float32."""
    with guarded("bad_image", "has a modality LUT that cannot be used", "export it again"):
        modality = table(dataset, "ModalityLUTSequence")
        if modality is not None:
            return modality.of(stored)
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope is not None and intercept is not None and (slope, intercept) != (1.0, 0.0):
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return stored if stored.dtype in (np.uint8, np.uint16) else stored.astype(np.float32)


def is_windowed(dataset: pydicom.Dataset) -> bool:
    """Whether the file says which values are shown; otherwise its own smallest and largest do."""
    return bool(dataset.get("VOILUTSequence")) or _window(dataset) is not None


def _window(dataset: pydicom.Dataset) -> tuple[str, float, float] | None:
    """Function, centre and width; None where the file has no usable window."""
    centre, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return None
    return function, centre, width


def _shown(values: np.ndarray, dataset: pydicom.Dataset, extremes: tuple[float, float] | None = None) -> np.ndarray:
    """float32 in [0, 1]: the table or the window of the file applied, or its own range."""
    voi = _voi_table(dataset)
    if voi is not None:
        return voi.of(values) / np.float32(2**voi.bits - 1)
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


def _voi_table(dataset: pydicom.Dataset) -> Table | None:
    with guarded("bad_image", "has a VOI LUT that cannot be used", "export it again"):
        return table(dataset, "VOILUTSequence")


def _header(dataset: pydicom.Dataset) -> DicomHeader:
    spacing, facts = pixel_spacing(dataset)
    photometric = text(dataset, "PhotometricInterpretation")
    if not photometric and int(dataset.SamplesPerPixel) == 1:
        photometric = "MONOCHROME2"
        facts.append("photometric_missing")
    if (number(dataset, "RescaleSlope") is None) != (number(dataset, "RescaleIntercept") is None):
        facts.append("rescale_incomplete")
    if text(dataset, "BurnedInAnnotation").upper() == "YES":
        facts.append("burnt_in")
    voi = _voi_table(dataset)
    if voi is not None:
        facts += ["lut_bits"] if voi.bits != voi.announced else []
    elif _window(dataset) is None:
        facts.append("no_window")
    if whole(dataset, "PixelPaddingValue") is not None and padding(dataset) is None:
        facts.append("padding_impossible")
    if stored_bits(dataset).below:
        facts.append("shifted_bits")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        facts.append("further_pages")
    return DicomHeader(
        shape=(int(dataset.Rows), int(dataset.Columns)),
        photometric=photometric,
        spacing_mm=spacing,
        scanner=" ".join(filter(None, (text(dataset, tag) for tag in ("Manufacturer", "ManufacturerModelName")))),
        laterality=next((side for tag in LATERALITY if (side := text(dataset, tag))), ""),
        view=text(dataset, "ViewPosition"),
        intent=text(dataset, "PresentationIntentType"),
        age_years=_age(text(dataset, "PatientAge")),
        study=text(dataset, "StudyInstanceUID"),
        magnified=is_magnified(dataset),
        facts=tuple(facts),
    )  # fmt: skip


def _age(text: str) -> float | None:
    """Years of an age such as 059Y, 018M or 010W."""
    number, unit = text[:-1], text[-1:]
    per_year = {"Y": 1, "M": 12, "W": 52, "D": 365}
    return int(number) / per_year[unit] if is_digits(number) and unit in per_year else None
