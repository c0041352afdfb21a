"""A run folder full of random numbers, shaped as a real one: what the report is looked at and tested with.

`python tests/reports/fake_run.py FOLDER` writes one and builds its report.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

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


def make(
    folder: Path, *, repeats: int = 3, status: str = "completed", patients: int = 90, resumed: bool = True
) -> RunRecord:
    """A record of 5 arms, 2 classifiers, `repeats` repeats, tested at A and C.

    status: completed, failed (B's wgan fails and its arm is missing) or interrupted (no results, no end).
    """
    rng = np.random.default_rng(0)
    record = RunRecord.create(folder, SCENARIO.replace("repeats: 3", f"repeats: {repeats}"), {
        "python": "3.11.9", "cpu": "Imaginary CPU", "cpus": 2, "memory_gib": 7.8, "versions": {"torch": "2.13.0"},
        "code": {"digest": "0123456789abcdef0123", "folder": "/somewhere"},
    })  # fmt: skip
    arms = [arm for arm in GAIN if not (status == "failed" and arm == "b_wgan")]
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
    results, predictions = [], []
    test_labels = {centre: (np.arange(2 * patients) % 5 < 2).astype(int) for centre in "AC"}
    for i, (arm, classifier, repeat) in enumerate(
        (a, c, r) for c in ("cnn_small", "swin_tiny") for a in arms for r in range(repeats)
    ):
        if resumed and i == 2 * repeats:
            clock.kill_and_resume()
        cell = {"arm": arm, "strategy": STRATEGY[arm], "task": "lesion", "classifier": classifier, "real_fraction": 1.0,
                "real_images": None, "repeat": repeat, "receiver": "A"}  # fmt: skip
        step = np.arange(100, 1001 if "flow" in arm else 501, 100)
        history = {
            "step": step,
            "loss": 1 / step,
            "val_auprc": 0.75 + GAIN[arm] - 20 / step + rng.normal(0, 0.01, len(step)),
        }
        info = {
            "kind": "learn",
            "centre": "A",
            "label": f"{arm} · {classifier} · repeat {repeat}",
            "result": {"cell": cell, "history": history},
        }
        clock.unit(
            f"l-{i:03d}", info, seconds=11 if classifier == "cnn_small" else 17, down=2_000, up=700_000, lane=i % 2
        )
        for centre in "AC":
            labels = test_labels[centre]
            # The same easy and hard cases in every arm and repeat, as with a real test set.
            difficulty = np.random.default_rng(ord(centre)).normal(0, 0.9, len(labels))
            lift = (1.1 if centre == "A" else 0.7) + 6 * GAIN[arm] + rng.normal(0, 0.04)
            score = labels * lift + difficulty + rng.normal(0, 0.25, len(labels))
            probability = 1 / (1 + np.exp(-(score - lift / 2)))
            key = {k: cell[k] for k in ("arm", "task", "classifier", "real_fraction", "repeat", "receiver")} | {
                "tested_on": centre
            }
            for metric, value in _metrics(labels, probability).items():
                results.append(
                    key
                    | {
                        "strategy": cell["strategy"],
                        "metric": metric,
                        "value": value,
                        "n_real": 168,
                        "n_synthetic": SYNTHETIC[arm],
                    }
                )
            predictions += [
                key | {"case": case, "patient": case // 2, "label": int(y), "probability": p}
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
        who = {k: info[k] for k in ("kind", "centre", "label")}
        self.event("unit_started", unit=unit, **who)
        finished = {"unit": unit, **who, "started": self.t, "finished": self.t + seconds, "seconds": seconds,
                    "bytes_down": down, "bytes_up": up, "cached": False, "worker": int(lane)}  # fmt: skip
        self.event("unit_finished", **finished, t=self.t + seconds)
        self.record.write_unit(unit, info, arrays)
        self.done.append(finished)
        if lane:
            self.tick(seconds)

    def kill_and_resume(self) -> None:
        self.tick(36_000)
        self.event("run_started", run_id="x", resumed=True)
        self.tick(14)
        for finished in self.done:
            self.event("unit_finished", **(finished | {"cached": True}))


def _card(rng: np.random.Generator) -> dict[str, Any]:
    n = int(rng.integers(80, 300))
    return {
        "image": {"channels": 1, "size": 32},
        "patients": n,
        "boxes": {
            "train": {"negative": n, "positive": n}, "val": {"negative": n // 5, "positive": n // 5},
            "test": {"negative": n // 5, "positive": n // 5},
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


def _metrics(labels: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import (
        accuracy_score,
        average_precision_score,
        balanced_accuracy_score,
        f1_score,
        roc_auc_score,
    )

    predicted = probability > 0.5
    return {
        "accuracy": accuracy_score(labels, predicted), "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "f1": f1_score(labels, predicted), "auroc": roc_auc_score(labels, probability),
        "auprc": average_precision_score(labels, probability),
    }  # fmt: skip


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), status=sys.argv[2] if len(sys.argv) > 2 else "completed").build())
