"""A run folder full of random numbers, shaped as a real one: what the report is looked at and tested with.

`python tests/reports/fake_run.py FOLDER [completed|failed|interrupted|federated|many|deployed]` writes one and builds its report.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from metrics import METRICS
from reports.html import build_report
from reports.run_record import RunRecord
from reports.samples import save_grid

SCENARIO = """\
name: fake-three-centres
description: Random numbers in the shape of a study; nothing was trained.
seed: 7
repeats: 3
centres:
  A: {roles: [receiver], data: {source: phantom, patients: 120, scanner: digital}}
  B: {roles: [provider], data: {source: phantom, patients: 300, scanner: film}}
  C: {roles: [provider, test], data: {source: phantom, patients: 200, scanner: digital-2}}
task: {name: lesion, label: lesion, image_size: 32}
generators:
  b_wgan: {centre: B, model: wgan_gp, steps: 600}
  b_flow: {centre: B, model: flow_matching, conditional: true, steps: 900}
arms:
  none: {strategy: local, title: real images with traditional augmentation}
  more_home: {strategy: local, oversample: 300, title: own lesions drawn again}
  b_wgan: {strategy: one_shot, generators: [b_wgan], title: "the paper's recipe: lesions, mixed in"}
  b_flow: {strategy: one_shot, generators: [b_flow], classes: both, use: pretrain_mix, title: "both classes"}
  b_real: {strategy: pooled, centres: [B]}
study: {classifiers: [cnn_small, swin_tiny], real_fraction: [1.0], test_on: [A, C]}
"""
GAIN = {"none": 0.0, "more_home": 0.001, "b_wgan": -0.05, "b_flow": 0.06, "b_real": 0.08}
SYNTHETIC = {"none": 0, "more_home": 300, "b_wgan": 600, "b_flow": 1200, "b_real": 900}
STRATEGY = {"none": "local", "more_home": "local", "b_wgan": "one_shot", "b_flow": "one_shot", "b_real": "pooled"}

FEDERATED = """\
  average: {strategy: fedavg_gan, model: dcgan, conditional: true, rounds: 20, local_steps: 30, title: averaged each round}
  async: {strategy: dm_gan, model: dcgan, conditional: true, updates: 60, title: discriminators stay at the centres}
  central: {strategy: pooled_gan, model: dcgan, conditional: true, centres: [A, B, C]}
  chosen: {strategy: one_shot, generators: [b_wgan, b_flow], title: the better of two}
