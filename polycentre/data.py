"""`polycentre data`: look at every centre's data before any training, where all of it is at hand.

Prints tables of what each centre has, what was left out and why, the archive's own counts, copies, and warnings, and writes
them with contact sheets into one HTML file. All problems of all centres are listed at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from basics.atomic_files import write_text
from data_partitions import Cohort, DataError, PatchDataset, build_patches
from data_partitions.archives.official_counts import counts_of, whole_archive
from data_partitions.near_duplicates import Fingerprint, fingerprint, same_pictures
from data_partitions.patient_splits import patient_splits
from reports.data_page import DataView, data_page, data_text
from reports.pictures import png
from reports.samples import grid_png
from scenarios import reader
from scenarios.plan import Plan
from scenarios.scenario import Scenario
from scenarios.sections import Task
from server.app import default_cache

TINY_VALIDATION = 20  # boxes; below, the best epoch is chosen by chance
TINY_CLASS = 5
SHEET = 32  # patches of each class on a contact sheet
SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Held:
    """What a centre holds for a task."""

    centre: str
    source: Any
    task: Task
    cohort: Cohort
    patches: PatchDataset
    splits: dict[str, str]


def look_at_data(console: Console, file: str, overrides: list[str], out: Path | None, cache: Path | None) -> int:
    """Print the tables, write the page; returns the exit status, 2 where data cannot be used."""
    scenario = reader.read(file, overrides)
    reader.check_files(scenario, file)
    cache = (cache or Path(default_cache())).absolute()
    cache.mkdir(parents=True, exist_ok=True)
    view = DataView(scenario.name, scenario.description.strip())
    held = _held(scenario, cache, view)
    if held:
        view.tables += [_amounts(scenario, held), *_official(held, cache), *_account(held), *_notes(held), _kinds(held)]
        view.tables += _spanning(held)
        view.tables += _same_pictures(scenario, held, cache, view)
        view.warnings[:0] = _warnings(scenario, held)
        view.sheets += [sheet for one in held for sheet in _sheets(one)]
    folder = (out or Path(f"data-{scenario.name}")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "data.html", data_page(view))
    write_text(folder / "data.txt", data_text(view))
    console.print(data_text(view), highlight=False, markup=False, soft_wrap=True)
    console.print(f"page (shows images of patients): {folder / 'data.html'}", highlight=False, soft_wrap=True)
    return 2 if view.problems else 0


def _held(scenario: Scenario, cache: Path, view: DataView) -> list[Held]:
    """Patches of every centre and task; what is wrong with a centre's data joins the view's problems."""
    plan, held = Plan(scenario), []
    for centre, section in scenario.centres.items():
        source: Any = section.data
        for task in scenario.all_tasks:
            body = plan.data(centre, task.name)
            rule, seed = body["split"], body["data_seed"]
            try:
                patches = build_patches(source, task, rule, centre=centre, seed=seed, cache=cache)
                cohort = source.load(centre, seed, cache, task)
            except DataError as error:
                found = [(centre, problem.code, problem.text) for problem in error.problems]
                view.problems += [one for one in found if one not in view.problems]
                continue
            held.append(Held(centre, source, task, cohort, patches, patient_splits(cohort, task, rule, seed)))
    return held


def _amounts(scenario: Scenario, held: list[Held]) -> dict[str, Any]:
    rows = []
    for one in held:
        counts, names = one.patches.counts(), one.patches.classes
        known: list[Any] = [
            one.centre, one.task.name, ", ".join(scenario.centres[one.centre].roles),
            len({exam.patient for exam in one.cohort.exams}), len(one.cohort.exams),
        ]  # fmt: skip
        for label in reversed(range(len(names))):
            rows.append([*known, names[label], *(counts[split][label] for split in SPLITS)])
            known = [*known[:3], "", ""]
    return {
        "caption": "What each centre has: patients, images, and regions by class and split.",
        "header": ["Centre", "Task", "Roles", "Patients", "Images", "Class", *SPLITS.values()],
        "text": [True] * 3 + [False] * 2 + [True] + [False] * 3, "rows": rows,
    }  # fmt: skip


def _official(held: list[Held], cache: Path) -> list[dict[str, Any]]:
    """Counts found in each archive beside its authors' and those of papers; empty where no source knows any."""
    rows, seen = [], set()
    for one in held:
        archive = whole_archive(one.source)
        key = archive.model_dump_json()
        official: dict[str, int] = getattr(archive, "official", {})
        papers: dict[str, int] = getattr(archive, "in_papers", {})
        if key in seen or not official | papers:
            continue
        seen.add(key)
        found = counts_of(archive.load("archive", 0, cache))
        name = f"{archive.source} {getattr(archive, 'release', '')}".strip()
        rows += [
            [name, what, found.get(what, 0), official.get(what, "-"), papers.get(what, "-")]
            for what in dict.fromkeys((*official, *papers, *found))
        ]
    caption = "Archives: what was found, what their authors say, and what papers found."
    header = ["Archive", "Count of", "Found", "Official", "In papers"]
    return [{"caption": caption, "header": header, "text": [True] * 2 + [False] * 3, "rows": rows}] if rows else []


