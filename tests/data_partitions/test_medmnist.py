"""MedMNIST files: both shapes of labels, which label is malignant, the official split, and files that are none."""

import numpy as np
import pytest

from data_partitions import DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.medmnist import MedmnistSource
from data_partitions.exams import Box

WHOLE = PatchTask(label="malignancy", whole_image=True, image_size=16)


def archive(folder, name="breastmnist.npz", shape=(28, 28), column=True, **changed):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 20), ("val", 8), ("test", 12)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        labels = (np.arange(n) % 4 > 0).astype(np.uint8)  # every fourth is label 0
        arrays[f"{split}_labels"] = labels[:, None] if column else labels
    np.savez(folder / name, **{k: v for k, v in (arrays | changed).items() if v is not None})
    return folder / name


def build(path, cache, **settings):
    return build_patches(MedmnistSource(path=path, **settings), WHOLE, SplitRule(), centre="A", seed=0, cache=cache)


@pytest.mark.parametrize("column", [True, False])
def test_label_0_of_breastmnist_is_malignant_and_the_split_is_kept(tmp_path, column):
    data = build(archive(tmp_path, column=column), tmp_path / "c")
    assert data.counts() == {"train": {0: 15, 1: 5}, "val": {0: 6, 1: 2}, "test": {0: 9, 1: 3}}
    exams = MedmnistSource(path=tmp_path / "breastmnist.npz").load("A", 0).exams
    arrays = np.load(tmp_path / "breastmnist.npz")
    for exam in exams:
        split, number = exam.name.split("_")
        assert exam.malignant == (arrays[f"{split}_labels"].reshape(-1)[int(number)] == 0)
        window = exam.open().window(Box(0, 0, 28, 28))[..., 0]
        np.testing.assert_array_equal(window, arrays[f"{split}_images"][int(number)])


def test_our_own_split_is_an_option(tmp_path):
    data = build(archive(tmp_path), tmp_path / "c", official_split=False)
    assert {s: sum(n.values()) for s, n in data.counts().items()} == {"train": 28, "val": 7, "test": 5}


def test_colour_and_larger_files_of_a_known_set(tmp_path):
    path = archive(tmp_path, "dermamnist_64.npz", (64, 64, 3))
    cohort = MedmnistSource(path=path).load("A", 0)
    assert cohort.exams[0].shape == (64, 64) and cohort.exams[0].open().window(Box(0, 0, 9, 9)).shape == (9, 9, 3)


def test_an_unknown_set_must_say_what_is_malignant(tmp_path):
    path = archive(tmp_path, "mymnist.npz")
    with pytest.raises(DataError, match="list them in `positive`"):
        MedmnistSource(path=path).load("A", 0, None, WHOLE)
    exams = MedmnistSource(path=path, positive=[1]).load("A", 0).exams
    assert sum(bool(e.malignant) for e in exams) == 30


def test_copies_across_official_splits_are_kept_on_one_side_and_noted(tmp_path):
    path = archive(tmp_path)
    arrays = dict(np.load(path))
    arrays["test_images"][3] = arrays["train_images"][7]
    arrays["val_images"][1] = arrays["val_images"][2]
    np.savez(path, **arrays)
    data = build(path, tmp_path / "c")
    assert data.report["duplicate_images"] == 2
    assert any("<5 of them are in several official splits" in note for note in data.report["notes"])
    assert sum(data.counts()["train"].values()) == 19 and sum(data.counts()["test"].values()) == 13


