"""Claim: 1,000 simulated centres on two cores complete one-shot sharing and a round of federated averaging with tiny models, in at
most 8 GiB, and a centre costs the same among 1,000 as among 100 (within 20 %).

Runs `polycentre run many_centres` with 100 and with 1,000 centres from an empty cache, watched from outside: wall time, peak of
the sum of PSS over all processes. Seconds per centre are those of the whole run without start-up of Flower and Ray.

    python -m bench.many_centres [--centres 100 1000]      # writes bench/results/many_centres.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.demo import pss_gib
from models.precision import processor
from reports.run_record import RunRecord
from reports.timeline import start_up_seconds, working_share

RESULTS = Path(__file__).parent / "results"


def run(folder: Path, cache: Path, centres: int) -> dict[str, float]:
    """One run, watched from outside."""
    command = [sys.executable, "-m", "polycentre", "run", "many_centres", "--set", f"centres.c.count={centres - 1}"]
    began = time.time()
    process = subprocess.Popen([*command, "--out", str(folder), "--cache", str(cache)], stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, pss_gib(process.pid))
        time.sleep(5.0)
    if process.returncode:
        raise SystemExit(f"the run failed with status {process.returncode}; see {folder}")
    wall = time.time() - began
    events = RunRecord.open(folder).events()
    start_up = start_up_seconds(events)
    phases = {f"{e['phase']}_s": round(e["seconds"], 1) for e in events if e["event"] == "phase_finished"}
    return {
        "centres": centres, "wall_s": round(wall, 1), "start_up_s": round(start_up, 1), "peak_pss_gib": round(peak, 2),
        "seconds_per_centre": round((wall - start_up) / centres, 3), "working_share": round(working_share(events), 3), **phases,
    }  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--centres", type=int, nargs=2, default=(100, 1000))
    few, many = arguments.parse_args().centres
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        rows = []
        for centres in (few, many):
            rows.append(run(place / f"run-{centres}", place / f"cache-{centres}", centres))
            print(rows[-1], flush=True)
    ratio = rows[1]["seconds_per_centre"] / rows[0]["seconds_per_centre"]
    holds = {"memory": rows[1]["peak_pss_gib"] <= 8.0, "constant": 0.8 <= ratio <= 1.2}
    print(f"seconds per centre, {many} against {few}: {ratio:.3f}; {holds}")
    result = {
        "claim": "1,000 centres: at most 8 GiB, seconds per centre within 20 % of 100 centres", "runs": rows,
        "ratio": round(ratio, 3), "holds": holds, "processor": processor(), "torch": torch.__version__,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "many_centres.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
