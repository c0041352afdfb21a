"""ISIC releases: tables of each layout, labels, who is one person, natural centres, and everything that can be wrong."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_partitions import Box, DataError, DealtSource, PatchTask, SplitRule, build_patches
from data_partitions.archives.isic import IsicSource

WHOLE = PatchTask(label="malignancy", whole_image=True, channels=3, image_size=16)
DX = ("mel", "nv", "bcc", "bkl", "akiec", "nv", "df", "vasc")
SITES = ("rosendahl", "vidir_modern", "vidir_molemax")


def picture(folder: Path, name: str, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((40, 30)).save(folder / f"{name}.jpg")


def table(path: Path, rows: list[dict], encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def ham(folder: Path, images: int = 24) -> list[dict]:
    """Two images of each lesion, in two folders as on Dataverse."""
    rows = []
    for i in range(images):
        picture(folder / f"HAM10000_images_part_{1 + i % 2}", f"ISIC_{i:07d}", i)
        lesion = i // 2
        rows.append({
            "lesion_id": f"HAM_{lesion:07d}", "image_id": f"ISIC_{i:07d}", "dx": DX[lesion % 8], "dx_type": "histo",
            "age": "" if i == 3 else "55.0", "sex": "male", "localization": "back", "dataset": SITES[lesion % 3],
        })  # fmt: skip
    table(folder / "HAM10000_metadata.csv", rows)
    return rows


def load(folder, release, task=None, **settings):
    return IsicSource(path=folder, release=release, **settings).load("A", 0, None, task)


def test_ham10000_layout(tmp_path):
    rows = ham(tmp_path)
    cohort = load(tmp_path, "ham10000")
    assert {e.name: e.malignant for e in cohort.exams} == {
        r["image_id"]: r["dx"] in ("mel", "bcc", "akiec") for r in rows
    }
    assert {e.name: (e.patient, e.site) for e in cohort.exams} == {
        r["image_id"]: (r["lesion_id"], r["dataset"]) for r in rows
    }
    assert [e.age for e in cohort.exams[2:4]] == [55.0, None]
    assert cohort.exams[0].open().window(Box(0, 0, 5, 7)).shape == (5, 7, 3)
    only_melanoma = load(tmp_path, "ham10000", positive=("mel",), negative=("nv", "bkl", "df", "vasc", "bcc", "akiec"))
    assert sum(bool(e.malignant) for e in only_melanoma.exams) == sum(r["dx"] == "mel" for r in rows)


def test_2019_layout_with_truth_and_sites_in_tables_of_their_own(tmp_path):
    names = ["ISIC_0000000", "ISIC_0000001_downsampled", "ISIC_0000002", "ISIC_0000003"]
    marks = [("MEL", True), ("NV", False), ("AK", True), ("UNK", None)]
    for i, name in enumerate(names):
        picture(tmp_path / "ISIC_2019_Training_Input", name, i)
    table(tmp_path / "ISIC_2019_Training_Metadata.csv", [
        {"image": n, "age_approx": "55", "anatom_site_general": "", "lesion_id": "BCN_1" if i < 2 else "", "sex": ""}
        for i, n in enumerate(names)
    ])  # fmt: skip
    diagnoses = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
    table(tmp_path / "ISIC_2019_Training_GroundTruth.csv", [
        {"image": n} | {d: float(d == mark) for d in diagnoses} for n, (mark, _) in zip(names, marks, strict=True)
    ])  # fmt: skip
    table(tmp_path / "centres.csv", [{"image": n, "target": 1, "center": i % 2} for i, n in enumerate(names)])
    cohort = IsicSource(path=tmp_path, release=2019, sites="centres.csv").load("A", 0)
    assert [e.malignant for e in cohort.exams] == [malignant for _, malignant in marks]
    assert [e.patient for e in cohort.exams] == ["BCN_1", "BCN_1", "ISIC_0000002", "ISIC_0000003"]
    assert [e.site for e in cohort.exams] == ["0", "1", "0", "1"]
    assert cohort.report["images_without_lesion_id"] == 2
    with pytest.raises(DataError, match="ISIC_0000003 has no label"):
        load(tmp_path, "2019", WHOLE)


def test_2020_layout_and_its_list_of_duplicates(tmp_path):
    rows = []
    for i in range(6):
        picture(tmp_path / "train", f"ISIC_{i:07d}", i)
        rows.append({"image_name": f"ISIC_{i:07d}", "patient_id": f"IP_{i}", "lesion_id": f"IL_{i}", "sex": "male",
                     "age_approx": "45.0", "anatom_site_general_challenge": "torso", "diagnosis": "unknown",
                     "benign_malignant": "malignant" if i % 3 == 0 else "benign", "target": int(i % 3 == 0)})  # fmt: skip
    table(tmp_path / "ISIC_2020_Training_GroundTruth_v2.csv", rows)
    pairs = [("ISIC_0000001", "ISIC_0000004"), ("ISIC_0000004", "ISIC_0000005"), ("ISIC_0000000", "ISIC_9999999")]
    table(tmp_path / "ISIC_2020_Training_Duplicates.csv", [{"image_name_1": a, "image_name_2": b} for a, b in pairs])
    cohort = load(tmp_path, "2020")
    assert [e.malignant for e in cohort.exams] == [i % 3 == 0 for i in range(6)]
    assert cohort.groups == {"IP_4": "IP_1", "IP_5": "IP_1"}, "listed as one picture, though the bytes differ"


def test_identical_pictures_keep_their_lesions_together(tmp_path):
    rows = ham(tmp_path)
    for a, b in ((4, 20), (6, 22)):
        files = {f.stem: f for f in tmp_path.rglob("*.jpg")}
        files[rows[b]["image_id"]].write_bytes(files[rows[a]["image_id"]].read_bytes())
    cohort = load(tmp_path, "ham10000")
    assert cohort.report["duplicate_images"] == 2
    assert cohort.groups == {"HAM_0000010": "HAM_0000002", "HAM_0000011": "HAM_0000003"}


def test_natural_centres_by_setting_or_by_partition(tmp_path):
    rows = ham(tmp_path)
    rows[1]["dataset"] = "vidir_modern"  # lesion 0: one image each of rosendahl and vidir_modern
    table(tmp_path / "HAM10000_metadata.csv", rows)
    patients = {}
    for site in SITES:
        cohort = load(tmp_path, "ham10000", centre=site)
        dealt = DealtSource.model_validate({
            "archive": {"source": "isic", "path": str(tmp_path), "release": "ham10000"},
            "partition": {"by": "site", "centres": list(SITES)}, "centre": site,
        }).load("x", 9)  # fmt: skip
        assert [e.name for e in dealt.exams] == [e.name for e in cohort.exams]
        assert any("<5 patients have images of several" in note for note in dealt.report["notes"])
        patients[site] = {e.patient for e in cohort.exams}
    assert "HAM_0000000" in patients["rosendahl"], "equal numbers: the first by name"
    assert sum(map(len, patients.values())) == len(set.union(*patients.values())) == 12
    assert "rosendahl, vidir_modern, vidir_molemax" in str(refused(tmp_path, centre="vienna"))


def refused(folder, **settings) -> DataError:
    with pytest.raises(DataError) as error:
        load(folder, "ham10000", **settings)
    return error.value


def test_every_fault_is_named_with_file_row_and_reason(tmp_path):
    rows = ham(tmp_path)
    rows[2]["dx"] = "melanom"
    rows[5]["image_id"] = rows[4]["image_id"]
    rows[8]["lesion_id"] = ""
    rows[9]["age"] = "old"
    rows[10]["image_id"] = "ISIC_7777777"
    table(tmp_path / "HAM10000_metadata.csv", rows)
    next(tmp_path.rglob("ISIC_0000012.jpg")).write_bytes(b"no picture")
    error = refused(tmp_path)
    texts = [problem.text for problem in error.problems]
    assert sorted(problem.code for problem in error.problems) == [
        "bad_image", "bad_value", "bad_value", "duplicate_image", "row_without_file", "unknown_label"
    ]  # fmt: skip
    for told in (
        "HAM10000_metadata.csv row 4: 'melanom' is unknown; known: mel, bcc, akiec, nv",
        "row 7: image ISIC_0000004 is in an earlier row",
        "row 10: lesion_id is empty",
        "row 11: age 'old' is not a number",
        "row 12: no file ISIC_7777777.jpg",
        "ISIC_0000012.jpg does not decode",
    ):
        assert any(told in text for text in texts), told
    cohort = load(tmp_path, "ham10000", max_bad_fraction=0.25)
    assert len(cohort.exams) == 18 and sum(cohort.report["skipped"].values()) == 6
    assert refused(tmp_path, max_bad_fraction=0.24).numbers["bad_value"] == 2


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (lambda f: (f / "HAM10000_metadata.csv").unlink(), "missing_file"),
        (lambda f: (f / "HAM10000_metadata.csv").write_text("image_id,dx\nISIC_0000000,mel\n"), "bad_columns"),
        (lambda f: (f / "HAM10000_metadata.csv").write_bytes(b"lesion_id,image_id,dx\n\x81,b,c\n"), "bad_encoding"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, write, code):
    ham(tmp_path, 4)
    write(tmp_path)
    assert refused(tmp_path).code == code


def test_table_in_another_encoding(tmp_path):
    rows = ham(tmp_path, 8)
    rows[0]["localization"] = "Rücken"
    table(tmp_path / "HAM10000_metadata.csv", rows, "latin-1")
    assert len(load(tmp_path, "ham10000", encoding="latin-1").exams) == 8
    assert load(tmp_path, "ham10000").report["encoding_guessed"] == 1
    assert refused(tmp_path, encoding="utf-8").code == "bad_encoding"


def test_patches_of_a_release(tmp_path):
    ham(tmp_path, 48)
    data = build_patches(
        IsicSource(path=tmp_path, release="ham10000"), WHOLE, SplitRule(), centre="A", seed=0, cache=tmp_path / "cache"
    )
    assert data.pixels.shape == (48, 3, 16, 16)
    assert (data.table.groupby("patient")["split"].nunique() == 1).all()


# --- the real archive, where it is at hand


def test_ham10000_from_its_own_table(real_images, tmp_path):
    """The images at hand are a part of the archive; their rows in the original table give the same three centres."""
    original = real_images / "format_samples" / "isic" / "HAM10000_metadata_with_source.csv"
    copy = real_images / "dermatology_ham10000_200x150"
    here = pd.read_csv(copy / "metadata.csv").set_index("image_id")
    rows = pd.read_csv(original)
    assert len(rows) == 10015 and rows["lesion_id"].nunique() == 7470
    official = IsicSource(path=tmp_path, release="ham10000").official
    assert rows["dx"].isin(["mel", "bcc", "akiec"]).sum() == official["malignant"]
    assert {f"site {k}": v for k, v in rows["dataset"].value_counts().items()}.items() <= official.items()
    few = here.groupby("centre").head(120).index
    (tmp_path / "images").symlink_to(copy / "images")
    for name in few:  # rglob does not follow links to folders
        (tmp_path / f"{name}.jpg").symlink_to(copy / "images" / f"{name}.jpg")
    rows[rows["image_id"].isin(few)].to_csv(tmp_path / "HAM10000_metadata.csv", index=False)
    cohort = load(tmp_path, "ham10000")
    assert len(cohort.exams) == 360
    for exam in cohort.exams:
        row = here.loc[exam.name]
        assert (exam.patient, exam.site, int(bool(exam.malignant))) == (
            row["patient_id"],
            row["centre"],
            row["malignant"],
        )


def soft_2019(folder, marks: list[dict[str, object]], lines: str = ""):
    """ISIC 2019 with a truth table of these marks."""
    names = [f"ISIC_{place:07d}" for place in range(len(marks))]
    for place, name in enumerate(names):
        picture(folder, name, place)
    table(
        folder / "ISIC_2019_Training_Metadata.csv",
        [{"image": name, "age_approx": "50.0", "lesion_id": name} for name in names],
    )
    truth = folder / "ISIC_2019_Training_GroundTruth.csv"
    table(
        truth,
        [{"image": n} | {d: "0.0" for d in ("MEL", "NV", "UNK")} | mark for n, mark in zip(names, marks, strict=True)],
    )
    truth.write_text(truth.read_text() + lines)
    return folder


@pytest.mark.parametrize("value", ["0.3", "-1", "2", "x"])
def test_a_mark_of_2019_is_0_or_1(tmp_path, value):
    soft_2019(tmp_path, [{"NV": "1.0"}, {"MEL": value}])
    with pytest.raises(DataError, match=f"row 3: MEL '{value}' is neither 1 nor 0"):
        load(tmp_path, "2019")


def test_rows_of_the_truth_that_repeat_an_image_or_name_none_are_faults(tmp_path):
    soft_2019(
        tmp_path,
        [{"NV": "1"}, {"NV": "1"}, {"MEL": "1"}],
        "ISIC_0000000,1,0,0\nISIC_0000001,0.0,1,0.0\nISIC_7777777,1,0,0\n",
    )
    with pytest.raises(DataError) as error:
        load(tmp_path, "2019")
    assert sorted(problem.code for problem in error.value.problems) == [
        "duplicate_image",
        "duplicate_image",
        "label_without_row",
    ]
    exams = load(tmp_path, "2019", max_bad_fraction=0.9).exams
    assert [exam.malignant for exam in exams] == [None, False, True] and exams[
        0
    ].diagnosis == ""  # the first has two truths


def test_an_image_without_a_row_of_the_truth_is_a_fault(tmp_path):
    soft_2019(tmp_path, [{"NV": "1"}, {"MEL": "1"}])
    truth = tmp_path / "ISIC_2019_Training_GroundTruth.csv"
    truth.write_text("".join(truth.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="no row of ISIC_2019_Training_GroundTruth.csv names ISIC_0000001"):
        load(tmp_path, "2019")


def test_two_rows_of_an_image_that_disagree_leave_it_without_a_label(tmp_path):
    rows = ham(tmp_path)
    table(tmp_path / "HAM10000_metadata.csv", [*rows, rows[0] | {"dx": "nv"}, rows[2]])
    assert [p.code for p in refused(tmp_path).problems] == ["duplicate_image"] * 2
    exams = load(tmp_path, "ham10000", max_bad_fraction=0.5).exams
    assert rows[0]["dx"] == "mel" and (exams[0].malignant, exams[0].diagnosis) == (None, "")
    assert exams[2].diagnosis == rows[2]["dx"]


def test_two_sites_of_one_image_are_a_fault(tmp_path):
    rows = ham(tmp_path)
    table(tmp_path / "centres.csv", [{"image": rows[0]["image_id"], "center": site} for site in (1, 2)])
    assert "has site '1' in an earlier row and '2' here" in str(refused(tmp_path, sites="centres.csv"))
