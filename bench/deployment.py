"""Claims about a deployment at rest and under load, without Docker (tests/deploy has the same in containers):

    the SuperLink stays under 500 MiB while models of 120 MB pass; the ServerApp is measured apart
    a node at rest takes less than 400 MiB (without `preload`; the figure with it is given)
    from the start of the SuperLink to all nodes being online: at most 30 s

Three nodes on loopback with TLS and registered keys. One trains a generator of 29.4 million weights for one step (118 MB go to
the server, and from there to the receiver). Memory is the proportional set size, of a process or of all that a node is made of,
sampled four times a second.

    python -m bench.deployment      # writes bench/results/deployment.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from federation.operator import Operator
from federation.processes import MARK, OwnProcesses, carrying
from models.precision import processor
from polycentre.deploy import trial
from polycentre.engines import CHECKOUT
from reports.run_record import RunRecord
from scenarios.reader import parse, resolved_yaml
from server.app import begin

RESULTS = Path(__file__).parent / "results"
SCENARIO = """
name: bench-deployment
seed: 0
repeats: 1
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 24, scanner: digital}}
  B: {roles: [provider], data: {source: phantom, patients: 24, scanner: film}}
  C: {roles: [provider], data: {source: phantom, patients: 24, scanner: film}}
task: {name: lesion, label: lesion, image_size: 64, margin_mm: 6}
generators:
  large: {centre: B, model: dcgan, width: 200, batch_size: 4, steps: 1}
arms:
  large: {strategy: one_shot, generators: [large]}
study: {classifiers: [cnn_small], synthetic: 4, minimum_positives: 2, schedule: {real: 2, mix: 2}, training: {validate_every: 2}}
compute: {workers: 1, threads_per_job: 1, precision: fp32}
"""


def mib(processes: list[psutil.Process]) -> float:
    """Proportional set size of processes together, MiB; one that has ended counts nothing."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 2**20


class Peaks(threading.Thread):
    """Largest memory of the SuperLink and of the ServerApp."""

    def __init__(self, home: Path):
        super().__init__(daemon=True)
        self._home = home
        self.peaks = {"superlink": 0.0, "serverapp": 0.0}
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.25):
            for process in carrying(MARK, str(self._home)):
                try:
                    words = " ".join(process.cmdline())
                except psutil.Error:
                    continue
                for name, mark in (("superlink", "superlink_server"), ("serverapp", "serverapp")):
                    if mark in words and "superexec" not in words:
                        self.peaks[name] = max(self.peaks[name], mib([process]))


def at_rest(workspace: Path) -> float:
    """Memory of a node: all processes that carry its home's mark, and the one that started them."""
    below = carrying(MARK, str(workspace / "flwr"))
    parents = {parent for process in below if (parent := process.parent()) is not None} - set(below)
    return mib([*below, *(p for p in parents if "centre" in p.cmdline())])


def one(place: Path, preload: bool, study: bool) -> dict[str, Any]:
    """Start nodes, measure them at rest, and (`study`) let the large generator pass."""
    processes = OwnProcesses()
    record = RunRecord.create(place / "run", resolved_yaml(parse(SCENARIO, source="bench", base=place)), {})
    places = {c: {"workspace": place / c / "work", "cache": place / c / "cache"} for c in "ABC"}
    found: dict[str, Any] = {}
    try:
        deployment = trial(processes, processes.home / "trial", places, place / "superlink.log")
        if preload:
            for centre in "ABC":
                file = processes.home / "trial" / "centres" / centre / "centre.yaml"
                file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"preload": True}))
        began = time.monotonic()
        deployment.start()
        found["online_s"] = round(time.monotonic() - began, 1)
        time.sleep(15)  # the resident process has imported what it holds
        found["node_at_rest_mib"] = round(max(at_rest(p["workspace"]) for p in places.values()))
        if not study:
            return found
        peaks = Peaks(processes.home)
        peaks.start()
        begin(record)
        operator = Operator(CHECKOUT, place, deployment.place, processes)
        operator.start()
        operator.submit({"out": str(record.folder), "cache": str(place), "begun": True, "deployed": True})
        while record.events()[-1]["event"] != "run_finished":
            time.sleep(0.5)
        peaks.ended.set()
        end = record.events()[-1]
        if end["status"] != "completed":
            raise SystemExit(end["text"])
        large = [e for e in record.events() if e["event"] == "unit_finished" and e["kind"] == "train_generator"]
        found["model_mb"] = round(large[0]["bytes_up"] / 1e6, 1)
        return found | {f"{name}_peak_mib": round(value) for name, value in peaks.peaks.items()}
    finally:
        processes.stop()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        plain = one(Path(temporary) / "plain", preload=False, study=True)
        preloaded = one(Path(temporary) / "preloaded", preload=True, study=False)
    holds = {
        "superlink": plain["superlink_peak_mib"] < 500,
        "node at rest": plain["node_at_rest_mib"] < 400,
        "ready": plain["online_s"] <= 30,
    }
    result = {
        "claims": "SuperLink < 500 MiB while 120 MB models pass; a node at rest < 400 MiB; online within 30 s",
        **plain, "node_at_rest_preloaded_mib": preloaded["node_at_rest_mib"], "holds": holds, "processor": processor(),
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "deployment.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
