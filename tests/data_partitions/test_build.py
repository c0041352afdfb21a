"""Patches are made once, by one process, from nothing but their own arguments."""

import json
import multiprocessing
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

from data_partitions import DataError, PatchTask, SplitRule, build_patches, extraction
from data_partitions.archives.folder import FolderSource
from data_partitions.build import _key
from data_partitions.exams import Box, Cohort, Exam, Lesion
from data_partitions.phantom.phantom import PhantomSource

TASK = PatchTask(image_size=16, margin_mm=4, crops=2)
SMALL = PhantomSource(patients=8)
TINY = PhantomSource(patients=2, lesion_fraction=1)


def build(cache, source=SMALL, task=TASK, split=None, centre="A", seed=0, **arguments):
    return build_patches(source, task, split or SplitRule(), centre=centre, seed=seed, cache=cache, **arguments)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_rows_and_pixels(cache):
    data = build(cache)
    assert data.pixels.shape == (len(data), 1, 16, 16) and data.pixels.dtype == np.uint8
    boxes = data.table.drop_duplicates("box")
    assert (boxes.groupby("split")["label"].mean() == 0.5).all()  # as many healthy boxes as lesions, in each split
    crops = data.table.groupby(["split", "box"]).size()
    assert (crops["train"] == 2).all() and (crops.drop("train") == 1).all()
    assert (data.table.groupby("patient")["split"].nunique() == 1).all()
    assert set(boxes[boxes["label"] == 0]["lesion_type"]) == {""}
    assert boxes[boxes["label"] == 1]["birads"].str.fullmatch("[2-5][abc]?").all()


def test_no_identity_is_in_the_table_and_the_private_file_is_the_owners(cache):
    build(cache)
    folder = cache / "patches" / _key(SMALL, TASK, SplitRule(), "A", 0)
    public = (folder / "table.csv").read_text() + (folder / "report.json").read_text()
    private = json.loads((folder / "private.json").read_text())
    assert set(private["patients"]) == {f"P{i:05d}" for i in range(8)}
    assert not any(name in public for name in private["patients"])
    assert stat.S_IMODE((folder / "private.json").stat().st_mode) == 0o600


def test_second_call_opens_what_the_first_made(cache, monkeypatch):
    first = build(cache)
    monkeypatch.setattr(PhantomSource, "load", lambda *_: pytest.fail("built again"))
    again = build(cache)
    assert isinstance(again.pixels, np.memmap)
    assert again.digest(b"k") == first.digest(b"k")


@pytest.mark.parametrize(
    "change",
    [
        {"source": TINY.model_copy(update={"patients": 3})}, {"source": TINY.model_copy(update={"scanner": "film"})}, {"centre": "B"},
        {"seed": 1}, {"task": TASK.model_copy(update={"crops": 3})}, {"split": SplitRule(test_only=True)},
    ],
)  # fmt: skip
def test_each_argument_is_part_of_the_key(cache, change):
    base = build(cache, TINY).digest(b"k")
    before = {f for f in (cache / "patches").iterdir() if f.is_dir()}
    assert build(cache, **{"source": TINY} | change).digest(b"k") != base
    assert len({f for f in (cache / "patches").iterdir() if f.is_dir()} - before) == 1


def test_another_centre_does_not_change_this_one(cache, tmp_path):
    before = build(cache, TINY).digest(b"k")
    build(tmp_path, TINY.model_copy(update={"scanner": "film"}), centre="B")
    assert build(tmp_path, TINY).digest(b"k") == before


def test_more_patients_keep_the_pixels_of_the_first(tmp_path):
    rule = SplitRule(test_only=True)
    few = build(tmp_path, PhantomSource(patients=3, lesion_fraction=1), split=rule).select(labels=(1,))
    many = build(tmp_path, PhantomSource(patients=5, lesion_fraction=1), split=rule).select(labels=(1,))
    assert {p.tobytes() for p in few.stored()} < {p.tobytes() for p in many.stored()}


def _build_in_process(cache, started, results):
    started.wait()
    made = []
    load = PhantomSource.load

    def counted(self, *arguments):
        made.append(1)
        time.sleep(0.3)
        return load(self, *arguments)

    PhantomSource.load = counted
    digest = build(cache, TINY).digest(b"k")
    results.put((len(made), digest))


