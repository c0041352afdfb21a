"""Claim: on a CPU with AMX, bf16 autocast makes a step of the small 64 px DCGAN (batch 16) at least 1.4 times faster.

Steps at both precisions run in turns in one process on one thread. Without AMX the claim says nothing about this
machine: the figures are written, and that it was not tested.

    python -m bench.bf16_gan_step       # writes bench/results/bf16_gan_step.json
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch

from bench.gan_step import RESULTS, interleaved, loop_step, random_images, spec_of
from models.precision import bf16_flags, processor

CLAIM = 1.4


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=40)
    pairs = arguments.parse_args().pairs
    torch.set_num_threads(1)
    spec, images = spec_of("dcgan", 64, 16, "small"), random_images(64)
    fp32, bf16 = interleaved(loop_step(spec, images, "fp32"), loop_step(spec, images, "bf16"), pairs)
    gain = statistics.median(a / b for a, b in zip(fp32, bf16, strict=True))
    flags = bf16_flags()
    tested = "amx_bf16" in flags
    verdict = ("holds" if gain >= CLAIM else "does not hold") if tested else "not tested: this CPU has no AMX"
    print(f"fp32 {statistics.median(fp32):.4f} s, bf16 {statistics.median(bf16):.4f} s, gain {gain:.3f}; {verdict}")
    result = {
        "claim": f"with AMX, bf16 is at least {CLAIM} times faster", "verdict": verdict, "gain": round(gain, 4),
        "fp32_median_s": round(statistics.median(fp32), 5), "bf16_median_s": round(statistics.median(bf16), 5),
        "pairs": pairs, "threads": 1, "time": "processor seconds", "bf16_instructions": flags, "processor": processor(),
        "torch": torch.__version__,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bf16_gan_step.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
