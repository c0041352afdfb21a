"""Claims about dm_gan in simulated time, with ten centres of which one is ten times slower:

    asynchronous: at least 0.85 of the generator updates per simulated second of ten normal centres
    lock-step:    at most 0.15
    the server's overhead per update (of one answer) at 64 px: at most 20 ms beside the generator's own passes
    fidelity after equal numbers of updates: within 10 % of lock-step

All runs are in this process, one job at a time; simulated time does not depend on the machine. An update takes the answers of a
quorum of `--quorum` centres; in lock-step those of all ten. Fidelity is the median over the measurements of the last
third of the training, over `--seeds` seeds. Overhead is all time of a run that is neither work in a centre nor a pass
of the generator nor the survey nor setting it up once: messages, checks, combining, checkpoints.

    python -m bench.dm_gan [--updates 120] [--quorum 8] [--seeds 3]     # writes bench/results/dm_gan.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message

from clients.app import app as client_app
from federation.flower.in_process import InProcessGrid
from models.precision import processor
from reports.run_record import RunRecord
from scenarios.reader import parse, resolved_yaml
from server.app import begin, conduct
from strategies import KINDS
from strategies.dm_gan.generator import RemoteGenerator

RESULTS = Path(__file__).parent / "results"


def scenario_text(*, image_size: int, width: int, slow: bool, lock_step: bool, quorum: int, updates: int, every: int, seed: int,
                  batches: int) -> str:  # fmt: skip
    """Ten centres with phantoms of their own; only the generator is trained, and hardly a classifier."""
    centres = "".join(
        f"  n{i}: {{roles: [provider], data: {{source: phantom, patients: 30, scanner: film}}"
        + (", availability: {speed: 0.1}" if slow and i == 9 else "") + "}\n"
        for i in range(10)
    )  # fmt: skip
    how = "lock_step: true" if lock_step else f"quorum: {quorum}"
    return f"""
name: bench-dm-gan
seed: {seed}
repeats: 1
centres:
  A: {{roles: [receiver], data: {{source: phantom, patients: 30, scanner: digital}}}}
{centres}
task: {{name: lesion, label: lesion, image_size: {image_size}, margin_mm: 6}}
arms:
  dm: {{strategy: dm_gan, model: dcgan, width: {width}, batch_size: 8, learning_rate: 0.0004, updates: {updates},
       batches_per_job: {batches}, {how}, fidelity: {{every: {every}, images: 256, fewest_patients: 2}}}}
study: {{classifiers: [cnn_small], synthetic: 8, minimum_positives: 2, schedule: {{real: 2, mix: 2}}, training: {{validate_every: 2}}}}
compute: {{workers: 1, threads_per_job: 1, precision: fp32}}
"""


class TimedGrid(InProcessGrid):
    """Adds up the seconds that centres work."""

    working_s = 0.0

    def pull_messages(self, message_ids):
        ids, began = list(message_ids), time.perf_counter()
        replies = super().pull_messages(ids)
        self.working_s += time.perf_counter() - began
        return replies


def timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def wrapper(*arguments, **options):
        began = time.perf_counter()
        result = function(*arguments, **options)
        spent.append(time.perf_counter() - began)
        return result

    return wrapper


def run(folder: Path, cache: Path, text: str) -> dict[str, Any]:
    """One run: rate of updates in simulated time, fidelity, and where the server's time went."""
    scenario = parse(text, source="bench", base=folder.parent)
    record = RunRecord.create(folder, resolved_yaml(scenario), {})
    begin(record)
    passes: list[float] = []
    set_up: list[float] = []  # once a run: networks, optimizer, and what torch imports for it
    originals = {name: getattr(RemoteGenerator, name) for name in ("images", "gradients_of", "step", "__init__")}
    try:
        for name, function in originals.items():
            setattr(RemoteGenerator, name, timed(function, set_up if name == "__init__" else passes))
        grid = TimedGrid(client_app, 11, {}, on_message=_ignore)
        if not conduct(grid, record, cache):
            raise SystemExit(record.events()[-1]["text"])
    finally:
        for name, function in originals.items():
            setattr(RemoteGenerator, name, function)
    events = record.events()
    share = next(e["seconds"] for e in events if e["event"] == "phase_finished" and e["phase"] == "share")
    shared = [e for e in events if e["event"] == "unit_finished" and KINDS[e["kind"]].phase == "share"]
    working = sum(e["seconds"] for e in shared if not e["cached"])
    updates = scenario.arms["dm"].updates
    curve = record.convergence().drop_duplicates("round").sort_values("round")
    rows = record.virtual_time()
    return {
        "updates_per_s": updates / float(curve["virtual_s"].iloc[-1]),
        "overhead_ms": 1000 * (share - working - sum(passes) - sum(set_up)) / updates,
        "passes_ms": 1000 * sum(passes) / updates,
        "fidelity": float(curve[curve["round"] > updates * 2 / 3]["value"].median()),
        "floor": float(curve["floor"].iloc[0]),
        "stale": int((rows["outcome"] == "stale").sum()),
    }