def test_two_processes_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    started, results = context.Event(), context.Queue()
    workers = [context.Process(target=_build_in_process, args=(tmp_path, started, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    started.set()
    answers = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(made for made, _ in answers) == 1
    assert answers[0][1] == answers[1][1]


def test_nothing_is_left_behind_by_a_build_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        build(tmp_path, TINY)
    assert [f.suffix for f in (tmp_path / "patches").iterdir()] == [".lock"]


def test_progress_reaches_its_total(tmp_path):
    seen = []
    build(tmp_path, TINY, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]


def test_malignancy_needs_no_healthy_boxes(tmp_path):
    data = build(
        tmp_path, PhantomSource(patients=12), PatchTask(label="malignancy", image_size=16, margin_mm=4, crops=1)
    )
    np.testing.assert_array_equal(data.labels, data.table["malignant"].to_numpy())
    assert set(data.labels) == {0, 1}


def test_task_of_one_kind_takes_healthy_boxes_of_its_sizes(tmp_path):
    task = PatchTask(lesions="mass", image_size=16, margin_mm=4, crops=1)
    data = build(tmp_path, PhantomSource(patients=14), task)
    assert set(data.select(labels=(1,)).table["lesion_type"]) == {"mass"}
    assert data.labels.mean() == 0.5


def test_a_centre_without_lesions_is_refused_with_numbers_only(tmp_path):
    with pytest.raises(DataError, match="no lesion of the task's kind") as refused:
        build(tmp_path, PhantomSource(patients=3, lesion_fraction=0))
    assert refused.value.code == "no_lesions" and refused.value.numbers == {"lesions": "all"}
    assert "raise `lesion_fraction` or `patients`" in str(refused.value)


@pytest.mark.parametrize(
    ("lesions", "told"),
    [
        (None, "name the table of lesions in the data's `lesions`"),
        ("lesions.csv", "map the table's words to mass in `kinds`"),
    ],
)
def test_a_folder_without_lesions_is_told_what_to_do(tmp_path, lesions, told):
    Image.linear_gradient("L").resize((40, 40)).save(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("image,patient_id\na.png,p\n")
    (tmp_path / "lesions.csv").write_text("image,kind,x,y,radius\na.png,CALC,20,20,5\n")
    source = FolderSource(path=tmp_path, lesions=lesions)
    with pytest.raises(DataError, match=told) as refused:
        build(tmp_path / "cache", source, task=TASK.model_copy(update={"lesions": "mass"}))
    assert refused.value.code == "no_lesions"


def test_the_number_of_cores_changes_nothing(tmp_path, monkeypatch):
    digests = set()
    for workers in (1, 3):
        monkeypatch.setattr(extraction, "WORKERS", workers)
        digests.add(build(tmp_path / str(workers), TINY).digest(b"k"))
    assert len(digests) == 1


def test_no_image_is_opened_in_vain():
    """As many healthy images as boxes are asked for, whatever is opened ahead."""
    opened = []

    class Plain:
        def __init__(self, name):
            opened.append(name)

        def window(self, box):
            return np.full((box.height, box.width, 1), 90, np.uint8)

        def tissue(self, step):
            return np.ones((-(-80 // step), -(-80 // step)), dtype=bool)

    exams = [
        Exam(f"p{i:02d}", f"e{i:02d}", (80, 80), partial(Plain, f"e{i:02d}"), lesions=(Lesion(Box(30, 30, 40, 40)),) * (i < 6))
        for i in range(30)
    ]  # fmt: skip
    task = PatchTask(image_size=16, margin_px=2)
    table, _ = extraction.Extraction(Cohort(exams), task, 0, None).run(SplitRule(), [])
    assert (table.drop_duplicates("box")["label"] == 0).sum() == 6
    assert len(opened) == 12


def test_an_error_in_an_image_ends_the_build():
    def broken(name):
        raise OSError(f"{name} is gone")

    exams = [Exam(f"p{i:02d}", f"e{i:02d}", (80, 80), partial(broken, f"e{i:02d}")) for i in range(60)]
    with pytest.raises(OSError, match="e00 is gone"):
        extraction.Extraction(Cohort(exams), PatchTask(whole_image=True, image_size=16), 0, None).run(SplitRule(), [])


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_images_wait_for_whoever_cuts_them(workers):
    started = []
    one = extraction.Extraction(Cohort([]), TASK, 0, None)
    with ThreadPoolExecutor(max(1, workers - 1)) as one.pool:
        for done, (item, _) in enumerate(one._ahead(started.append, range(40))):
            time.sleep(0.002)
            assert item == done and len(started) <= done + 1 + extraction.AHEAD
    assert sorted(started) == list(range(40))


def test_random_crops_of_whole_images_keep_the_breast():
    """White breasts on black: every crop holds all of the white there is."""
    breast = np.zeros((120, 80, 1), np.uint8)
    breast[30:80, :40] = 255

    class Plain:
        def window(self, box):
            return breast[box.top : box.bottom, box.left : box.right]

        def tissue(self, step):
            return breast[::step, ::step, 0] > 0

    exams = [Exam(f"p{i:02d}", f"e{i:02d}", (120, 80), Plain, malignant=i % 2 == 0) for i in range(20)]
    task = PatchTask(label="malignancy", whole_image=True, keep_breast=True, image_size=64, crops=5)
    pixels = []
    table, _ = extraction.Extraction(Cohort(exams), task, 0, None).run(SplitRule(), pixels)
    training = (table["split"] == "train").to_numpy()
    assert (table[training].groupby("box").size() == 5).all() and (table[~training].groupby("box").size() == 1).all()
    shares = np.stack(pixels)[:, 0].mean(axis=(1, 2)) / 255
    sides = np.sqrt(50 * 40 / shares)
    # The smallest square is around the mask with a sample more on each side: rows 24 .. 88.
    assert (sides > 63).all() and (sides < 82).all() and np.ptp(sides[training]) > 10
    assert np.ptp(sides[~training]) < 1e-6
