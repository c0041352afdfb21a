"""A selection of patches: conversion, draws that are nested and by patient, digest and data card."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basics.image_shape import ImageShape
from data_partitions.patch_dataset import COLUMNS, PatchDataset, PixelWriter, open_patches, write_patches

CLASSES = ("healthy", "lesion")


def dataset(patients=24, boxes_each=4, crops=2, seed=0):
    """Every patient has `boxes_each` boxes, those of every third patient are all healthy."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "label": int(patient % 3 > 0 and box % 2), "box": patient * boxes_each + box, "crop": crop,
            "patient": patient, "image": patient, "split": ("train", "train", "val", "test")[patient % 4],
            "lesion_type": "mass", "view": "CC", "laterality": "L", "density": "abcd"[patient % 4], "age": 50.0,
            "birads": "4a", "malignant": np.nan,
            "spacing_mm": 0.2, "scanner": "digital", "width": 60, "background": 0.0,
        }
        for patient in range(patients) for box in range(boxes_each) for crop in range(crops)
    ]  # fmt: skip
    pixels = rng.integers(0, 256, (len(rows), 1, 4, 4), dtype=np.uint8)
    return PatchDataset(pixels, pd.DataFrame(rows, columns=list(COLUMNS)), np.arange(len(rows)), {}, CLASSES)


DATA = dataset()


def test_float32_is_uint8_scaled_to_minus_one_to_one():
    pixels = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    data = dataset(1, 3, 1)
    data = PatchDataset(pixels, data.full_table, data.index, {}, CLASSES)
    np.testing.assert_allclose(data.float32().ravel(), [-1, -0.6, 1], atol=1e-6)
    assert data.float32().dtype == np.float32
    np.testing.assert_array_equal(data.stored(np.array([2, 0])).ravel(), [255, 0])


def test_selections_are_the_rows_that_they_name():
    data = dataset()
    chosen = data.select(split="train", labels=[1])
    assert (chosen.table["split"] == "train").all() and (chosen.labels == 1).all()
    assert len(data.select(split="train")) == len(chosen) + len(data.select(split="train", labels=[0]))
    assert set(data.select(patients=[3, 5]).table["patient"]) == {3, 5}
    np.testing.assert_array_equal(chosen.stored(), data.pixels[chosen.index])
    with pytest.raises(ValueError, match="choose one of train, val, test"):
        data.select(split="training")


def test_counts_are_of_boxes_and_name_empty_cells():
    data = dataset(patients=4, boxes_each=4, crops=3).select(split="train")
    assert data.counts() == {"train": {0: 6, 1: 2}, "val": {0: 0, 1: 0}, "test": {0: 0, 1: 0}}


@given(st.floats(0.05, 1), st.floats(0.05, 1), st.integers(0, 1000))
@settings(max_examples=20)
def test_fractions_are_by_patient_stratified_and_nested(first, second, seed):
    data = DATA
    small, large = sorted((first, second))
    few, many = data.draw_fraction(small, seed=seed), data.draw_fraction(large, seed=seed)
    assert set(few.index) <= set(many.index)
    for drawn, fraction in ((few, small), (many, large)):
        patients = set(drawn.table["patient"])
        assert set(drawn.index) == set(data.select(patients=patients).index)  # whole patients
        assert sum(p % 3 == 0 for p in patients) == max(1, round(fraction * 8))
        assert sum(p % 3 > 0 for p in patients) == max(1, round(fraction * 16))


@given(st.integers(2, 96), st.integers(2, 96), st.integers(0, 1000))
@settings(max_examples=20)
def test_numbers_of_boxes_are_exact_in_ratio_and_nested(first, second, seed):
    data = DATA
    small, large = sorted((first, second))
    few, many = data.draw_fraction(boxes=small, seed=seed), data.draw_fraction(boxes=large, seed=seed)
    assert set(few.index) <= set(many.index)
    unique = many.table.drop_duplicates("box")
    assert len(unique) == large
    assert unique["label"].sum() == round(large / 3)
    # Patients are used up one after the other: of each class at most one patient gives a part only.
    for label in (0, 1):
        have = data.table.drop_duplicates("box").query("label == @label").groupby("patient").size()
        got = unique[unique["label"] == label].groupby("patient").size()
        assert (got < have[got.index]).sum() <= 1


