"""What our reading of full-field mammograms costs beside the bare decoder: 40 images of 4,000 x 3,300 at 16 bit.

Ours is `read_image`: header, rescale, window, MONOCHROME1 and rounding to the 8 bits that patches are cut from. The other
is `pydicom.dcmread(file).pixel_array`, which hands over the numbers as stored. Both read the same files, made here, in
turns; the ratio is the median over images.

    python -m bench.dicom_images            # writes bench/results/dicom_images.json; 1.1 GB of disk for a minute
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from data_partitions.reading.image_files import read_image
from models.precision import processor

RESULTS = Path(__file__).parent / "results"
SHAPE = (4000, 3300)


def write(file: Path, seed: int) -> None:
    """A bright half disc of noise on a dark ground, with a window; every second image is MONOCHROME1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    body = np.hypot((y - SHAPE[0] / 2) / (0.45 * SHAPE[0]), x / (0.7 * SHAPE[1])) < 1
    pixels = np.where(body, rng.integers(8000, 40000, SHAPE), 200).astype(np.uint16)
    inverted = bool(seed % 2)
    if inverted:  # around the middle of the window: it is shown as the others are
        pixels = 48000 - pixels
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.Rows, image.Columns = SHAPE
    image.SamplesPerPixel, image.PixelRepresentation = 1, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    image.WindowCenter, image.WindowWidth = 24000, 40000
    image.PixelSpacing = [0.07, 0.07]
    image.PixelData = pixels.tobytes()
    image.save_as(file, enforce_file_format=True)


def seconds(call: Callable[[Path], np.ndarray], file: Path) -> float:
    started = time.process_time()
    pixels = call(file)
    took = time.process_time() - started
    assert pixels.shape[:2] == SHAPE
    return took


def bare(file: Path) -> np.ndarray:
    return pydicom.dcmread(file).pixel_array


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=40)
    images = arguments.parse_args().images
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as name:
        for number in range(images):
            file = Path(name) / f"{number}.dcm"
            write(file, number)
            bare(file)  # both find the file in the page cache
            for call, times in (
                ((read_image, ours), (bare, plain)) if number % 2 else ((bare, plain), (read_image, ours))
            ):
                times.append(seconds(call, file))
            file.unlink()
    ratio = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
    print(
        f"read_image {statistics.median(ours):.3f} s, bare pixel_array {statistics.median(plain):.3f} s an image, "
        f"ratio {ratio:.2f}"
    )
    result = {
        "question": "what a 16-bit mammogram as 8-bit picture costs, in times of its bare decoding", "ratio": round(ratio, 3),
        "ours_median_s": round(statistics.median(ours), 4), "bare_median_s": round(statistics.median(plain), 4),
        "images": images, "shape": list(SHAPE), "time": "processor seconds", "processor": processor(),
        "pydicom": pydicom.__version__, "numpy": np.__version__,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "dicom_images.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
