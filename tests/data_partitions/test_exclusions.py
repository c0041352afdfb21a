"""Exclusion lists: what is left out, by which name, and what is said of it."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_partitions import DataError
from data_partitions.archives.exclusions import names_of
from data_partitions.archives.folder import FolderSource
from data_partitions.archives.medmnist import MedmnistSource
from data_partitions.build import build_patches
from data_partitions.exams import Exam
from data_partitions.patches import PatchTask
from data_partitions.reading.image_files import ORIENTATION
from data_partitions.split import SplitRule


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    rows = ["image,patient_id,label"]
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{i:03d}.png")
        rows.append(f"images/{i:03d}.png,p{i},{i % 2}")
    (tmp_path / "data" / "metadata.csv").write_text("\n".join(rows))
    return tmp_path


def test_images_go_by_path_file_or_stem_and_are_counted_by_reason(folder):
    (folder / "out.csv").write_text(
        "image,reason\nimages/001.png,clip\n002.png,implant\n003,implant\nnone.png,clip\n007,\n"
    )
    cohort = FolderSource(path=folder / "data", exclude=folder / "out.csv").load("A", 0)
    assert {e.name for e in cohort.exams} == {f"images/{i:03d}.png" for i in (0, 4, 5, 6, 8, 9, 10, 11)}
    assert cohort.report["excluded"] == {"reasons of fewer than 5 images each": 4}, "and their words stay here"
    assert "<5 images excluded: reasons of fewer than 5 images each" in cohort.report["notes"]
    assert [row[:3] for row in cohort.private["account"]][:2] == [
        ("left out", "excluded: clip", 1),
        ("left out", "excluded: implant", 2),
    ]
    assert "<5 names of the exclusion list match no image here" in cohort.report["notes"]
    assert cohort.private["excluded_unknown"] == ["none.png"]


def test_another_list_is_another_data_set(folder):
    (folder / "out.csv").write_text("image_id\n001\n")
    task = PatchTask(label="malignancy", whole_image=True, image_size=16)

    def count():
        source = FolderSource(path=folder / "data", exclude=folder / "out.csv")
        return len(build_patches(source, task, SplitRule(), centre="A", seed=0, cache=folder / "cache"))

    assert count() == 11
    (folder / "out.csv").write_text("image_id\n001\n002\n")
    assert count() == 10


def test_a_list_that_cannot_be_read(folder):
    source = FolderSource(path=folder / "data", exclude=folder / "out.csv")
    with pytest.raises(DataError, match="out.csv does not exist; correct `exclude`"):
        source.files_digest()
    (folder / "out.csv").write_text("name,why\n001,clip\n")
    with pytest.raises(DataError, match="no column for image; it has name, why"):
        source.load("A", 0)


def test_any_source_takes_one(tmp_path):
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
        arrays[f"{split}_images"][:, 0, 0] = {"train": 1, "val": 2, "test": 3}[split]
        arrays[f"{split}_labels"] = np.array([0, 1, 0, 1])
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    (tmp_path / "out.csv").write_text("image\ntrain_00002\n")
    cohort = MedmnistSource(path=tmp_path / "breastmnist.npz", exclude=tmp_path / "out.csv").load("A", 0)
    assert len(cohort.exams) == 11 and "train_00002" not in {e.name for e in cohort.exams}


def test_a_list_that_has_no_header_is_refused_even_if_it_is_one_line(folder):
    (folder / "out.csv").write_text("images/001.png\n")
    with pytest.raises(DataError, match="no column for image; it has images/001.png"):
        FolderSource(path=folder / "data", exclude=folder / "out.csv").load("A", 0)


def test_a_list_may_serve_all_parts_of_a_folder(folder):
    """Its names are compared with the images of the whole folder."""
    (folder / "out.csv").write_text("image\n000\n001\n002\nnobody\n")
    parts = [
        FolderSource(path=folder / "data", exclude=folder / "out.csv", part=f"{k}/3").load("A", 0) for k in (1, 2, 3)
    ]
    assert sum(len(part.exams) for part in parts) == 9
    assert [part.report["excluded_unknown"] for part in parts] == [1, 1, 1]
    assert all(part.private["excluded_unknown"] == ["nobody"] for part in parts)


def test_changes_are_those_of_the_images_that_are_used(folder):
    """What was left out is told of the whole folder, and said to be."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for number in range(12):
        path = folder / "data" / "images" / f"{number:03d}.png"
        with Image.open(path) as picture:
            picture.save(path, exif=exif)
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(folder / "data" / "images" / "000.png")
    (folder / "out.csv").write_text("image\n001\n")
    whole = FolderSource(path=folder / "data", exclude=folder / "out.csv").load("A", 0)
    assert whole.report["turned"] == 10 and whole.report["blank_images"] == 1
    assert not any("of which this centre has a part" in note for note in whole.report["notes"])
    parts = [FolderSource(path=folder / "data", exclude=folder / "out.csv", part=f"{k}/2").load("A", 0) for k in (1, 2)]
    assert sum(part.report["turned"] for part in parts) == 10
    assert all(part.report["blank_images"] == 1 for part in parts)
    assert all(any("of which this centre has a part" in note for note in part.report["notes"]) for part in parts)


def test_a_uid_has_no_ending():
    exam = Exam("p", "1.2.840.1000.12", (4, 4), lambda: None, file="a/IM.1")
    assert set(names_of(exam)) == {"1.2.840.1000.12", "a/IM.1", "IM.1"}
    assert set(names_of(replace(exam, name="x.PNG", file=""))) == {"x.PNG", "x"}