def _notes(held: list[Held]) -> list[dict[str, Any]]:
    # What the table of files tells with its number and an example is not told twice.
    told = {row[1] for one in held for row in one.cohort.private.get("account", [])}
    rows = list(dict.fromkeys(
        (one.centre, note) for one in held for note in one.patches.report.get("notes", []) if note.partition(" ")[2] not in told
    ))  # fmt: skip
    table = {
        "caption": "Left out, moved and noted.",
        "header": ["Centre", "Note"],
        "text": [True, True],
        "rows": rows,
    }
    return [table] if rows else []


def _account(held: list[Held]) -> list[dict[str, Any]]:
    """Per centre what was left out, changed and doubted, with a number and an example; the examples stay here."""
    kinds = {"left out": 0, "changed": 1, "doubted": 2}
    rows = sorted(
        {(one.centre, *row) for one in held for row in map(tuple, one.cohort.private.get("account", []))},
        key=lambda row: (row[0], kinds[row[1]], row[2]),
    )
    table = {
        "caption": "What became of the files: left out, changed and doubted.",
        "header": ["Centre", "Kind", "What", "Number", "For example"],
        "text": [True, True, True, False, True],
        "rows": rows,
    }
    return [table] if rows else []


def _spanning(held: list[Held]) -> list[dict[str, Any]]:
    """Patients (or lesions, where an archive names no patients) found in several centres, and who has them now."""
    names = sorted({name for one in held for name in one.cohort.private.get("spanning_patients", ())})
    home = {one.cohort.group(exam.patient): one.centre for one in held for exam in one.cohort.exams}
    rows = [[name, home.get(name, "none of these")] for name in names]
    caption = f"Patients found in several centres ({len(rows)}), and the centre with most of their images."
    table = {"caption": caption, "header": ["Patient", "Kept in"], "text": [True, True], "rows": rows}
    return [table] if rows else []


def _kinds(held: list[Held]) -> dict[str, Any]:
    """Scanners, views and so on: regions by value."""
    columns = ("scanner", "view", "laterality", "density", "lesion_type")
    rows = []
    for one in held:
        boxes = one.patches.table.drop_duplicates("box")
        found = [boxes.loc[boxes[name] != "", name].value_counts().sort_index() for name in columns]
        cells = [", ".join(f"{value} {n}" for value, n in counts.items()) or "-" for counts in found]
        rows.append([one.centre, one.task.name, *cells])
    header = ["Centre", "Task", *(name.replace("_", " ") for name in columns)]
    return {"caption": "Regions by value.", "header": header, "text": [True] * len(header), "rows": rows}


