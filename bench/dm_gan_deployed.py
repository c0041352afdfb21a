"""Claim: dm_gan over real nodes, where every message is a new process and polls take seconds, spends at least 70 % of the nodes'
time computing, with job sizes that it picked itself.

Three nodes on loopback, as `polycentre deploy local` starts them: two that train, a core each; nothing is kept imported between
jobs (`preload: false`). Node time and computing are those of the report
(`reports.timeline`): from the sending of a node's first job to its last answer, and between the moments at which its client began
and ended a job, so that process start, imports, polls and transfer count as waiting. The first `--settle` jobs of each node, in
which job sizes are found, are reported apart.

    python -m bench.dm_gan_deployed [--updates 60]      # writes bench/results/dm_gan_deployed.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from bench.deployment import deployed
from models.precision import processor
from reports.timeline import computing_share, node_jobs

RESULTS = Path(__file__).parent / "results"
CLAIM = 0.70
SCENARIO = """
name: bench-dm-gan-deployed
seed: 0
repeats: 1
centres:
  A: {{roles: [receiver], data: {{source: phantom, patients: 30, scanner: digital}}}}
  B: {{roles: [provider], data: {{source: phantom, patients: 40, scanner: film}}}}
  C: {{roles: [provider], data: {{source: phantom, patients: 40, scanner: digital-2}}}}
task: {{name: lesion, label: lesion, image_size: 32, margin_mm: 6}}
arms:
  dm: {{strategy: dm_gan, model: wgan_gp, width: 16, batch_size: 16, updates: {updates}, transport: fp16, fidelity: {{spaces: []}}}}
study: {{classifiers: [cnn_small], synthetic: 8, minimum_positives: 2, schedule: {{real: 2, mix: 2}}, training: {{validate_every: 2}}}}
compute: {{threads_per_job: 1, precision: fp32}}
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--updates", type=int, default=60)
    arguments.add_argument("--settle", type=int, default=5)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        with deployed(place, SCENARIO.format(updates=given.updates)) as (_, run):
            events = run()
    jobs = [job for job in node_jobs(events) if job.kind == "train_discriminator"]
    settled = [job for centre in ("B", "C") for job in [own for own in jobs if own.centre == centre][given.settle :]]
    shares = {"all": computing_share(jobs), "settled": computing_share(settled)}
    seconds = [round(job.seconds, 2) for job in jobs]
    print(f"computing: {shares['all']:.0%} of the nodes' time, {shares['settled']:.0%} after {given.settle} jobs each")
    print(f"seconds of the jobs in order: {seconds}")
    print(f"claim {CLAIM:.0%}: {'holds' if shares['settled'] >= CLAIM else 'does not hold'}")
    result = {
        "claim": f"at least {CLAIM:.0%} of node time is computing", "updates": given.updates, "settle": given.settle,
        "share_all": round(shares["all"], 3), "share_settled": round(shares["settled"], 3), "job_seconds": seconds,
        "holds": shares["settled"] >= CLAIM, "processor": processor(), "torch": torch.__version__,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "dm_gan_deployed.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
