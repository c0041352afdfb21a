"""Survey duty: make or load this centre's patches, check them, and answer with a data card (no pixels)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from basics.atomic_files import write_text
from basics.csv_table import to_csv
from clients.node import Node, device_for, platform_of
from data_partitions import SOURCES, DataError, PatchDataset, PatchTask, SplitRule, build_patches
from data_partitions.small_counts import suppressed_count
from federation.wire.job import Job, plain_name
from models import probe_precision
from reports.samples import save_grid


def load_patches(node: Node, body: dict, label: str = "", unit: str = "") -> PatchDataset:
    """The patches that a job's body describes: made once, then opened from the cache.

    The body's `data` names the source, `task` the patches, `split` the shares, `data_seed` the stream.
    """
    data = body["data"]
    source: Any = TypeAdapter(SOURCES[data["source"]]).validate_python(data)
    return build_patches(
        source,
        PatchTask.model_validate(body["task"]),
        SplitRule.model_validate(body["split"]),
        centre=node.centre,
        seed=body["data_seed"],
        cache=node.cache,
        on_progress=node.progress(unit, label) if unit else None,
    )


def survey(node: Node, job: Job) -> tuple[dict, dict[str, np.ndarray]]:
    """Data card, keyed digest and platform for each task; refuses data that no training could use.

    Body: `data`, `split`, `data_seed`, `compute`; `tasks`: list of {task, needs: {positives, batches: [...],
    validation}}; `models`: generators to be trained here, for the precision probe.
    """
    device = device_for(job.body["compute"]["device"])
    cards: dict[str, dict] = {}
    for entry in job.body["tasks"]:
        task = entry["task"]
        started = time.perf_counter()
        try:
            patches = load_patches(node, job.body | {"task": task}, f"patches for {task['name']}", job.unit)
        except DataError as error:
            _write_problems(node, job, error)
            raise
        _check(patches, task["name"], entry["needs"])
        cards[task["name"]] = {
            "card": patches.data_card(),
            "digest": patches.digest(node.secret()),
            "partition": patches.partition_rows(node.secret()),
            "notes": patches.report.get("notes", []),
            "left_out": {
                name: {why: suppressed_count(n) for why, n in patches.report[name].items()}
                for name in ("skipped", "excluded")
                if patches.report.get(name)
            },
            "seconds": time.perf_counter() - started,
        }
        _local_pictures(node, patches, task["name"])
    precision = {
        name: probe_precision(spec, device=device, setting=job.body["compute"]["precision"], cache=node.cache)
        for name, spec in job.body.get("models", {}).items()
    }
    return {"tasks": cards, "platform": platform_of(device), "device": device, "precision": precision}, {}


def _write_problems(node: Node, job: Job, error: DataError) -> None:
    """All faults of this centre's data, one line each; they name files and rows and stay in the workspace."""
    file = node.workspace / "problems.csv"
    rows = [{"kind": problem.code, "what": problem.text} for problem in error.problems]
    write_text(file, to_csv(rows, ("kind", "what")))
    node.log(f"{job.label} [{job.unit}]: {len(rows)} problems of the data, all of them listed in {file}")


def _check(patches: PatchDataset, task: str, needs: dict) -> None:
    train = patches.select(split="train")
    boxes = train.table.drop_duplicates("box")["label"].value_counts()
    positives, negatives = int(boxes.get(1, 0)), int(boxes.get(0, 0))
    if needs.get("positives") and positives < needs["positives"]:
        if positives == 0:
            raise DataError("no_lesions", f"no positive training example for task {task}", task=task)
        raise DataError(
            "too_few_positives",
            f"{positives} positives for task {task}",
            have=positives,
            need=needs["positives"],
            task=task,
        )
    if needs.get("negatives") and negatives < needs["negatives"]:
        raise DataError(
            "too_few_negatives",
            f"{negatives} negatives for task {task}",
            have=negatives,
            need=needs["negatives"],
            task=task,
        )
    if needs.get("images") and positives + negatives < needs["images"]:
        have = positives + negatives
        raise DataError(
            "too_few_images", f"{have} images, {needs['images']} wanted", have=have, need=needs["images"], task=task
        )
    for batch in needs.get("batches", []):
        have = len(train) if batch["both"] else len(train.select(label=1))
        if have < batch["batch_size"]:
            raise DataError(
                "batch_too_large",
                f"{have} patches, batch {batch['batch_size']}",
                have=have,
                batch_size=batch["batch_size"],
            )
    if needs.get("validation"):
        labels = patches.select(split="val").labels
        if len(set(labels.tolist())) < 2:
            raise DataError(
                "no_validation", f"validation split of task {task} holds one class",
                positives=int((labels == 1).sum()), negatives=int((labels == 0).sum()), task=task,
            )  # fmt: skip


def _local_pictures(node: Node, patches: PatchDataset, task: str) -> None:
    """Contact sheet of real patches; stays in this centre's workspace."""
    train = patches.select(split="train")
    rows = [train.select(label=label) for label in (1, 0)]
    images = [part.uint8(np.linspace(0, len(part) - 1, min(32, len(part))).astype(int)) for part in rows if len(part)]
    if images:
        save_grid(node.workspace / "samples" / f"{plain_name(task, 'task')}.png", np.concatenate(images), columns=16)