def _same_pictures(scenario: Scenario, held: list[Held], cache: Path, view: DataView) -> list[dict[str, Any]]:
    """Copies, exact ones everywhere and near ones across centres or splits, and a warning for those that leak."""
    first = {one.centre: one for one in reversed(held)}  # splits are shown for the first task
    places, prints, drawn = [], [], []
    for one in (first[centre] for centre in scenario.centres if centre in first):
        if whole_archive(one.source).source == "phantom":
            drawn.append(one.centre)
            continue
        prints += _fingerprints(one, cache)
        places += [(one.centre, one.splits[e.patient], e.name, one.cohort.group(e.patient)) for e in one.cohort.exams]
    if drawn:
        view.warnings.append(f"{', '.join(drawn)}: drawn by the phantom; images are not compared")
    rows, across = [], {"exact": 0, "near": 0}
    for pair in same_pictures(prints):
        a, b = places[pair.first], places[pair.second]
        leaks = a[:2] != b[:2]
        kind = "exact" if pair.exact else "near"
        if leaks or pair.exact:
            across[kind] += leaks
            where = "across centres" if a[0] != b[0] else "across splits" if leaks else "same side"
            rows.append([
                kind, f"{pair.correlation:.3f}", a[2], f"{a[0]} {SPLITS[a[1]]}", b[2], f"{b[0]} {SPLITS[b[1]]}", where
            ])  # fmt: skip
    for kind, n in across.items():
        if n:
            view.warnings.append(
                f"{n} {kind} copies of images across centres or splits; test images were seen in training"
            )
    header = ["Copy", "Correlation", "Image", "Where", "Image", "Where", "Kept"]
    table = {
        "caption": f"Copies among {len(prints)} images{'.' if rows else ': none.'}", "header": header,
        "text": [True, False] + [True] * 5, "rows": rows,
    }  # fmt: skip
    return [table] if prints else []


def _fingerprints(one: Held, cache: Path) -> list[Fingerprint]:
    """Fingerprints of a centre's images, kept until a file changes, because opening every image takes a while."""
    source = one.source
    names = [exam.name for exam in one.cohort.exams]
    key = json.dumps([source.model_dump(mode="json"), source.files_digest(), names], sort_keys=True)
    kept = cache / "fingerprints" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    if kept.exists():
        with np.load(kept, allow_pickle=False) as file:
            digests, bits, details = file["digests"], file["bits"], file["details"].astype(np.float32)
        return [Fingerprint(str(d), b, x) for d, b, x in zip(digests, bits, details, strict=True)]
    prints = [fingerprint(exam) for exam in one.cohort.exams]
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(f".{os.getpid()}.npz")
    np.savez(
        temporary, digests=np.array([p.digest for p in prints]), bits=np.stack([p.bits for p in prints]),
        details=np.stack([p.detail for p in prints]),
    )  # fmt: skip
    temporary.rename(kept)
    return prints


def _warnings(scenario: Scenario, held: list[Held]) -> list[str]:
    lines = []
    for one in held:
        roles = scenario.centres[one.centre].roles
        counts = one.patches.counts()
        where = f"{one.centre}, {one.task.name}"
        names = one.patches.classes
        totals = {label: sum(counts[split][label] for split in SPLITS) for label in range(len(names))}

        def words(found: Mapping[int, int], names: Sequence[str] = names) -> str:
            return ", ".join(f"{found[label]} {names[label]}" for label in reversed(range(len(names))))

        if sum(n > 0 for n in totals.values()) < 2:
            lines.append(f"{where}: only one class ({words(totals)})")
            continue
        absent = [names[label] for label, n in totals.items() if not n]
        if absent:
            lines.append(f"{where}: no region of {', '.join(absent)}; measures of these classes are not defined here")
        if "receiver" in roles:
            val = counts["val"]
            if sum(val.values()) < TINY_VALIDATION or min(val.values()) < TINY_CLASS:
                lines.append(f"{where}: regions for validation: {words(val)}; chance chooses the best epoch")
        # Of more than two classes the minimum is one of all together, as the survey has it.
        have = counts["train"][1] if len(names) == 2 else sum(counts["train"].values())
        if set(roles) != {"test"} and have < scenario.study.minimum_positives:
            lines.append(
                f"{where}: {have} {names[1] if len(names) == 2 else ''} training regions, below study.minimum_positives "
                f"({scenario.study.minimum_positives}); a run refuses this if the centre learns or shares"
            )
        if min(counts["test"].values()) < TINY_CLASS:
            lines.append(f"{where}: regions for the test: {words(counts['test'])}")
    return lines


def _sheets(one: Held):
    """Contact sheets of a centre's training patches, spread over all of them."""
    train = one.patches.select(split="train" if len(one.patches.select(split="train")) else None)
    for label, word in reversed(list(enumerate(train.classes))):
        part = train.select(labels=(label,))
        if len(part):
            chosen = part.stored(np.linspace(0, len(part) - 1, min(SHEET, len(part))).astype(int))
            caption = f"{one.centre}, {one.task.name}: {word}, {len(chosen)} of {len(part)} patches"
            yield caption, png(grid_png(chosen), f"Grid of real patches of centre {caption}")
