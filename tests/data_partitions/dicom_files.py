"""Writes DICOM files of invented pixels, and reads whole ones step by step, to compare `DicomImage` with."""

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from data_partitions.reading.dicom import DicomPixels, greyscale_header, parsed, shown_pixels, stored_values


def write_dicom(path: Path, pixels: np.ndarray, drop: tuple[str, ...] = (), **tags) -> Path:
    """`pixels` (height, width), unsigned 8 or 16 bit or signed 16 bit, uncompressed. tags: more of them, or others."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    bits = pixels.dtype.itemsize * 8
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality = "MG"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes() + b"\0" * (pixels.nbytes % 2)
    for name in drop:
        delattr(dataset, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format="TransferSyntaxUID" not in drop)
    return path


def read_dicom(path: Path) -> DicomPixels:
    """One image at full depth and as it is shown. Raises BadFile."""
    dataset = parsed(path, stop_before_pixels=False)
    greyscale_header(dataset)
    return shown_pixels(stored_values(dataset), dataset)
