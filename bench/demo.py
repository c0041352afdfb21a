"""Claims about the demo: wall time, memory, share of time spent working, and what a second worker brings.

Runs the demo with two workers and with one, one thread a job in both, from an empty cache, and prints

    wall time of `polycentre run demo`                      (at most 6 minutes with the environment in place)
    peak of the sum of PSS over all processes of the run    (at most 4 GiB)
    share of the wall time that is work in a centre         (at least 85 %)
    start-up of Flower and Ray                              (at most 25 s)
    share and learn phase, two workers against one          (at most 0.65)

    python -m bench.demo [--set KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

from models.precision import processor
from reports.run_record import RunRecord
from reports.timeline import start_up_seconds, working_share

RESULTS = Path(__file__).parent / "results"


def run(folder: Path, cache: Path, overrides: list[str]) -> dict[str, float]:
    """One run of the demo, watched from outside."""
    command = [sys.executable, "-m", "polycentre", "run", "demo", "--out", str(folder), "--cache", str(cache)]
    for override in overrides:
        command += ["--set", override]
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, pss_gib(process.pid))
        time.sleep(1.0)
    if process.returncode:
        raise SystemExit(f"the demo failed with status {process.returncode}; see {folder}")
    events = RunRecord.open(folder).events()
    phases = {e["phase"]: e["seconds"] for e in events if e["event"] == "phase_finished"}
    return {
        "wall_s": time.time() - began,
        "peak_pss_gib": peak,
        "working_share": working_share(events),
        "start_up_s": start_up_seconds(events),
        **{f"{phase}_s": seconds for phase, seconds in phases.items()},
    }


def pss_gib(root: int) -> float:
    """Sum of the proportional set sizes of a process, its descendants, and what they detached."""
    total = 0
    try:
        family = {p.pid for p in [psutil.Process(root), *psutil.Process(root).children(recursive=True)]}
    except psutil.NoSuchProcess:
        return 0.0
    for process in psutil.process_iter():
        try:
            if process.pid in family or "POLYCENTRE_RUNTIME" in process.environ():
                total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--set", action="append", default=[], help="as for polycentre run")
    overrides = parser.parse_args().set
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        two = run(place / "two", place / "cache-two", overrides)
        one = run(place / "one", place / "cache-one", [*overrides, "compute.workers=1"])
    ratios = {f"{phase}_ratio": two[f"{phase}_s"] / one[f"{phase}_s"] for phase in ("share", "learn")}
    for name, value in {**two, **ratios}.items():
        print(f"{name:<16} {value:8.2f}")
    rounded = {
        name: {k: round(v, 3) for k, v in found.items()} for name, found in (("two_workers", two), ("one_worker", one))
    }
    result = (
        rounded
        | {k: round(v, 3) for k, v in ratios.items()}
        | {"settings": overrides, "processor": processor(torch.device("cpu"))}
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "demo.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
