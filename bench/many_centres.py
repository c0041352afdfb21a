"""Claims: 1,000 simulated centres on two cores complete one-shot sharing and a round of federated averaging with tiny models

    in at most 8 GiB
    at the same cost a centre as 100 (within 20 %), and at most 0.25 s a centre
    in at most 1.3 of the time of a plain Flower app that does the same training (`bench.plain_flower`)
    and the first centre works after at most 14 s

Runs `polycentre run many_centres` with 100 and with 1,000 centres from an empty cache, watched from outside: wall time, peak of
the sum of PSS over all processes, and their processor seconds, which tell more where other programs run. Seconds per centre
are those of the whole run without start-up of Flower and Ray. After each run follows the plain app, also from an empty cache; its
time is that of its process from start to end, as ours is, and its classifiers must have the metrics of ours.

    python -m bench.many_centres [--centres 100 1000]      # writes bench/results/many_centres.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

from bench.demo import pss_gib
from bench.plain_flower import RESULT
from federation.flower.processes import MARK
from models.precision import processor
from reports.run_record import RunRecord
from reports.timeline import start_up_seconds, working_share

RESULTS = Path(__file__).parent / "results"
GIB, PER_CENTRE_S, PLAIN, START_UP_S = 8.0, 0.25, 1.3, 14.0


class Watched:
    """A command that runs to its end, seen from outside.

    Attributes:
        wall_s: from its start to its end.
        cpu_s: processor seconds of all its processes, as far as they were seen last: sampled twice a second.
        peak_gib: most memory (sum of PSS).
    """

    def __init__(self, command: list[str], output: Path):
        began, self.peak_gib, spent, looked = time.time(), 0.0, {}, 0.0
        with open(output, "w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            spent |= processor_seconds(process.pid)
            if time.time() - looked > 5.0:
                self.peak_gib, looked = max(self.peak_gib, pss_gib(process.pid)), time.time()
            time.sleep(0.5)
        if process.returncode:
            raise SystemExit(f"{command} failed with status {process.returncode}:\n{output.read_text()[-2000:]}")
        self.wall_s, self.cpu_s = time.time() - began, sum(spent.values())


def processor_seconds(root: int) -> dict[int, float]:
    """By process id, of a process, its descendants, and what they detached: that carries the mark of one of them."""
    found: dict[int, float] = {}
    try:
        family = {root, *(child.pid for child in psutil.Process(root).children(recursive=True))}
    except psutil.NoSuchProcess:
        return found
    marked: dict[int, str] = {}
    for process in psutil.process_iter():
        try:
            times = process.cpu_times()
            found[process.pid], marked[process.pid] = times.user + times.system, process.environ().get(MARK, "")
        except psutil.Error:
            continue
    own = {marked[pid] for pid in family if pid in marked} - {""}
    return {pid: seconds for pid, seconds in found.items() if pid in family or marked.get(pid) in own}


def run(place: Path, centres: int) -> dict[str, float | bool]:
    """One run of ours, and the plain app."""
    folder = place / f"run-{centres}"
    command = [sys.executable, "-m", "polycentre", "run", "many_centres", "--set", f"centres.c.count={centres - 1}"]
    command += ["--out", str(folder), "--cache", str(place / f"cache-{centres}")]
    ours = Watched(command, place / "ours.txt")
    record = RunRecord.open(folder)
    events = record.events()
    start_up = start_up_seconds(events)
    phases = {f"{e['phase']}_s": round(e["seconds"], 1) for e in events if e["event"] == "phase_finished"}
    row = {
        "centres": centres, "wall_s": round(ours.wall_s, 1), "cpu_s": round(ours.cpu_s, 1), "start_up_s": round(start_up, 1),
        "peak_pss_gib": round(ours.peak_gib, 2), "seconds_per_centre": round((ours.wall_s - start_up) / centres, 3),
        "working_share": round(working_share(events), 3), **phases,
    }  # fmt: skip
    command = [sys.executable, "-m", "bench.plain_flower", str(folder), str(place / f"plain-{centres}")]
    plain = Watched(command, place / "plain.txt")
    (line,) = [line for line in (place / "plain.txt").read_text().splitlines() if line.startswith(RESULT)]
    told = json.loads(line.removeprefix(RESULT))
    found = {(arm, name): value for arm, metrics in told["metrics"].items() for name, value in metrics.items()}
    results = record.results()
    same = all(
        math.isclose(value, found[arm, metric], rel_tol=1e-6)
        for arm, metric, value in zip(results["arm"], results["metric"], results["value"], strict=True)
        if not math.isnan(value)
    )
    return row | {
        "plain_wall_s": round(plain.wall_s, 1), "plain_cpu_s": round(plain.cpu_s, 1), "plain_seconds": told["seconds"],
        "of_plain": round(ours.wall_s / plain.wall_s, 3), "of_plain_cpu": round(ours.cpu_s / plain.cpu_s, 3),
        "same_metrics": same,
    }  # fmt: skip


def holding(few: dict[str, float | bool], many: dict[str, float | bool]) -> dict[str, bool]:
    """Which claims hold of two runs; every time and every size says something only of runs with the same metrics."""
    return {
        "same_metrics": bool(few["same_metrics"] and many["same_metrics"]),
        "memory": many["peak_pss_gib"] <= GIB,
        "constant": 0.8 <= many["seconds_per_centre"] / few["seconds_per_centre"] <= 1.2,
        "per_centre": many["seconds_per_centre"] <= PER_CENTRE_S,
        "of_plain": many["of_plain"] <= PLAIN,
        "start_up": max(few["start_up_s"], many["start_up_s"]) <= START_UP_S,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--centres", type=int, nargs=2, default=(100, 1000))
    few, many = arguments.parse_args().centres
    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for centres in (few, many):
            rows.append(run(Path(temporary), centres))
            print(rows[-1], flush=True)
    ratio = rows[1]["seconds_per_centre"] / rows[0]["seconds_per_centre"]
    holds = holding(*rows)
    print(f"seconds per centre, {many} against {few}: {ratio:.3f}; {holds}")
    result = {
        "claim": f"1,000 centres: at most {GIB:g} GiB, {PER_CENTRE_S} s a centre, within 20 % of 100 centres, at most {PLAIN} of a "
        f"plain Flower app with the same training, start-up at most {START_UP_S:g} s, and the same metrics",
        "runs": rows, "ratio": round(ratio, 3), "holds": holds, "load_average_before": load, "processor": processor(),
        "torch": torch.__version__,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "many_centres.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
