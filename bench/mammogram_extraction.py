"""Claim: from full-field DICOM to lesion and healthy patches in at most 1.3 times the bare decoding, and within 1.5 GiB.

40 mammograms of 4,000 x 3,300 at 16 bit, uncompressed, made here: 20 with a lesion, 20 without a finding. `build_patches`
makes 20 lesion and 20 healthy boxes of them, ten times over, each time with an empty cache; in turns, one thread decodes
the same files with `pydicom.dcmread(file).pixel_array` and nothing else. The ratio is extraction's wall time x cores over
decoding's wall time on one core, both summed over all rounds. On a machine that has other work, waiting for a core counts
as extraction: the ratio of processor times, given beside it, is then the one to read.

Memory is the proportional set size of a process of its own that does one more round. The second call finds the patches.

    python -m bench.mammogram_extraction    # writes bench/results/mammogram_extraction.json; 1.1 GB of disk for minutes
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pydicom

from bench.dicom_images import SHAPE, bare, write
from data_partitions import PatchTask, SplitRule, build_patches
from data_partitions.archives.folder import FolderSource
from models.precision import processor

RESULTS = Path(__file__).parent / "results"
CLAIM_RATIO, CLAIM_GIB, CLAIM_S = 1.3, 1.5, 2.0
TASK = PatchTask(image_size=128)
QUIET = 0.5  # load average above which other work takes cores away, and the wall times say little


def write_folder(folder: Path, images: int) -> list[Path]:
    """Images of as many patients, every second with one lesion of some 15 mm."""
    rng = np.random.default_rng(0)
    rows, lesions = ["image,patient_id,view,laterality"], ["image,x0,y0,x1,y1,type"]
    for number in range(images):
        write(folder / f"{number:02d}.dcm", number)
        rows.append(f"{number:02d}.dcm,p{number:02d},MLO,L")
        if number % 2 == 0:
            x, y = rng.integers(300, 1200), rng.integers(1200, 2400)
            width, height = rng.integers(120, 300, 2)
            lesions.append(f"{number:02d}.dcm,{x},{y},{x + width},{y + height},mass")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "lesions.csv").write_text("\n".join(lesions) + "\n")
    return sorted(folder.glob("*.dcm"))


def extract(folder: Path, cache: Path) -> int:
    """Number of boxes, lesions and healthy."""
    source = FolderSource(path=folder, lesions="lesions.csv")
    patches = build_patches(source, TASK, SplitRule(), centre="A", seed=0, cache=cache)
    return sum(n for labels in patches.counts().values() for n in labels.values())


def decode(files: list[Path]) -> None:
    """The bare decoding: each picture is given up before the next."""
    for file in files:
        bare(file)


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of all threads."""
    wall, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - used


def peak_bytes(folder: Path, cache: Path) -> int:
    """Largest proportional set size of a process that extracts, looked at every 20 ms."""
    other = multiprocessing.get_context("spawn").Process(target=extract, args=(folder, cache))
    other.start()
    process, peak = psutil.Process(other.pid), 0
    while other.is_alive():
        try:
            peak = max(peak, process.memory_full_info().pss)
        except psutil.Error:  # it has just ended
            break
        time.sleep(0.02)
    other.join()
    assert other.exitcode == 0
    return peak


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=40)
    arguments.add_argument("--rounds", type=int, default=10)
    options = arguments.parse_args()
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        (folder := Path(name) / "archive").mkdir()
        files = write_folder(folder, options.images)
        timed(lambda: decode(files))  # all files are in the page cache from here on
        decoding, extraction = np.zeros(2), np.zeros(2)
        for number in range(options.rounds):
            cache = Path(name) / f"cache{number}"
            decoding += timed(lambda: decode(files))
            extraction += timed(lambda cache=cache: extract(folder, cache))
        second = timed(lambda: extract(folder, cache))[0]
        boxes = extract(folder, cache)
        assert boxes == options.images, boxes  # a lesion box in every second image, a healthy one in each of the others
        memory = peak_bytes(folder, Path(name) / "memory")
    read = options.images * options.rounds
    wall_ratio, used_ratio = float(extraction[0] * cores / decoding[0]), float(extraction[1] / decoding[1])
    loaded = load > QUIET
    result = {
        "question": "full-field DICOM to patches, in times of the bare decoding on one core",
        "ratio_wall_x_cores": round(wall_ratio, 3), "ratio_processor": round(used_ratio, 3),
        "claimed_ratio": CLAIM_RATIO, "cores": cores, "cores_used": round(float(extraction[1] / extraction[0]), 2),
        "extraction_s_per_image": round(float(extraction[0] / read), 4),
        "decoding_s_per_image": round(float(decoding[0] / read), 4),
        "peak_pss_gib": round(memory / 2**30, 3), "claimed_gib": CLAIM_GIB,
        "second_call_s": round(second, 3), "claimed_second_call_s": CLAIM_S,
        "images": options.images, "rounds": options.rounds, "boxes": boxes, "shape": list(SHAPE),
        "load_average_before": round(load, 2), "loaded": loaded, "processor": processor(),
        "pydicom": pydicom.__version__, "numpy": np.__version__,
    }  # fmt: skip
    print(
        f"extraction {result['extraction_s_per_image']} s an image on {cores} cores, decoding {result['decoding_s_per_image']} s "
        f"on one: ratio {wall_ratio:.2f} (wall x cores), {used_ratio:.2f} (processor); peak {memory / 2**30:.2f} GiB; "
        f"second call {second:.2f} s"
        + (f"\nload average {load:.1f} before the start: other work disturbed the wall times" if loaded else "")
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "mammogram_extraction.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