"""
FEDERATED_GAIN = {"average": 0.04, "async": 0.03, "central": 0.06, "chosen": 0.05}
FEDERATED_STRATEGY = {"average": "fedavg_gan", "async": "dm_gan", "central": "pooled_gan", "chosen": "one_shot"}

# (kind, title, phase, rounds, pixels), as a server writes them at the start of a study.
_KINDS = (
    ("survey", "survey of the data", "survey", False, False),
    ("train_generator", "train a generator", "share", False, False),
    ("send_patches", "send real patches", "share", False, True),
    ("receive_patches", "receive real patches", "share", False, True),
    ("gan_round", "gan round", "share", True, False),
    ("gan_gradient", "gan gradient", "share", True, False),
    ("synthesise", "draw synthetic images", "share", False, False),
    ("learn", "train a classifier", "learn", False, False),
    ("adopt", "take over a classifier", "learn", False, False),
    ("test", "test elsewhere", "test", False, False),
)
KINDS = {
    "kinds": [dict(zip(("kind", "title", "phase", "rounds", "pixels"), entry, strict=True)) for entry in _KINDS],
    "strategies": [
        {"strategy": "local", "title": "nothing moves", "pixels": False, "shares": False},
        {"strategy": "one_shot", "title": "generators, once", "pixels": False},
        {"strategy": "pooled", "title": "real images move", "pixels": True},
        {"strategy": "fedavg_gan", "title": "a generator averaged in rounds", "pixels": False},
        {"strategy": "dm_gan", "title": "a generator on the server", "pixels": False},
        {"strategy": "pooled_gan", "title": "a generator of pooled images", "pixels": True},
    ],
}


def make(
    folder: Path,
    *,
    repeats: int = 3,
    status: str = "completed",
    patients: int = 90,
    resumed: bool = True,
    federated: bool = False,
    classifiers: tuple[str, ...] = ("cnn_small", "swin_tiny"),
) -> RunRecord:
    """A record of 5 arms, `classifiers`, `repeats` repeats, tested at A and C.

    status: completed, failed (B's wgan fails and its arm is missing) or interrupted (no results, no end).
    federated: with two federations, a model of pooled data and an arm that selects, and what is recorded of them.
    """
    rng = np.random.default_rng(0)
    scenario = SCENARIO.replace("repeats: 3", f"repeats: {repeats}")
    gain, strategy = GAIN, STRATEGY
    if federated:
        scenario = scenario.replace("study:", f"{FEDERATED}study:")
        gain, strategy = GAIN | FEDERATED_GAIN, STRATEGY | FEDERATED_STRATEGY
    record = RunRecord.create(folder, scenario, {
        "python": "3.11.9", "cpu": "Imaginary CPU", "cpus": 2, "memory_gib": 7.8, "versions": {"torch": "2.13.0"},
        "code": {"digest": "0123456789abcdef0123", "folder": "/somewhere"},
    })  # fmt: skip
    record.write_kinds(KINDS)
    arms = [arm for arm in gain if not (status == "failed" and arm == "b_wgan")]
    clock = _Clock(record, resumed=resumed)
    clock.event("run_started", run_id=folder.name, resumed=False)
    clock.tick(12)
    for centre in "ABC":
        info = {
            "kind": "survey",
            "centre": centre,
            "label": f"survey of {centre}",
            "result": {"tasks": {"lesion": {"card": _card(rng)}}},
        }
        clock.unit(f"survey-{centre}", info, seconds=9, down=800, up=2_000)
    record.write_partition(partition_rows("ABC"))
    clock.event(
        "note", centre="B", text="2 groups of patients spanned centres; each went to the centre with most of its images"
    )
    clock.tick(9)
    for name in ("b_wgan", "b_flow"):
        if status == "failed" and name == "b_wgan":
            who = {"unit": "g-b_wgan", "kind": "train_generator", "centre": "B", "label": "train b_wgan"}
            clock.event("unit_started", **who)
            clock.tick(20)
            text = "centre B could not train b_wgan: the loss became NaN at step 40; lower the learning rate"
            clock.event("unit_failed", **who, code="diverged", text=text)
            continue
        step = np.arange(0, 900, 3)
        losses = {"loss": 1 / (1 + step / 90) + rng.normal(0, 0.03, len(step))}
        if name == "b_wgan":
            losses = {
                "critic": -np.log1p(step / 50) + rng.normal(0, 0.2, len(step)),
                "generator": rng.normal(0, 0.4, len(step)),
            }
        info = {
            "kind": "train_generator",
            "centre": "B",
            "label": f"train {name}",
            "result": {"history": {"step": step, **losses}},
        }
        clock.unit(f"g-{name}", info, seconds=95, down=3_000, up=3_400_000, lane=name == "b_flow",
                   arrays={"weights": np.zeros(10, np.float32)})  # fmt: skip
        record.write_samples(name, _blobs(rng, 32))
    clock.tick(95)
    for centre in "ABC":
        save_grid(record.local(centre) / "samples" / "lesion.png", _blobs(rng, 32))
    clock.unit(
        "s-b_flow",
        {"kind": "synthesise", "centre": "A", "label": "synthetic", "result": {}},
        seconds=6,
        down=3_400_000,
        up=400,
    )
    clock.tick(6)
    if federated:
        _federate(clock, rng)
    results, predictions = [], []
    test_labels = {centre: (np.arange(2 * patients) % 5 < 2).astype(int) for centre in "AC"}
    for i, (arm, classifier, repeat) in enumerate((a, c, r) for c in classifiers for a in arms for r in range(repeats)):
        if resumed and i == 2 * repeats:
            clock.kill_and_resume()
        cell = {"arm": arm, "strategy": strategy[arm], "task": "lesion", "classifier": classifier, "real_fraction": 1.0,
                "real_images": None, "repeat": repeat, "receiver": "A"}  # fmt: skip
        step = np.arange(100, 1001 if "flow" in arm else 501, 100)
        history = {
            "step": step,
            "loss": 1 / step,
            "val_auprc": 0.75 + gain[arm] - 20 / step + rng.normal(0, 0.01, len(step)),
        }
        info = {
            "kind": "learn",
            "centre": "A",
            "label": f"{arm} · {classifier} · repeat {repeat}",
            "result": {"cell": cell, "history": history},
        }
        if arm == "chosen":
            info["result"]["selected"] = {"b_flow": 1.0} if repeat else {"b_wgan": 0.5, "b_flow": 0.5}
        clock.unit(
            f"l-{i:03d}", info, seconds=11 if classifier == "cnn_small" else 17, down=2_000, up=700_000, lane=i % 2
        )
        for centre in "AC":
            labels = test_labels[centre]
            # The same easy and hard cases in every arm and repeat, as with a real test set.
            difficulty = np.random.default_rng(ord(centre)).normal(0, 0.9, len(labels))
            lift = (1.1 if centre == "A" else 0.7) + 6 * gain[arm] + rng.normal(0, 0.04)
            score = labels * lift + difficulty + rng.normal(0, 0.25, len(labels))
            probability = 1 / (1 + np.exp(-(score - lift / 2)))
            key = {k: cell[k] for k in ("arm", "task", "classifier", "real_fraction", "repeat", "receiver")} | {
                "tested_on": centre
            }
            for metric, value in ((name, metric(labels, probability)) for name, metric in METRICS.items()):
                results.append(
                    key
                    | {
                        "strategy": cell["strategy"],
                        "metric": metric,
                        "value": value,
                        "n_real": 168,
                        "n_synthetic": SYNTHETIC.get(arm, 600),
                    }
                )
            predictions += [
                key | {"case": case, "patient": case // 2, "class": "lesion", "label": int(y), "probability": p}
                for case, (y, p) in enumerate(zip(labels, probability, strict=True))
            ]
    clock.tick(18)
    if status != "interrupted":
        record.write_results(results)
        record.write_predictions(predictions)
        clock.event(
            "run_finished", status=status, seconds=clock.t, text="" if status == "completed" else "some units failed"
        )
    return record


class _Clock:
    """Writes events with times of its own, as if hours had passed."""

    def __init__(self, record: RunRecord, resumed: bool):
        self.record, self.t, self.resumed = record, 1_790_000_000.0, resumed
        self.done: list[dict[str, Any]] = []

    def event(self, event: str, **fields: Any) -> None:
        self.record.event(event, **({"t": self.t} | fields))

    def tick(self, seconds: float) -> None:
        self.t += seconds

    def unit(
        self, unit: str, info: dict[str, Any], *, seconds: float, down: int, up: int, lane: int | bool = 0, arrays=None
    ) -> None:
        self.work(unit, info, seconds=seconds, down=down, up=up, lane=lane)
        self.record.write_unit(unit, info, arrays)
        if lane:
            self.tick(seconds)

    def work(
        self, unit: str, info: dict[str, Any], *, seconds: float, down: int, up: int, lane: int | bool = 0
    ) -> None:
        """The events of a unit alone."""
        who = {k: info[k] for k in ("kind", "centre", "label")}
        self.event("unit_started", unit=unit, **who)
        finished = {"unit": unit, **who, "started": self.t, "finished": self.t + seconds, "seconds": seconds,
                    "bytes_down": down, "bytes_up": up, "cached": False, "worker": int(lane)}  # fmt: skip
        self.event("unit_finished", **finished, t=self.t + seconds)
        self.done.append(finished)

    def kill_and_resume(self) -> None:
        self.tick(36_000)
        self.event("run_started", run_id="x", resumed=True)
        self.tick(14)
        for finished in self.done:
            self.event("unit_finished", **(finished | {"cached": True}))


# -- federations ---------------------------------------------------------------------------------------------------

SPEED = {"A": 1.0, "B": 0.6, "C": 1.4}


def _federate(clock: _Clock, rng: np.random.Generator) -> None:
    record, weights = clock.record, 1_700_000
    for number in range(20):
        for centre in "ABC":
            info = {"kind": "gan_round", "centre": centre, "label": f"average, round {number} at {centre}"}
            clock.work(f"r-{number}-{centre}", info, seconds=3, down=weights, up=weights)
        clock.tick(3)
    record.write_convergence([
        *convergence_rows("average", {"A": 3200, "B": 1600, "C": 900}, rounds=20, rng=rng),
        *convergence_rows("async", {"A": 2500, "B": 1900, "C": 1700}, rounds=12, rng=rng, series=("federation",)),
        *convergence_rows("central", {"A": 1500}, rounds=20, rng=rng, series=("central",)),
    ])  # fmt: skip
    lockstep = lockstep_rows("average", SPEED, rounds=20, rng=rng)
    jobs = asynchronous_rows("async", SPEED, jobs=72, rng=rng, gone={"C": 310.0})
    record.write_virtual_time([*lockstep, *jobs])
    for i, job in enumerate(jobs):
        if job["outcome"] in ("used", "stale"):
            info = {"kind": "gan_gradient", "centre": job["centre"], "label": f"async, job {i}"}
            clock.work(f"a-{i}", info, seconds=1, down=400_000, up=210_000)
            clock.tick(0.4)
    counts = {outcome: sum(job["outcome"] == outcome for job in jobs) for outcome in ("used", "lost", "late", "stale")}
    record.write_federations([
        federation_entry("async", rounds_or_updates=counts["used"], jobs=len(jobs), **counts),
        {"arm": "average", "task": "lesion", "strategy": "fedavg_gan", "rounds_or_updates": 20, "jobs": 60, "used": 60,
         "lost": 0, "late": 0, "stale": 0, "gone": [], "state_lost": [], "transport": None, "notes": [], "failed": ""},
    ])  # fmt: skip
    record.write_expected([
        {"centre": centre, "kind": kind, "messages": n, "bytes_down": down and down * n, "bytes_up": up and up * n,
         "steps": steps * n}
        for centre in "ABC"
        for kind, n, down, up, steps in (
            ("gan_round", 20, weights, weights, 30), ("gan_gradient", 20, 400_000, 210_000, 8), ("survey", 1, 0, 0, 0),
            ("learn", 54 * (centre == "A"), 0, 700_000, 400), ("synthesise", 1 * (centre == "A"), 3_400_000, 0, 0),
            ("train_generator", 2 * (centre == "B"), 0, 3_400_000, 900), ("send_patches", 1, None, None, 0),
        )
        if n
    ])  # fmt: skip


def federation_entry(arm: str, **changes: Any) -> dict[str, Any]:
    """An entry of federations.json in which much went wrong."""
    entry = {"arm": arm, "task": "lesion", "strategy": "dm_gan", "rounds_or_updates": 5, "jobs": 8, "used": 5, "lost": 1,
             "late": 1, "stale": 1, "gone": [{"centre": "C", "from_s": 310.0}], "state_lost": [{"centre": "B", "number": 7}],
             "transport": {"how": "fp16", "relative_error": 1.2e-4}, "notes": [], "failed": ""}  # fmt: skip
    return entry | changes


def convergence_rows(
    arm: str,
    images: dict[str, int],
    *,
    rounds: int,
    rng: np.random.Generator,
    series: tuple[str, ...] = ("federation", "alone"),
) -> list[dict[str, Any]]:
    """Falling curves of both measures: images is how many bring a centre alone down by a factor of e.

    A federation falls as fast as its best centre; alone, the curve levels off above where the federation does.
    """
    rows = []
    for metric, floor, start in (("fd_texture", 1.29, 90.0), ("fd_randnet", 5.9, 240.0)):
        for name in series:
            together = floor * 1.8 + start * np.exp(-np.arange(1, rounds + 1) * 480 / min(images.values()))
            together *= np.exp(rng.normal(0, 0.05, rounds))
            for centre, scale in images.items():
                seen = 480 * np.arange(1, rounds + 1)
                alone = floor * 2 + start * np.exp(-seen / (1.1 * scale)) * np.exp(rng.normal(0, 0.05, rounds))
                central = floor * 2.2 + start * np.exp(-seen / scale) * np.exp(rng.normal(0, 0.03, rounds))
                values = {"federation": together, "alone": alone, "central": central}[name]
                rows += [
                    {"arm": arm, "task": "lesion", "series": name, "centre": centre, "round": r + 1,
                     "images_seen": int(seen[r]), "virtual_s": 20.0 * (r + 1) if name == "federation" else None,
                     "metric": metric, "value": values[r], "floor": floor}
                    for r in range(rounds)
                ]  # fmt: skip
    return rows


def lockstep_rows(arm: str, speed: dict[str, float], *, rounds: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rounds that wait for the slowest centre."""
    rows, now = [], 0.0
    for number in range(rounds):
        took = {centre: 12 / s * rng.uniform(0.9, 1.1) for centre, s in speed.items()}
        for centre, seconds in took.items():
            rows.append({"arm": arm, "task": "lesion", "strategy": "fedavg_gan", "centre": centre, "number": number,
                         "kind": "gan_round", "sent_s": now, "started_s": now + 0.5, "finished_s": now + 0.5 + seconds,
                         "outcome": "used", "staleness": None})  # fmt: skip
        now += 1 + max(took.values())
    return rows


def asynchronous_rows(
    arm: str, speed: dict[str, float], *, jobs: int, rng: np.random.Generator, gone: dict[str, float] | None = None
) -> list[dict[str, Any]]:
    """Every centre gets its next job when the last one ended; some are lost, late, too stale, or meet an outage."""
    clocks = dict.fromkeys(speed, 0.0)
    rows: list[dict[str, Any]] = []
    updates = 0
    for _ in range(jobs):
        able = [c for c in speed if clocks[c] < (gone or {}).get(c, np.inf)]
        centre = min(able, key=lambda c: (clocks[c], c))
        sent = clocks[centre]
        seconds = 12 / speed[centre] * rng.uniform(0.7, 1.3)
        outcome = str(
            rng.choice(["used", "lost", "late", "stale", "outage", "refused"], p=[0.8, 0.06, 0.04, 0.05, 0.04, 0.01])
        )
        started: float | None = sent + 0.5
        finished: float | None = sent + 0.5 + seconds
        if outcome in ("outage", "refused"):
            started = finished = None
        elif outcome == "lost" and rng.random() < 0.5:
            finished = None
        rows.append({"arm": arm, "task": "lesion", "strategy": "dm_gan", "centre": centre, "number": updates,
                     "kind": "gan_gradient", "sent_s": sent, "started_s": started, "finished_s": finished,
                     "outcome": outcome, "staleness": int(rng.integers(0, 4))})  # fmt: skip
        updates += outcome == "used"
        clocks[centre] = sent + 1 + seconds
    return rows


def partition_rows(centres):
    """What the centres say of "lesion": the first class of each split is larger, and nobody has negatives to validate on."""
    return [
        {
            "centre": centre, "task": "lesion", "split": split, "class": label, "patients": patients, "images": images,
            "digest": f"{i:016x}",
        }
        for i, centre in enumerate(centres)
        for split, label, patients, images in [
            ("train", "lesion", 35, 40 + 5 * i), ("train", "healthy", 10, 30), ("val", "lesion", "<5", "<5"),
            ("test", "healthy", "<5", 5), ("test", "lesion", 5, 10),
        ]
    ]  # fmt: skip


def many(folder: Path, *, centres: int = 1000, rounds: int = 3, jobs: int = 4000) -> RunRecord:
    """A federation of many centres, and nothing else."""
    rng = np.random.default_rng(0)
    names = [f"c{i:04d}" for i in range(centres)]
    speed = dict(zip(names, rng.uniform(0.2, 2, centres).tolist(), strict=True))
    lines = [f"  {name}: {{roles: [provider], data: {{source: phantom, patients: 16}}}}" for name in names]
    scenario = "name: many\nseed: 0\nrepeats: 1\ncentres:\n" + "\n".join(lines)
    scenario += "\ntask: {name: lesion, label: lesion}\narms:\n" + FEDERATED
    record = RunRecord.create(folder, scenario, {})
    record.write_kinds(KINDS)
    clock = _Clock(record, resumed=False)
    clock.event("run_started", run_id="many", resumed=False)
    current = []
    for i, name in enumerate(names):
        card = {"patients": 16, "boxes": {"train": {"lesion": 5 + i % 40, "healthy": 5 + i % 40}}}
        info = {"kind": "survey", "centre": name, "label": "survey", "result": {"tasks": {"lesion": {"card": card}}}}
        current.append((f"s-{name}", info, 0, 900))
        for number in range(rounds if i != 17 else 1):
            current.append(
                (f"r-{name}-{number}", {"kind": "gan_round", "centre": name, "label": "r"}, 60_000, 60_000 + i)
            )
    record.write_partition(partition_rows(names))
    for unit, info, down, up in current:
        clock.work(unit, info, seconds=0.02, down=down, up=up)
        clock.tick(0.02)
        if "result" in info:
            record.write_unit(unit, info)
    clock.tick(2)
    clock.event("run_finished", status="completed", seconds=1.0, text="")
    images = dict(zip(names, rng.integers(500, 4000, centres).tolist(), strict=True))
    record.write_convergence([
        *convergence_rows("average", images, rounds=8, rng=rng),
        *convergence_rows("central", {names[0]: 1500}, rounds=8, rng=rng, series=("central",)),
    ])  # fmt: skip
    record.write_virtual_time(asynchronous_rows("async", speed, jobs=jobs, rng=rng))
    record.write_expected([
        {"centre": name, "kind": kind, "messages": n, "bytes_down": size * n, "bytes_up": size * n, "steps": 30 * n}
        for name in names
        for kind, n, size in (("gan_round", rounds, 60_000), ("survey", 1, 0))
    ])  # fmt: skip
    return record


def deployed(folder: Path) -> RunRecord:
    """Rounds over three nodes: B slow, lost once and found again, C gone for good in the end; C refuses, A's clock is off."""
    record = RunRecord.create(folder, SCENARIO, {
        "python": "3.11.9", "versions": {"torch": "2.13.0", "numpy": "2.3.0"}, "code": {"digest": "0123456789abcdef"},
    })  # fmt: skip
    record.write_kinds(KINDS)
    clock = _Clock(record, resumed=False)
    clock.event("run_started", run_id=folder.name, resumed=False, deployment="hospitals")
    clock.tick(8)
    theirs = {"A": {"clock_off_s": 97.4}, "B": {"versions": {"python": "3.11.9", "torch": "2.12.1", "numpy": "2.3.0"}}}
    for centre in "ABC":
        said = {"code": "0123456789abcdef", "versions": {"python": "3.11.9", "torch": "2.13.0"}, "clock_off_s": -0.2}
        clock.event("node", centre=centre, **(said | theirs.get(centre, {})))
    computing, start = {"A": 9.0, "B": 26.0, "C": 12.0}, clock.t
    events = []
    for centre, seconds in computing.items():
        answered = start
        for number in range(14 if centre != "B" else 8):
            who = {"unit": f"r-{centre}-{number}", "kind": "train_round", "centre": centre, "label": f"round {number}"}
            turn = answered
            if centre == "B" and number == 3:
                events.append(
                    (turn + 20, "note", {"centre": "B", "text": "its node was lost; waiting", "node": "lost"})
                )
                events.append((turn + 95, "note", {"centre": "B", "text": "its node is back", "node": "back"}))
                turn += 95
            began = turn + 2.5 + number % 3
            answered = began + seconds + 1.5
            # Two on their way at once: each was sent when the one before the last was answered.
            events.append((max(start, turn - seconds - 5 if number > 1 else start), "unit_started", who))
            clock_off = 97.4 if centre == "A" else 0.0
            times = {"started": began + clock_off, "finished": began + seconds + clock_off, "seconds": seconds}
            events.append((answered, "unit_finished", who | times | {"bytes_down": 1_700_000, "bytes_up": 1_650_000,
                                                                     "cached": False, "worker": f"{centre}/1"}))  # fmt: skip
        if centre == "C":
            for number, (code, text) in enumerate((
                ("policy", "centre 'C' refuses train b_flow by its own policy (strategies)"),
                ("outside_hours", "centre 'C' does not work on round 15 now: its hours are 19:00 to 07:00"),
                ("outside_hours", "centre 'C' does not work on round 16 now: its hours are 19:00 to 07:00"),
                ("diverged", "centre 'C' could not train b_gan: the loss became NaN at step 4; lower the learning rate"),
            )):  # fmt: skip
                label = ("train b_flow", "round 15", "round 16", "train b_gan")[number]
                who = {"unit": f"x-{number}", "kind": "train_generator", "centre": "C", "label": label}
                events.append((answered + 3 * number, "unit_started", who))
                events.append((answered + 3 * number + 2.5, "unit_failed", who | {"code": code, "text": text}))
            events.append(
                (answered + 40, "note", {"centre": "C", "text": "its node was lost; waiting", "node": "lost"})
            )
    for t, event, fields in sorted(events, key=lambda e: e[0]):
        clock.event(event, **fields, t=t)
    clock.t = max(t for t, *_ in events) + 9
    clock.event("run_finished", status="failed", seconds=clock.t, text="some units failed")
    return record


def _card(rng: np.random.Generator) -> dict[str, Any]:
    n = int(rng.integers(80, 300))
    return {
        "image": {"channels": 1, "size": 32},
        "patients": n,
        "boxes": {
            "train": {"healthy": n, "lesion": n}, "val": {"healthy": n // 5, "lesion": n // 5},
            "test": {"healthy": n // 5, "lesion": n // 5},
        },
        "patches": 8 * n,
        "spacing_mm": [0.2],
        "scanner": {"film": n},
        "view": {"CC": n // 2, "MLO": n // 2},
        "density": {"a": "<5", "b": n // 2, "c": n // 3, "d": 9},
    }  # fmt: skip


def _blobs(rng: np.random.Generator, n: int, size: int = 32) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size - 0.5
    centre = rng.uniform(-0.2, 0.2, (n, 2, 1, 1))
    field = (
        90
        + 130
        * np.exp(-((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2) / 0.03)
        * (np.arange(n) < n // 2)[:, None, None]
    )
    return np.clip(field + rng.normal(0, 12, (n, size, size)), 0, 255).astype(np.uint8)[:, None]


if __name__ == "__main__":
    out, shape = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "completed"
    if shape in ("many", "deployed"):
        made = many(out) if shape == "many" else deployed(out)
    else:
        federated = shape == "federated"
        made = make(out, status="completed" if federated else shape, federated=federated)
    print(build_report(made))
