"""A folder of images: what is read, what belongs together, and every kind of bad input at once."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from data_partitions import Box, DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.folder import FolderSource
from data_partitions.errors import BadFile
from data_partitions.reading.body import body_mask
from data_partitions.reading.image_files import read_image

WHOLE = PatchTask(label="malignancy", whole_image=True, image_size=16)


def save(folder: Path, name: str, seed: int = 0, shape=(40, 60)) -> str:
    (folder / "images").mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "images" / name)
    return f"images/{name}"


def archive(folder: Path, images: int = 24, per_patient: int = 2) -> pd.DataFrame:
    rows = [
        {"image": save(folder, f"{i:03d}.png", i), "patient_id": f"secret-{i // per_patient}",
         "label": "malignant" if i // per_patient % 2 else "benign",
         "centre": "xyz"[i % 3 if i < 6 else i // per_patient % 2]}
        for i in range(images)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table.to_csv(folder / "metadata.csv", index=False)
    return table


def build(path, cache, task=WHOLE, seed=0, rule=None, **arguments):
    source = FolderSource(path=path, **arguments)
    return build_patches(source, task, rule or SplitRule(), centre="A", seed=seed, cache=cache)


def refused(path, **arguments) -> DataError:
    with pytest.raises(DataError) as error:
        FolderSource(path=path, **arguments).load("A", 0)
    return error.value


# --- what is read


def test_each_image_is_one_patch_with_the_label_of_the_table(tmp_path):
    table = archive(tmp_path)
    data = build(tmp_path, tmp_path / "cache")
    assert len(data) == 24 and data.labels.sum() == (table["label"] == "malignant").sum()
    assert (data.table.groupby("patient")["split"].nunique() == 1).all()
    assert not any(
        "secret" in (f / "table.csv").read_text() for f in (tmp_path / "cache/patches").iterdir() if f.is_dir()
    )


def test_labels_go_through_as_the_table_has_them(tmp_path):
    """Permuted labels come out permuted: nothing but the table decides."""
    table = archive(tmp_path, per_patient=1)
    table["label"] = np.random.default_rng(1).permutation(table["label"])
    table.to_csv(tmp_path / "permuted.csv", index=False)
    exams = FolderSource(path=tmp_path, metadata="permuted.csv").load("A", 0).exams
    assert {e.name: e.malignant for e in exams} == dict(zip(table["image"], table["label"] == "malignant", strict=True))


def test_rows_in_another_order_give_the_same_patches(tmp_path):
    table = archive(tmp_path)
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "shuffled.csv", index=False)
    a, b = (build(tmp_path, tmp_path / "cache", metadata=name) for name in ("metadata.csv", "shuffled.csv"))
    assert a.digest(b"k") == b.digest(b"k")


def test_a_column_of_any_name_and_encoding(tmp_path):
    table = archive(tmp_path).rename(columns={"image": "Datei", "label": "Übel"})
    table.to_csv(tmp_path / "metadata.csv", index=False, encoding="latin-1")
    columns = {"image": "Datei", "label": "Übel"}
    error = refused(tmp_path, columns=columns, encoding="utf-8")
    assert error.code == "bad_encoding" and "latin-1" in str(error)
    told, found = (
        FolderSource(path=tmp_path, columns=columns, encoding=name).load("A", 0) for name in ("latin-1", None)
    )
    assert len(told.exams) == 24 and sum(bool(e.malignant) for e in told.exams) == 12
    assert [e.name for e in found.exams] == [e.name for e in told.exams] and found.report["encoding_guessed"] == 1


def test_a_changed_file_is_another_data_set(tmp_path):
    archive(tmp_path)
    before = build(tmp_path, tmp_path.parent / "cache").digest(b"k")
    save(tmp_path, "003.png", 99)
    assert build(tmp_path, tmp_path.parent / "cache").digest(b"k") != before


@pytest.mark.parametrize(
    ("columns", "row", "box"),
    [
        ("x,y,radius", "30,20,5", Box(15, 25, 25, 35)),
        ("x0,y0,x1,y1", "10,5,30,25", Box(5, 10, 25, 30)),
        ("contour_x,contour_y", "10 30 20,5 6 25", Box(5, 10, 25, 30)),
        ("x,y,radius", "0,20,5", Box(15, 0, 25, 5)),  # cut at the border
    ],
)
def test_lesions_as_circle_box_or_contour(tmp_path, columns, row, box):
    archive(tmp_path, 4)
    (tmp_path / "lesions.csv").write_text(f"image,kind,{columns}\nimages/001.png,mass,{row}\n")
    exams = {e.name: e for e in FolderSource(path=tmp_path, lesions="lesions.csv").load("A", 0).exams}
    assert [(x.box, x.kind) for x in exams["images/001.png"].lesions] == [(box, "mass")]
    assert exams["images/000.png"].lesions == ()


def test_lesions_without_coordinates_are_counted_and_their_images_not_taken_as_healthy(tmp_path):
    archive(tmp_path, 4)
    (tmp_path / "lesions.csv").write_text("image,kind,x,y,radius\nimages/001.png,CALC,,,\nimages/002.png,NORM,,,\n")
    cohort = FolderSource(path=tmp_path, lesions="lesions.csv").load("A", 0)
    assert cohort.report["lesions_without_coordinates"] == 1
    assert [e.name for e in cohort.exams if not e.usable_as_healthy] == ["images/001.png"]
    assert "001" not in str(cohort.report)


# --- what belongs together


def test_patients_that_share_an_image_are_never_split(tmp_path):
    table = archive(tmp_path, 60, per_patient=3)
    for a, b in ((0, 30), (31, 57)):  # patient 0 = patient 10 = patient 19, by copies of two images
        save(tmp_path, f"{b:03d}.png", a)
    for seed in range(6):
        data = build(tmp_path, tmp_path / "cache", seed=seed)
        names = sorted(table["image"])
        split = dict(zip((names[i] for i in data.table["image"]), data.table["split"], strict=True))
        joined = {split[name] for name, p in zip(table["image"], table["patient_id"], strict=True)
                  if p in ("secret-0", "secret-10", "secret-19")}  # fmt: skip
        assert len(joined) == 1
        assert data.report["duplicate_images"] == 2


def test_a_patient_of_several_centres_goes_where_most_images_are_ties_by_name(tmp_path):
    table = archive(tmp_path, 5, per_patient=1)
    table["patient_id"] = ["p", "p", "p", "q", "q"]
    table["centre"] = ["x", "y", "y", "y", "x"]
    table.to_csv(tmp_path / "metadata.csv", index=False)
    x, y = (FolderSource(path=tmp_path, centre=c).load("A", 0) for c in "xy")
    assert {e.patient for e in x.exams} == {"q"} and {e.patient for e in y.exams} == {"p"}
    assert x.report["spanning_patients"] == {"patients": 2, "images_moved_here": 1, "images_moved_away": 1}
    assert y.private["spanning_patients"] == ["p", "q"]
    assert "x, y" in str(refused(tmp_path, centre="z"))


def test_parts_of_an_archive_are_disjoint_complete_and_alike(tmp_path):
    archive(tmp_path, 48)
    parts = [
        FolderSource(path=tmp_path, part=f"{k}/3").load(name, k).exams for k, name in ((1, "A"), (2, "B"), (3, "C"))
    ]
    patients = [{e.patient for e in part} for part in parts]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 24
    assert [sum(bool(e.malignant) for e in part) for part in parts] == [8, 8, 8]
    with pytest.raises(ValidationError, match="count from 1/3"):
        FolderSource(path=tmp_path, part="4/3")
    with pytest.raises(ValidationError, match="k/n"):
        FolderSource(path=tmp_path, part="third")


def test_images_limits_by_patient_in_the_ratio_of_the_labels(tmp_path):
    archive(tmp_path, 48)
    few, more = ({e.name for e in FolderSource(path=tmp_path, images=n).load("A", 0).exams} for n in (12, 24))
    assert len(few) == 12 and len(more) == 24 and few < more
    exams = FolderSource(path=tmp_path, images=13).load("A", 0).exams
    assert len(exams) == 12 and sum(bool(e.malignant) for e in exams) == 6


# --- bad input


def broken(folder: Path) -> pd.DataFrame:
    """An archive of 24 images with six faults."""
    table = archive(folder)
    (folder / "images/002.png").unlink()
    whole = (folder / "images/005.png").read_bytes()
    (folder / "images/005.png").write_bytes(whole[: len(whole) // 2])
    floats = np.ones((40, 60), np.float32)
    floats[3, 4] = np.nan
    np.save(folder / "images/nan.npy", floats)
    Image.fromarray(floats).save(folder / "images/nan.tiff")
    table.loc[7, "image"], table.loc[8, "image"] = "images/nan.npy", "images/nan.tiff"
    table.loc[11, "image"] = table.loc[10, "image"]
    table.loc[12, "patient_id"] = ""
    table.to_csv(folder / "metadata.csv", index=False)
    return table


def test_all_problems_are_collected_in_one_error(tmp_path):
    broken(tmp_path)
    error = refused(tmp_path)
    codes = sorted(problem.code for problem in error.problems)
    assert codes == ["bad_image", "bad_value", "duplicate_image", "nan_pixels", "nan_pixels", "row_without_file"]
    assert error.code == "nan_pixels" and error.numbers["nan_pixels"] == 2
    assert "6 problems" in str(error) and "and 3 more" in str(error) and "\n" not in str(error)
    texts = " ".join(problem.text for problem in error.problems)
    for told in (
        "row 4: file images/002.png",
        "row 14: patient_id is empty",
        "row 12 already",
        "1 pixels that are not finite",
    ):
        assert told in texts
    assert not any("secret" in str(value) or "images/" in str(value) for value in error.numbers.values())


def test_a_share_of_bad_rows_may_be_left_out_and_is_reported(tmp_path):
    broken(tmp_path)
    data = build(tmp_path, tmp_path / "cache", max_bad_fraction=0.25)
    assert len(data) == 18
    assert data.report["skipped"] == {
        "bad_image": 1, "bad_value": 1, "duplicate_image": 1, "nan_pixels": 2, "row_without_file": 1
    }  # fmt: skip
    assert "<5 left out: bad_image" in data.report["notes"]
    assert refused(tmp_path, max_bad_fraction=0.24).code == "nan_pixels"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("image,label\na.png,1\n", "bad_columns"), ("", "bad_table"),
        ('image,patient_id\n"a,b\nc,d,e,f\n', "bad_table"),
        ("image,patient_id,age\nimages/000.png,p,old\n", "bad_value"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_read(tmp_path, text, code):
    archive(tmp_path, 2)
    (tmp_path / "metadata.csv").write_text(text)
    assert refused(tmp_path).code == code


def test_what_is_missing_is_named(tmp_path):
    assert "metadata.csv" in str(refused(tmp_path))
    with pytest.raises(DataError, match="nowhere does not exist; correct `path`"):
        build(tmp_path / "nowhere", tmp_path / "cache")
    archive(tmp_path, 2)
    assert refused(tmp_path, lesions="lesions.csv").code == "missing_file"
    (tmp_path / "lesions.csv").write_text("image,kind\nimages/001.png,mass\n")
    assert "(x, y, radius), or (x0, y0, x1, y1)" in str(refused(tmp_path, lesions="lesions.csv"))
    assert refused(tmp_path, columns={"image": "file"}).numbers == {"field": "image"}


def test_faults_of_both_tables_are_told_at_once(tmp_path):
    archive(tmp_path, 2)
    (tmp_path / "metadata.csv").write_text("image,label\nimages/000.png,1\n")
    (tmp_path / "lesions.csv").write_bytes("image,kind,x,y,radius\nimages/001.png,Tumör,1,1,1\n".encode("latin-1"))
    error = refused(tmp_path, lesions="lesions.csv", encoding="utf-8")
    assert [problem.code for problem in error.problems] == ["bad_columns", "bad_encoding"]
    assert "patient_id" in str(error) and "set `encoding`" in str(error)


def test_bad_lesions_are_named(tmp_path):
    archive(tmp_path, 4)
    (tmp_path / "lesions.csv").write_text(
        "image,kind,x,y,radius\nimages/000.png,lump,1,1,1\nimages/nine.png,mass,1,1,1\n"
        "images/001.png,mass,one,1,1\nimages/001.png,mass,900,900,3\nimages/002.png,mass,nan,5,5\n"
    )
    error = refused(tmp_path, lesions="lesions.csv")
    assert [p.code for p in error.problems] == ["bad_value", "lesion_without_row"] + ["bad_value"] * 3
    assert "kind 'lump' is unknown" in str(error)
    left = FolderSource(path=tmp_path, lesions="lesions.csv", max_bad_fraction=1.0).load("A", 0).exams
    # Where a lesion could not be read there is one all the same: such an image gives no healthy boxes.
    assert [e.name for e in left if e.usable_as_healthy] == ["images/003.png"]


def test_a_malignant_lesion_in_a_benign_image_is_doubted(tmp_path):
    archive(tmp_path, 4)
    rows = "".join(f"images/{n:03d}.png,mass,20,20,5,{label}\n" for n, label in enumerate((1, 1, 0, 0)))
    (tmp_path / "lesions.csv").write_text("image,kind,x,y,radius,lesion_label\n" + rows)
    table = pd.read_csv(tmp_path / "metadata.csv").assign(label=[0, 1, 0, 1])
    table.to_csv(tmp_path / "metadata.csv", index=False)
    cohort = FolderSource(path=tmp_path, lesions="lesions.csv").load("A", 0)
    assert cohort.report["malignant_in_benign"] == 1
    assert [(exam.malignant, exam.lesions[0].malignant) for exam in cohort.exams] == [
        (False, True), (True, True), (False, False), (True, False),
    ]  # fmt: skip


def test_class_numbers_have_no_threshold(tmp_path):
    with pytest.raises(ValidationError, match="mask_classes and mask_threshold are both given"):
        FolderSource(path=tmp_path, masks="masks", mask_classes={1: "mass"}, mask_threshold=0.5)


def test_images_without_a_label_are_refused_for_malignancy(tmp_path):
    archive(tmp_path, 6).drop(columns="label").to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(DataError, match="6 problems: .* has no label; .*`columns: {label: malignant}`") as error:
        build(tmp_path, tmp_path / "cache")
    assert error.value.code == "no_label"


# --- files


def test_deep_images_are_scaled_to_their_own_range(tmp_path):
    ramp = np.linspace(0, 4095, 1200).reshape(30, 40)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", (ramp / 4095).astype(np.float32))
    for name in ("a.png", "b.npy"):
        pixels = read_image(tmp_path / name)
        assert pixels.shape == (30, 40, 1) and pixels.dtype == np.uint8
        np.testing.assert_allclose(pixels[..., 0], ramp / 4095 * 255, atol=0.6)


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadFile, match="does not decode"):
        read_image(tmp_path / "a.npy")


def test_body_is_the_largest_bright_area_without_labels_beside_it():
    grey = np.full((120, 100), 4, np.uint8)
    y, x = np.mgrid[0:120, 0:100]
    breast = np.hypot((y - 60) / 50, x / 60) < 1
    grey[breast] = 90
    grey[50:60, 10:20] = 2  # a dark hole in it
    grey[5:15, 80:98] = 255  # a film label
    mask = body_mask(grey)
    assert mask[55, 15] and not mask[5:15, 80:98].any()
    assert (mask != breast).mean() < 0.01


# --- real archives, where they are at hand

DATA = Path(os.environ.get("POLYCENTRE_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
HAM = DATA / "dermatology_ham10000_200x150"
MIAS = DATA / "mammography_mini_mias"


@pytest.mark.skipif(not HAM.is_dir(), reason=f"HAM10000 is not at {HAM}; set POLYCENTRE_TEST_DATA")
def test_ham10000_natural_centres(real_cache):
    """7,698 images; six lesions were photographed at two centres, 6 of their images at the smaller part."""
    cohorts = {
        centre: FolderSource(path=HAM, centre=centre, columns={"label": "malignant"}).load(centre, 0, real_cache)
        for centre in ("rosendahl", "vidir_modern", "vidir_molemax")
    }
    counts = {c: (len(x.exams), sum(bool(e.malignant) for e in x.exams)) for c, x in cohorts.items()}
    assert counts == {"rosendahl": (1797, 742), "vidir_modern": (2706, 747), "vidir_molemax": (3195, 13)}
    assert cohorts["vidir_modern"].report["spanning_patients"]["patients"] == 6
    patients = [{e.patient for e in x.exams} for x in cohorts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients))


@pytest.mark.skipif(not HAM.is_dir(), reason=f"HAM10000 is not at {HAM}; set POLYCENTRE_TEST_DATA")
def test_ham10000_colour_patches(real_cache):
    task = PatchTask(label="malignancy", whole_image=True, channels=3, image_size=32)
    data = build(HAM, real_cache, task, centre="rosendahl", columns={"label": "malignant"}, images=300)
    assert data.pixels.shape[1:] == (3, 32, 32) and 290 <= len(data) <= 300
    assert (data.table.groupby("patient")["split"].nunique() == 1).all()


@pytest.mark.skipif(not MIAS.is_dir(), reason=f"mini-MIAS is not at {MIAS}; set POLYCENTRE_TEST_DATA")
def test_mini_mias_boxes(real_cache):
    data = build(
        MIAS, real_cache, PatchTask(image_size=32, margin_px=20), rule=SplitRule(test_only=True), lesions="lesions.csv"
    )
    boxes = data.table
    assert data.report["lesions_without_coordinates"] == 4
    assert data.counts()["test"] == {0: 92, 1: 92}
    healthy, lesions = boxes[boxes["label"] == 0], boxes[boxes["label"] == 1]
    assert sorted(healthy["width"]) == sorted(lesions["width"])
    assert (healthy["background"] <= 0.4).all()
    assert healthy["background"].mean() == pytest.approx(lesions["background"].mean(), abs=0.05)


@pytest.mark.parametrize(
    "again", ["./images/000.png", "images/../images/000.png", "images//000.png", "images\\000.png", "ABSOLUTE"]
)
def test_one_path_in_two_ways_is_one_image(tmp_path, again):
    archive(tmp_path, 4)
    again = str(tmp_path / "images/000.png") if again == "ABSOLUTE" else again
    with (tmp_path / "metadata.csv").open("a") as file:
        file.write(f"{again},someone,malignant,x\n")
    error = refused(tmp_path)
    assert [problem.code for problem in error.problems] == ["duplicate_image"] and "metadata.csv row 6" in str(error)
    exams = FolderSource(path=tmp_path, max_bad_fraction=0.5).load("A", 0).exams
    assert len(exams) == 4 and [e.malignant for e in exams if e.name.endswith("000.png")] == [None]


def test_one_name_in_two_folders_is_two_images_where_both_have_a_row(tmp_path):
    archive(tmp_path, 4)
    (tmp_path / "small").mkdir()
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (20, 30), dtype=np.uint8)).save(
        tmp_path / "small/000.png"
    )
    assert FolderSource(path=tmp_path).load("A", 0).report["files_without_row"] == 1
    with (tmp_path / "metadata.csv").open("a") as file:
        file.write("small/000.png,secret-0,benign,x\n")
    names = {exam.name for exam in FolderSource(path=tmp_path).load("A", 0).exams}
    assert {"images/000.png", "small/000.png"} <= names


def test_a_lesion_that_is_there_twice_is_a_fault_and_counts_once(tmp_path):
    archive(tmp_path, 4)
    rows = (
        "images/001.png,mass,20,20,5,B\n" * 2
        + "images/001.png,calcification,20,20,5,B\nimages/000.png,mass,20,20,5,B\nimages/000.png,mass,20,20,5,M\n"
    )
    (tmp_path / "lesions.csv").write_text(f"image,kind,x,y,radius,severity\n{rows}")
    error = refused(tmp_path, lesions="lesions.csv")
    assert [problem.code for problem in error.problems] == ["duplicate_lesion"] * 2
    assert "lesions.csv row 3: this lesion of images/001.png is in row 2 already" in str(error)
    exams = {
        e.name[7:10]: e
        for e in FolderSource(path=tmp_path, lesions="lesions.csv", max_bad_fraction=0.9).load("A", 0).exams
    }
    assert [len(exams[name].lesions) for name in ("000", "001")] == [1, 2]
    assert exams["001"].usable_as_healthy and not exams["000"].usable_as_healthy  # two labels: one could not be read


def test_a_lesion_of_no_image_is_refused_whatever_the_fraction(tmp_path):
    archive(tmp_path, 4)
    (tmp_path / "lesions.csv").write_text("image,x,y,radius\n,20,20,5\nimages/001.png,20,20,5\n")
    assert "lesions.csv row 2: image is empty" in str(refused(tmp_path, lesions="lesions.csv", max_bad_fraction=1.0))
