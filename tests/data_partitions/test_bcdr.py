"""BCDR in its own layout: codes, outlines, labels, sets that share images, and every fault at once."""

import shutil
from collections import Counter

import numpy as np
import pytest
from archives import bcdr_image, bcdr_outline, square, write_bcdr, write_bcdr_table
from PIL import Image

from data_partitions import Box, DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.bcdr import BcdrSource
from data_partitions.reading.tables import read_records


def load(path, task=None, **arguments):
    return BcdrSource(path=path, **arguments).load("A", 0, None, task)


def refused(path, **arguments) -> DataError:
    with pytest.raises(DataError) as error:
        load(path, **arguments)
    return error.value


def test_codes_become_side_and_view_in_both_tables(tmp_path):
    exams = {exam.name: exam for exam in load(write_bcdr(tmp_path)).exams}
    assert len(exams) == 3 * 6 * 4
    for ending, side, view in (("RCC", "R", "CC"), ("LCC", "L", "CC"), ("RO", "R", "MLO"), ("LO", "L", "MLO")):
        for folder, patient in (("D01", 1), ("DN01", 100), ("F01", 1)):
            exam = exams[f"BCDR-{folder}_dataset/{bcdr_image(patient, ending)}"]
            assert (exam.laterality, exam.view, exam.density, exam.age) == (side, view, "2", 62)
    scans = {exam.name.split("/")[0]: (exam.scanner, exam.spacing_mm) for exam in exams.values()}
    assert scans == {
        "BCDR-D01_dataset": ("digital", 0.07), "BCDR-DN01_dataset": ("digital", 0.07), "BCDR-F01_dataset": ("film", None),
    }  # fmt: skip


def test_boxes_kinds_and_biopsy_results(tmp_path):
    root = write_bcdr(tmp_path, ("d01",), 2)
    rows = [
        bcdr_outline(1, 1, "LCC", square(91, 40, 30, 24)),
        bcdr_outline(1, 2, "LCC", square(20, 50, 10), mammography_nodule=0, mammography_microcalcification=1),
        bcdr_outline(1, 3, "LO", square(20, 50, 10), mammography_calcification=1),
        bcdr_outline(2, 4, "LO", square(20.5, 50.25, 10), mammography_nodule=0, mammography_stroma_distortion=1),
        bcdr_outline(2, 5, "RO", square(225, 150, 30), mammography_nodule=0, classification=""),
    ]
    write_bcdr_table(root / "BCDR-D01_dataset/bcdr_d01_outlines.csv", rows)
    cohort = load(root)
    found = {
        (exam.patient, exam.laterality + exam.view, x.kind, x.malignant, x.box)
        for exam in cohort.exams
        for x in exam.lesions
    }
    assert found == {
        ("digital 1", "LCC", "mass", False, Box(91, 40, 122, 71)),
        ("digital 1", "LCC", "calcification", False, Box(20, 50, 31, 61)),
        ("digital 1", "LMLO", "mass", False, Box(20, 50, 31, 61)),
        ("digital 2", "LMLO", "distortion", True, Box(20, 50, 31, 61)),
        ("digital 2", "RMLO", "other", None, Box(225, 150, 240, 181)),
    }
    assert cohort.report["outlines_cut"] == 1
    assert {exam.malignant for exam in cohort.exams if exam.patient == "digital 2"} == {True, None}
    assert BcdrSource(path=root, max_bad_fraction=0.1).load("A", 0, None, PatchTask(label="malignancy")).report[
        "skipped"
    ] == {"no_label": 1}


def test_only_the_normal_set_gives_healthy_boxes_and_labels_without_an_outline(tmp_path):
    exams = load(write_bcdr(tmp_path)).exams
    assert {exam.name.split("/")[0] for exam in exams if exam.usable_as_healthy} == {"BCDR-DN01_dataset"}
    assert Counter(exam.malignant for exam in exams) == {None: 24, False: 24 + 12, True: 12}


def test_sets_can_be_chosen_and_film_is_told_its_spacing(tmp_path):
    root = write_bcdr(tmp_path)
    exams = load(root, sets=["f01"], spacing_mm=0.2).exams
    assert {(exam.patient.split()[0], exam.spacing_mm) for exam in exams} == {("film", 0.2)}
    assert "has no bcdr_d02_outlines.csv" in str(refused(root, sets=["d01", "d02"]))
    assert refused(root / "BCDR-D01_dataset/patient_1").code == "missing_file"


