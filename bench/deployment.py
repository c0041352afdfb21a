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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from federation.flower.operator import Operator
from federation.flower.processes import MARK, OwnProcesses, carrying
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


@dataclass(frozen=True)
class Started:
    """Nodes that are online: home of the runtime, their workspaces, and seconds from the start of the SuperLink."""

    home: Path
    workspaces: list[Path]
    online_s: float


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
                for name, mark in (("superlink", "superlink_server"), ("serverapp", "server.launcher")):
                    if mark in words:
                        self.peaks[name] = max(self.peaks[name], mib([process]))


def at_rest(workspace: Path) -> float:
    """Memory of a node: all processes that carry its home's mark, and the one that started them."""
    below = carrying(MARK, str(workspace / "flwr"))
    parents = {parent for process in below if (parent := process.parent()) is not None} - set(below)
    return mib([*below, *(p for p in parents if "centre" in p.cmdline())])


@contextlib.contextmanager
def deployed(
    place: Path, scenario: str, preload: bool = False
) -> Iterator[tuple[Started, Callable[[], list[dict[str, Any]]]]]:
    """Nodes on loopback that are online, and a function that runs the scenario over them and returns the run's events."""
    parsed = parse(scenario, source="bench", base=place)
    record = RunRecord.create(place / "run", resolved_yaml(parsed), {})
    places = {c: {"workspace": place / c / "work", "cache": place / c / "cache"} for c in parsed.centres}
    processes = OwnProcesses()

    def run() -> list[dict[str, Any]]:
        begin(record)
        operator = Operator(CHECKOUT, place, deployment.place, processes)
        operator.start()
        operator.submit({"out": str(record.folder), "cache": str(place), "begun": True, "deployed": True})
        while record.events()[-1]["event"] != "run_finished":
            if not deployment.link.alive or not operator.alive:
                raise SystemExit(f"the runtime ended; see the logs in {place}")
            time.sleep(0.5)
        end = record.events()[-1]
        if end["status"] != "completed":
            raise SystemExit(end["text"])
        return record.events()

    try:
        deployment = trial(processes, processes.home / "trial", places, place / "superlink.log", preload)
        began = time.monotonic()
        deployment.start()
        yield Started(processes.home, [p["workspace"] for p in places.values()], time.monotonic() - began), run
    finally:
        processes.stop()


def one(place: Path, preload: bool, study: bool) -> dict[str, Any]:
    """Start nodes, measure them at rest, and (`study`) let the large generator pass."""
    with deployed(place, SCENARIO, preload) as (started, run):
        time.sleep(15)  # a resident process has imported what it holds
        found: dict[str, Any] = {
            "online_s": round(started.online_s, 1),
            "node_at_rest_mib": round(max(at_rest(workspace) for workspace in started.workspaces)),
        }
        if not study:
            return found
        peaks = Peaks(started.home)
        peaks.start()
        events = run()
        peaks.ended.set()
    (large,) = [e for e in events if e["event"] == "unit_finished" and e["kind"] == "train_generator"]
    found["model_mb"] = round(large["bytes_up"] / 1e6, 1)
    return found | {f"{name}_peak_mib": round(value) for name, value in peaks.peaks.items()}


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
