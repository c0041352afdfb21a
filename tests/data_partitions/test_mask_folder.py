"""A folder of masks beside the images: boxes, labels, and every fault at once."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from data_partitions import Box, DataError, PatchTask
from data_partitions.archives.folder import FolderSource

LABELS = {"a": "malignant", "b": "benign", "c": "benign", "d": "malignant"}


def archive(folder, labels=LABELS):
    """Four images, of which a, b and d have a mask; that of b is empty."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number, name in enumerate(labels):
        pixels = np.random.default_rng(number).integers(0, 256, (80, 60), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{name}.png")
    rows = "".join(f"images/{name}.png,p{name},{label}\n" for name, label in labels.items())
    (folder / "metadata.csv").write_text("image,patient_id,label\n" + rows)
    save(folder, "a.tif", (10, 20, 30, 41), (60, 5, 75, 9))
    save(folder, "b.png")
    save(folder, "d.png", (0, 0, 9, 9), value=1)
    return folder


def save(folder, name, *boxes, value=255, shape=(80, 60)):
    mask = np.zeros(shape, np.uint8)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = value
    Image.fromarray(mask).save(folder / "masks" / name)


def load(folder, task=None, **arguments):
    return FolderSource(path=folder, masks="masks", **arguments).load("A", 0, None, task)


def test_what_is_connected_in_a_mask_is_a_lesion_with_the_label_of_its_image(tmp_path):
    exams = {exam.name[7]: exam for exam in load(archive(tmp_path)).exams}
    found = {name: [(x.box, x.kind, x.malignant) for x in exam.lesions] for name, exam in exams.items()}
    assert found == {
        "a": [(Box(10, 20, 30, 41), "other", True), (Box(60, 5, 75, 9), "other", True)],
        "b": [], "c": [], "d": [(Box(0, 0, 9, 9), "other", True)],
    }  # fmt: skip
    assert all(exam.usable_as_healthy for exam in exams.values())


def test_every_fault_is_named_and_counted(tmp_path):
    root = archive(tmp_path, LABELS | {"e": "malignant", "f": "benign", "g": ""})
    save(root, "e.png")
    save(root, "f.png", (1, 1, 5, 5), shape=(40, 30))
    save(root, "g.png", (1, 1, 5, 5))
    save(root, "stranger.png", (1, 1, 5, 5))
    save(root, "a.png", (1, 1, 5, 5))
    (root / "masks/c.png").write_bytes(b"no")
    with pytest.raises(DataError) as error:
        load(root, PatchTask(label="malignancy"))
    codes = Counter(problem.code for problem in error.value.problems)
    assert codes == {
        "empty_mask": 1,
        "mask_size": 1,
        "lesion_without_row": 1,
        "duplicate_lesion": 1,
        "bad_image": 1,
        "no_label": 1,
    }
    cohort = load(root, max_bad_fraction=0.9)
    assert {exam.name[7] for exam in cohort.exams if not exam.usable_as_healthy} == {"a", "c", "e", "f"}
    assert cohort.report["skipped"]["mask_size"] == 1


def test_masks_and_lesions_exclude_each_other_and_an_empty_folder_is_named(tmp_path):
    with pytest.raises(ValidationError, match="name one of them"):
        FolderSource(path=tmp_path, masks="masks", lesions="lesions.csv")
    root = archive(tmp_path)
    for faults in (0.0, 0.9):  # without its masks every image would pass as healthy
        with pytest.raises(DataError, match="holds no mask; correct `masks`"):
            FolderSource(path=root, masks="nowhere", max_bad_fraction=faults).load("A", 0)


def test_masks_in_folders_of_the_folder_are_read(tmp_path):
    root = archive(tmp_path)
    (root / "masks/more").mkdir()
    (root / "masks/a.tif").rename(root / "masks/more/a.tif")
    exams = {exam.name[7]: exam for exam in load(root).exams}
    assert [lesion.box for lesion in exams["a"].lesions] == [Box(10, 20, 30, 41), Box(60, 5, 75, 9)]
    save(root, "a.png", (1, 1, 5, 5))
    with pytest.raises(DataError, match="masks/more/a.tif: masks/a.png has the same name; keep one of them"):
        load(root)
    exams = {exam.name[7]: exam for exam in load(root, max_bad_fraction=0.5).exams}
    assert not exams["a"].usable_as_healthy


def test_a_malignant_lesion_on_a_benign_image_is_a_fault(tmp_path):
    root = archive(tmp_path, {"a": "malignant", "b": "benign", "d": "malignant"})
    save(root, "a.tif", (10, 20, 30, 41), value=2)
    save(root, "b.png", (10, 20, 30, 41), value=2)
    with pytest.raises(DataError, match="masks/b.png has a lesion of the class 'malignant', but its image is benign"):
        load(root, mask_classes={1: "benign", 2: "malignant"})
    save(root, "b.png", (10, 20, 30, 41), value=1)
    exams = load(root, mask_classes={1: "benign", 2: "malignant"}).exams
    assert [[lesion.malignant for lesion in exam.lesions] for exam in exams] == [[True], [False], [False]]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("malignat", "malignant"), ("Mass", "mass"), ("bening", "benign"), ("calcifications", "calcification")],
)
def test_a_misspelt_class_is_no_diagnosis(tmp_path, word, meant):
    root = archive(tmp_path)
    with pytest.raises(DataError, match=f"has the class '{word}', which is nearly '{meant}'; correct `mask_classes`"):
        load(root, mask_classes={255: word, 1: "fibroadenoma"})
    assert {x.diagnosis for e in load(root, mask_classes={255: "cyst", 1: "fibroadenoma"}).exams for x in e.lesions} == {
        "cyst", "fibroadenoma",
    }  # fmt: skip