def test_an_image_of_two_sets_is_taken_once_with_the_outlines_of_both(tmp_path):
    """F03 has no table of images, and repeats images of the other film sets."""
    root = write_bcdr(tmp_path, ("f01",), 2)
    third = root / "BCDR-F03_dataset/BCDR-F03"
    for ending in ("LCC", "LO"):
        (third / bcdr_image(1, ending)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "BCDR-F01_dataset" / bcdr_image(1, ending), third / bcdr_image(1, ending))
    write_bcdr_table(third / "bcdr_f03_outlines.csv", [
        bcdr_outline(1, 1, "LCC", square(91, 40, 30)), bcdr_outline(1, 2, "LO", square(91, 40, 30)),
        bcdr_outline(1, 3, "LO", square(20, 20, 9)),
    ])  # fmt: skip
    cohort = load(root)
    assert len(cohort.exams) == 8 and cohort.report["copies"] == 2 and cohort.groups == {}
    assert sorted(len(exam.lesions) for exam in cohort.exams) == [0, 0, 0, 0, 1, 1, 1, 2]


def test_patches_of_lesions_and_healthy_tissue(tmp_path):
    root = write_bcdr(tmp_path / "archive")
    task = PatchTask(image_size=16, margin_px=4, crops=1)
    source = BcdrSource(path=root, sets=("d01", "dn01"))
    data = build_patches(source, task, SplitRule(test_only=True), centre="B", seed=0, cache=tmp_path / "cache")
    assert data.counts()["test"] == {0: 12, 1: 12}
    assert data.data_card()["scanner"] == {"digital": 20}


def broken(folder):
    root = write_bcdr(folder, ("d01",), 8)
    data = root / "BCDR-D01_dataset"
    images = [dict(cells) for _, cells in read_records(data / "bcdr_d01_img.csv", [])[0]]
    images[0]["image_type_id"] = 3
    images.append(dict(images[1]))
    images[2]["patient_id"] = ""
    write_bcdr_table(data / "bcdr_d01_img.csv", images)
    rows = [bcdr_outline(patient, patient, "LCC", square(90, 40, 30)) for patient in range(1, 9)]
    rows[0]["classification"] = "Suspicious"
    rows[1]["image_view"] = 7
    rows[2]["lw_x_points"] += " 12"
    rows[3] |= {"lw_x_points": "900 910", "lw_y_points": "900 910"}
    rows[4]["image_filename"] = "patient_5/study_5/gone_LCC.tif"
    rows[5]["image_view"] = 4
    rows[7]["segmentation_id"] = 7
    write_bcdr_table(data / "bcdr_d01_outlines.csv", rows)
    (data / bcdr_image(3, "RO")).unlink()
    (data / bcdr_image(4, "RO")).write_bytes((data / bcdr_image(4, "RO")).read_bytes()[:100])
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(data / "patient_1/extra.tif")
    return root


def test_all_problems_are_collected_in_one_error(tmp_path):
    error = refused(broken(tmp_path))
    texts = " ".join(problem.text for problem in error.problems)
    assert Counter(problem.code for problem in error.problems) == {
        "bad_value": 3, "duplicate_image": 1, "unknown_label": 1, "bad_annotation": 1, "contour_outside": 1,
        "lesion_without_row": 1, "duplicate_lesion": 1, "row_without_file": 1, "bad_image": 1, "file_without_row": 2,
    }, texts  # fmt: skip
    for told in ("'Suspicious' is neither Benign nor Malign", "row 9: segmentation 7", "extra.tif",
                 "bcdr_d01_img.csv row 4: patient_id or image_filename is empty", "the mass: (900, 900, 911, 911)"):  # fmt: skip
        assert told in texts, told


def test_what_may_be_skipped_is_counted(tmp_path):
    root = broken(tmp_path)
    cohort = load(root, max_bad_fraction=0.4)
    assert sum(cohort.report["skipped"].values()) == 13 == len(cohort.private["problems"])
    assert sum(len(exam.lesions) for exam in cohort.exams) == 1 and cohort.report["other_views"] == 1
    assert refused(root, max_bad_fraction=0.3).code == "bad_value"


def test_columns_that_are_missing_are_named_for_all_tables(tmp_path):
    root = write_bcdr(tmp_path, ("d01", "f01"), 1)
    for file, column in (
        ("BCDR-D01_dataset/bcdr_d01_outlines.csv", "lw_x_points"),
        ("BCDR-F01_dataset/bcdr_f01_img.csv", "image_filename"),
    ):
        (root / file).write_text((root / file).read_text().replace(column, "other"))
    error = refused(root)
    assert [problem.code for problem in error.problems] == ["bad_columns"] * 2
    assert "no column for lw_x_points" in str(error) and "no column for image_filename" in str(error)


def test_the_structure_of_a_real_table(real_images):
    path = real_images / "format_samples/bcdr_schema_SYNTHETIC/bcdr_d99_outlines.csv"
    if not path.is_file():
        pytest.skip(f"no sample {path}")
    from data_partitions.archives.bcdr import OUTLINE_COLUMNS, _outline

    rows = read_records(path, OUTLINE_COLUMNS)[0]
    outlines = [_outline(None, "", cells) for _, cells in rows]
    assert [(kind, malignant, len(points)) for kind, malignant, points in outlines] == [
        ("mass", False, 24), ("mass", False, 24), ("calcification", True, 24),
    ]  # fmt: skip
    assert outlines[0][2].min(axis=0).tolist() == [1590, 1120]