def test_draws_that_cannot_be_are_refused():
    data = dataset()
    assert data.draw_fraction() is data
    for arguments, message in [
        ({"fraction": 0.0}, "outside"), ({"boxes": 97}, "2 .. 96"), ({"fraction": 0.5, "boxes": 4}, "give one of them"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            data.draw_fraction(**arguments)


def test_digest_depends_on_secret_pixels_labels_and_selection():
    data = dataset()
    changed = PatchDataset(data.pixels.copy(), data.full_table.copy(), data.index, {}, CLASSES)
    assert changed.digest(b"key") == data.digest(b"key")
    digests = {data.digest(b"key"), data.digest(b"other"), data.select(split="val").digest(b"key")}
    changed.pixels[0, 0, 0, 0] ^= 1
    digests.add(changed.digest(b"key"))
    relabelled = PatchDataset(data.pixels, data.full_table.assign(label=0), data.index, {}, CLASSES)
    digests.add(relabelled.digest(b"key"))
    assert len(digests) == 5


def test_data_card_rounds_hides_small_counts_and_is_plain_json():
    card = dataset(patients=12).data_card()
    assert json.loads(json.dumps(card)) == card
    assert card["patients"] == 10
    assert card["boxes"]["val"] == {"healthy": 10, "lesion": "<5"}
    assert dataset(patients=3).data_card()["patients"] == "<5"


def test_the_card_of_no_lesion_is_that_of_a_few():
    data = dataset(patients=24)
    without = data.full_table.assign(label=0)
    few = without.assign(label=[int(box < 3) for box in without["box"]])
    cards = [PatchDataset(data.pixels, table, data.index, {}, CLASSES).data_card()["boxes"] for table in (without, few)]
    assert cards[0]["train"]["lesion"] == cards[1]["train"]["lesion"] == "<5"


def test_columns_share_out_the_boxes_that_are_shown_and_give_no_second_rounding_of_them():
    data = dataset(patients=24)
    card = data.data_card()
    shown = sum(n for labels in card["boxes"].values() for n in labels.values() if n != "<5")
    assert card["view"] == {"CC": shown} and shown != 96, "96 boxes there are, and no number says so"
    assert abs(sum(card["density"].values()) - shown) <= 2.5 * len(card["density"])


def test_a_word_of_few_patients_is_other_and_so_is_one_that_is_not_known():
    data = dataset(patients=24)
    patient = data.full_table["patient"]
    names = data.full_table.assign(
        scanner=["Jane Doe" if p < 10 else "GE Senographe DS" if p < 21 else "film" for p in patient],
        density=["a" if p < 3 else "b" for p in patient], view="MRN-7001", spacing_mm=[0.0417 if p < 3 else 0.05 for p in patient],
    )  # fmt: skip
    card = PatchDataset(data.pixels, names, data.index, {}, CLASSES).data_card()
    assert set(card["scanner"]) == {"GE", "other"} and card["scanner"]["other"] > 40, (
        "three patients with film are other"
    )
    assert set(card["view"]) == {"other"}
    assert set(card["density"]) == {"b"}, "three others are fewer than 5"
    assert card["spacing_mm"] == [0.05]


def test_what_is_written_is_what_is_opened(tmp_path):
    data = dataset()
    with PixelWriter(tmp_path, ImageShape(*data.pixels.shape[1:]), "uint8") as pixels:
        for image in data.pixels:
            pixels.append(image)
    write_patches(tmp_path, data.full_table, {"notes": []}, CLASSES)
    again = open_patches(tmp_path)
    assert isinstance(again.pixels, np.memmap) and again.report == {"notes": []} and again.classes == CLASSES
    np.testing.assert_array_equal(again.pixels, data.pixels)
    pd.testing.assert_frame_equal(again.full_table, data.full_table, check_dtype=False)
    assert again.digest(b"k") == open_patches(tmp_path).digest(b"k")
