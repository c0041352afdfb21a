"""Claim: federated averaging of 4 centres with 2 workers under Ray takes at most 1.08 times the wall time of the same local
steps with the same barriers in two plain PyTorch processes.

Ours: `polycentre run` on four simulated centres, a DCGAN of 64 px, rounds of local steps on every centre, averaged; timed
from the start of the first round's first job to the end of the last one's last, with all that lies between (messages,
checks, averaging, checkpoints). Plain: two processes, each with two centres' networks and optimizers in memory, the steps
written by hand (those of `bench.gan_step`), a barrier after every round, and the mean of the weights of all four.
Both use one thread a process; they run one after the other, in turns.

    python -m bench.fedavg_gan [--rounds 3] [--steps 100] [--pairs 2]      # writes bench/results/fedavg_gan.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.multiprocessing as mp

from bench.gan_step import hand_training, random_images, spec_of
from models.precision import processor
from reports.run_record import RunRecord

RESULTS = Path(__file__).parent / "results"
CLAIM = 1.08
CENTRES = 4
SCENARIO = """
name: bench-fedavg-gan
seed: 0
repeats: 1
centres:
  A: {{roles: [receiver], data: {{source: phantom, patients: 30, scanner: digital}}}}
  B1: {{roles: [provider], data: &data {{source: phantom, patients: 30, scanner: film}}}}
  B2: {{roles: [provider], data: *data}}
  B3: {{roles: [provider], data: *data}}
  B4: {{roles: [provider], data: *data}}
task: {{name: lesion, label: lesion, image_size: 64, margin_mm: 6}}
arms:
  average: {{strategy: fedavg_gan, model: dcgan, batch_size: 16, rounds: {rounds}, local_steps: {steps}, fidelity: {{spaces: []}}}}
study: {{classifiers: [cnn_small], synthetic: 8, minimum_positives: 2, schedule: {{real: 2, mix: 2}}, training: {{validate_every: 2}}}}
compute: {{workers: 2, threads_per_job: 1, precision: fp32}}
"""


def ours(folder: Path, cache: Path, rounds: int, steps: int) -> float:
    """Seconds from the start of the first round's work to the end of the last one's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.yaml").write_text(SCENARIO.format(rounds=rounds, steps=steps))
    command = [sys.executable, "-m", "polycentre", "run", str(folder / "bench.yaml"), "--out", str(folder / "run")]
    subprocess.run([*command, "--cache", str(cache)], check=True, stdout=subprocess.DEVNULL)
    work = [e for e in RunRecord.open(folder / "run").events() if e.get("kind") == "train_round"]
    return max(e["t"] for e in work if e["event"] == "unit_finished") - min(
        e["t"] for e in work if e["event"] == "unit_started"
    )


def plain_process(rounds: int, steps: int, shared: list, barrier, took) -> None:
    """Two centres, one after the other in each round."""
    torch.set_num_threads(1)
    spec, images = spec_of("dcgan", 64, 16, "small"), random_images(64)
    centres = [hand_training(spec, images, "fp32") for _ in shared]
    barrier.wait()
    began = time.perf_counter()
    for _ in range(rounds):
        for (step, networks), place in zip(centres, shared, strict=True):
            for _ in range(steps):
                step()
            with torch.no_grad():
                place.copy_(torch.cat([parameter.reshape(-1) for parameter in networks.parameters()]))
        barrier.wait()  # all four are there
        mean = took["all"].mean(0)
        barrier.wait()  # all have read them
        with torch.no_grad():
            for _, networks in centres:
                parts = mean.split([parameter.numel() for parameter in networks.parameters()])
                for parameter, part in zip(networks.parameters(), parts, strict=True):
                    parameter.copy_(part.view_as(parameter))
    took["seconds"].put(time.perf_counter() - began)


def plain(rounds: int, steps: int) -> float:
    """Seconds of the same rounds in two processes."""
    _, networks = hand_training(spec_of("dcgan", 64, 16, "small"), random_images(64), "fp32")
    size = sum(p.numel() for p in networks.parameters())
    context = mp.get_context("spawn")
    weights = torch.zeros(CENTRES, size).share_memory_()
    barrier, seconds = context.Barrier(2), context.Queue()
    workers = [
        context.Process(
            target=plain_process,
            args=(rounds, steps, [weights[i], weights[i + 1]], barrier, {"all": weights, "seconds": seconds}),
        )
        for i in (0, 2)
    ]
    for worker in workers:
        worker.start()
    found = [seconds.get(timeout=3600) for _ in workers]
    for worker in workers:
        worker.join()
    return max(found)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=100, help="local steps of a round (paper 002: 100)")
    arguments.add_argument("--pairs", type=int, default=2)
    given = arguments.parse_args()
    ratios, rows = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for pair in range(given.pairs):
            place = Path(temporary)
            a = ours(place / str(pair), place / "cache", given.rounds, given.steps)
            b = plain(given.rounds, given.steps)
            ratios.append(a / b)
            rows.append({"ours_s": round(a, 2), "plain_s": round(b, 2), "ratio": round(a / b, 3)})
            print(f"ours {a:.1f} s, plain {b:.1f} s, ratio {a / b:.3f}", flush=True)
    ratio = statistics.median(ratios)
    print(f"median ratio {ratio:.3f}, claim {CLAIM}: {'holds' if ratio <= CLAIM else 'does not hold'}")
    result = {
        "claim": f"federated averaging of 4 centres with 2 workers: at most {CLAIM} of two plain processes",
        "rounds": given.rounds, "local_steps": given.steps, "model": "dcgan 64 px, batch 16, fp32", "pairs": rows,
        "ratio": round(ratio, 3), "holds": ratio <= CLAIM, "processor": processor(), "torch": torch.__version__,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fedavg_gan.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
