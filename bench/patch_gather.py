"""Claim: 100,000 stored patches of 128 x 128 are drawn at random and made floats at 20,000 images a second on one thread.

What is timed is what a training step does: `PatchArrays.take` of a random batch from the memory map, then `to_float`. The
patches are made here, written and opened as `build_patches` does. A second process opens the same patches and touches all
of them: memory that it does not share with the first would be a copy.

    python -m bench.patch_gather            # writes bench/results/patch_gather.json; 1.6 GB of disk for a minute
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from data_partitions.patch_dataset import COLUMNS, TEXT, open_patches, write_patches
from models import PatchArrays
from models.patch_arrays import to_float
from models.precision import processor

RESULTS = Path(__file__).parent / "results"
CLAIM = 20_000  # images a second
PATCHES, SIDE, BATCH = 100_000, 128, 64


def write(folder: Path) -> None:
    """Random patches in the format of the cache."""
    pixels = np.random.default_rng(0).integers(0, 256, (PATCHES, 1, SIDE, SIDE), dtype=np.uint8)
    table = pd.DataFrame({name: [""] * PATCHES if name in TEXT else np.zeros(PATCHES, int) for name in COLUMNS})
    write_patches(folder, pixels, table.assign(box=np.arange(PATCHES), split="train"), {})


def opened(folder: Path) -> PatchArrays:
    patches = open_patches(folder)
    return PatchArrays(patches.pixels, patches.index)


def own_memory() -> int:
    """Bytes that no other process shares with this one."""
    return psutil.Process().memory_full_info().uss


def touch(folder: Path, pipe: Connection) -> None:
    """Read every patch in another process, wait until the other has, too, and say how much memory came with it."""
    images = opened(folder)
    before = own_memory()
    total = sum(int(images.pixels[start : start + 1000].max()) for start in range(0, PATCHES, 1000))
    pipe.send(total)
    pipe.recv()
    pipe.send(own_memory() - before)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--batches", type=int, default=100, help="of 64 images, in each round")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        images, rng = opened(folder), np.random.default_rng(1)
        own = own_memory()
        for start in range(0, PATCHES, 1000):  # the first read of each page comes from the disk
            images.pixels[start : start + 1000].max()
        here, there = multiprocessing.get_context("spawn").Pipe()
        other = multiprocessing.get_context("spawn").Process(target=touch, args=(folder, there))
        other.start()
        here.recv()
        own = own_memory() - own
        here.send("both have read everything")
        foreign = here.recv()
        other.join()
        rates = []
        for _ in range(options.rounds):
            draws = [rng.integers(PATCHES, size=BATCH) for _ in range(options.batches)]
            started = time.perf_counter()
            for draw in draws:
                batch = to_float(images.take(draw))
            rates.append(BATCH * options.batches / (time.perf_counter() - started))
            assert batch.shape == (BATCH, 1, SIDE, SIDE) and batch.dtype == torch.float32
    rate, stored = statistics.median(rates), PATCHES * SIDE * SIDE
    copied = max(own, foreign) / stored
    print(
        f"{rate:,.0f} images/s, ratio {rate / CLAIM:.2f} of the claim; not shared: {copied:.1%} of {stored / 2**30:.2f} GiB"
    )
    result = {
        "claim": f"random batches of {BATCH} from {PATCHES} patches of {SIDE} px as float32: {CLAIM} images a second",
        "images_per_s_median": round(rate), "images_per_s_min": round(min(rates)), "images_per_s_max": round(max(rates)),
        "ratio": round(rate / CLAIM, 3), "holds": rate >= CLAIM, "share_not_shared_between_processes": round(copied, 4),
        "rounds": options.rounds, "threads": 1, "time": "wall", "processor": processor(), "torch": torch.__version__,
        "numpy": np.__version__,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "patch_gather.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