def _ignore(message: Message) -> None:
    return None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--updates", type=int, default=120)
    arguments.add_argument("--quorum", type=int, default=8)
    arguments.add_argument("--seeds", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)

        def one(name: str, **settings: Any) -> dict[str, Any]:
            found = run(place / name, place / "cache", scenario_text(**settings))
            print(name, {k: round(v, 4) for k, v in found.items()}, flush=True)
            return found

        small: dict[str, Any] = {"image_size": 32, "width": 8, "seed": 0, "batches": 1}
        rates = {}
        # Updates come in bursts of simulated seconds: enough of them that the last burst does not matter.
        for quorum, updates in ((1, 300), (given.quorum, 75)):
            small |= {"updates": updates, "every": updates}
            normal = one(f"normal-{quorum}", slow=False, lock_step=False, quorum=quorum, **small)
            slow = one(f"slow-{quorum}", slow=True, lock_step=False, quorum=quorum, **small)
            rates[f"quorum {quorum}"] = slow["updates_per_s"] / normal["updates_per_s"]
        small |= {"updates": 25, "every": 25}
        normal = one("lock-normal", slow=False, lock_step=True, quorum=1, **small)
        slow = one("lock-slow", slow=True, lock_step=True, quorum=1, **small)
        rates["lock-step"] = slow["updates_per_s"] / normal["updates_per_s"]
        overhead = one("overhead", image_size=64, width=32, slow=True, lock_step=False, quorum=1, updates=60, every=20, seed=0,
                       batches=1)  # fmt: skip
        ratios = []
        fidelity = {}
        for seed in range(given.seeds):
            long: dict[str, Any] = {
                "image_size": 32, "width": 16, "updates": given.updates, "every": max(1, given.updates // 20), "seed": seed,
                "batches": 2, "slow": True,
            }  # fmt: skip
            asynchronous = one(f"async-{seed}", lock_step=False, quorum=given.quorum, **long)
            lock = one(f"lock-{seed}", lock_step=True, quorum=1, **long)
            ratios.append(asynchronous["fidelity"] / lock["fidelity"])
            fidelity[f"seed {seed}"] = {
                "asynchronous": asynchronous["fidelity"],
                "lock_step": lock["fidelity"],
                "floor": lock["floor"],
            }
    holds = {
        "asynchronous rate": all(rate >= 0.85 for name, rate in rates.items() if name != "lock-step"),
        "lock-step rate": rates["lock-step"] <= 0.15,
        "overhead": overhead["overhead_ms"] <= 20,
        "fidelity": abs(statistics.median(ratios) - 1) <= 0.1 or statistics.median(ratios) < 1,
    }
    for name, value in (
        *rates.items(),
        ("overhead ms", overhead["overhead_ms"]),
        ("fidelity ratio", statistics.median(ratios)),
    ):
        print(f"{name:<16} {value:8.3f}")
    print(holds)
    result = {
        "claims": "asynchronous >= 0.85 of the updates of ten normal centres, lock-step <= 0.15; overhead <= 20 ms; fidelity within 10 %",
        "rates": {k: round(v, 3) for k, v in rates.items()},
        "overhead_ms_per_update_64px": round(overhead["overhead_ms"], 2),
        "generator_passes_ms_per_update_64px": round(overhead["passes_ms"], 2),
        "answers_per_update_64px": 1, "quorum": given.quorum, "updates": given.updates, "fd_texture": fidelity,
        "fidelity_ratio_median": round(statistics.median(ratios), 3), "holds": holds, "processor": processor(),
        "torch": torch.__version__,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "dm_gan.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