@pytest.mark.parametrize(
    ("changed", "code", "told"),
    [
        ({"val_images": None}, "bad_columns", "no array val_images"),
        ({"val_labels": np.zeros(3)}, "bad_value", r"shape \(3,\) for 8 images"),
        ({"val_images": np.zeros((8, 28, 28))}, "bad_image", "expected uint8"),
        ({"val_labels": np.full(8, -1)}, "unknown_label", "label -1 is not a class"),
        ({"val_labels": np.full(8, 0.7)}, "unknown_label", "label 0.7 is not a class"),
        ({"val_labels": np.full(8, np.nan)}, "unknown_label", "label nan is not a class"),
        ({"val_labels": np.full(8, 2**40)}, "unknown_label", "is not a class"),
        ({"val_labels": np.array(["a"] * 8)}, "bad_value", "expected whole numbers"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, changed, code, told):
    with pytest.raises(DataError, match=told) as error:
        MedmnistSource(path=archive(tmp_path, **changed)).load("A", 0)
    assert error.value.code == code


def test_what_is_no_file_of_arrays(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        MedmnistSource(path=tmp_path / "breastmnist.npz").load("A", 0)
    (tmp_path / "breastmnist.npz").write_text("no")
    with pytest.raises(DataError, match="not an .npz file"):
        MedmnistSource(path=tmp_path / "breastmnist.npz").load("A", 0)


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_download_that_ended_early_or_has_a_wrong_byte(tmp_path, how):
    data = bytearray(archive(tmp_path).read_bytes())
    if how == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 255
    (tmp_path / "breastmnist.npz").write_bytes(data)
    with pytest.raises(DataError, match="breastmnist.npz .*download it again") as error:
        MedmnistSource(path=tmp_path / "breastmnist.npz").load("A", 0)
    assert error.value.code == "bad_table" and "\n" not in str(error.value)


def test_a_whole_number_may_be_written_as_a_fraction(tmp_path):
    plain = MedmnistSource(path=archive(tmp_path)).load("A", 0)
    floats = MedmnistSource(path=archive(tmp_path, val_labels=np.array([0.0, 1, 1, 1] * 2))).load("A", 0)
    assert [e.malignant for e in floats.exams] == [e.malignant for e in plain.exams]


def test_blank_images_are_left_out_and_are_no_copies_of_each_other(tmp_path):
    images = dict(np.load(archive(tmp_path)))["train_images"]
    test = np.zeros((12, 28, 28), np.uint8)
    test[:7] = np.arange(784).reshape(28, 28) % 251 + np.arange(7, dtype=np.int64)[:, None, None]
    images[-5:] = 0
    path = archive(tmp_path, train_images=images, test_images=test)
    cohort = MedmnistSource(path=path).load("A", 0)
    assert len(cohort.exams) == 40 - 10 and cohort.report["blank_images"] == 10 and cohort.groups == {}
    kept = MedmnistSource(path=path, blank_images="keep").load("A", 0)
    assert len(kept.exams) == 40 and kept.groups == {}


def test_an_archive_that_unpacks_beyond_the_bound_is_refused(tmp_path):
    path = tmp_path / "breastmnist.npz"
    np.savez_compressed(path, train_images=np.zeros((1000, 28, 28), np.uint8))
    assert path.stat().st_size < 1e4
    with pytest.raises(DataError, match="unpacks to 0.8 MB, and at most 0.5 are read") as error:
        MedmnistSource(path=path, limits={"megabytes": 0.5}).load("A", 0)
    assert error.value.code == "file_too_large"


def test_breastmnist_as_it_is(real_images, tmp_path):
    """The official counts, but for one ultrasound that is in training and in test."""
    source = MedmnistSource(path=real_images / "breastmnist_28" / "breastmnist.npz")
    cohort = source.load("A", 0)
    splits = [exam.split for exam in cohort.exams]
    assert {f"split {s}": splits.count(s) for s in ("train", "val", "test")}.items() <= source.official.items()
    assert sum(bool(e.malignant) for e in cohort.exams) == source.official["malignant"]
    across = [c for c in cohort.private["duplicate_images"] if len({name.split("_")[0] for name in c}) > 1]
    assert len(across) == 1
    data = build(source.path, tmp_path)
    assert {s: sum(n.values()) for s, n in data.counts().items()} == {"train": 545, "val": 78, "test": 157}


@pytest.mark.parametrize("shape", [(0, 28), (28, 0), (0, 28, 3)])
def test_images_without_pixels_are_a_fault(tmp_path, shape):
    with pytest.raises(DataError, match=r"_images is uint8 \(\d+, .*expected uint8 \(n, h, w"):
        MedmnistSource(path=archive(tmp_path, shape=shape)).load("A", 0)


def test_labels_that_are_objects_are_not_unpickled_and_the_remedy_is_no_download(tmp_path):
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.zeros((2, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.array([{}, {}], dtype=object)
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    with pytest.raises(DataError, match="holds Python objects in train_labels; save images as uint8") as error:
        MedmnistSource(path=tmp_path / "breastmnist.npz").load("A", 0)
    assert error.value.code == "bad_value" and "download" not in str(error.value)
