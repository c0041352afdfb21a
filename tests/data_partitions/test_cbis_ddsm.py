"""CBIS-DDSM in its own layout: masks, the official split, counts on the real tables, and every fault at once."""

import shutil
from collections import Counter

import numpy as np
import pytest
from archives import cbis_row, write_cbis_ddsm, write_cbis_picture, write_csv
from dicom_files import write_dicom

from data_partitions import Box, DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.account import Account
from data_partitions.archives.cbis_ddsm import CbisDdsmSource, tally

MALIGNANCY = PatchTask(label="malignancy", image_size=16, margin_px=4, crops=1)


def load(path, **arguments):
    return CbisDdsmSource(path=path, **arguments).load("A", 0)


def refused(path, **arguments) -> DataError:
    with pytest.raises(DataError) as error:
        load(path, **arguments)
    return error.value


@pytest.mark.parametrize("layout", ["dicom", "png", "jpeg"])
def test_masks_are_found_by_their_size_in_every_edition(tmp_path, layout):
    """A third of the rows name mask and crop the other way round."""
    exams = {exam.name: exam for exam in load(write_cbis_ddsm(tmp_path, layout)).exams}
    assert len(exams) == 16
    assert {exam.shape for exam in exams.values()} == {(240, 200)}
    boxes = {name: sorted(lesion.box for lesion in exam.lesions) for name, exam in exams.items()}
    first, second = Box(60, 60, 90, 90), Box(120, 60, 150, 90)
    assert boxes.pop("Mass-Training_P_00001_RIGHT_CC") == [first, second]
    assert boxes["Mass-Training_P_00002_LEFT_MLO"] == [first]
    exam = exams["Calc-Test_P_00033_RIGHT_MLO"]
    assert (exam.patient, exam.laterality, exam.view, exam.density) == ("P_00033", "R", "MLO", "2")
    assert [(x.kind, x.malignant, x.birads) for x in exam.lesions] == [("calcification", False, "4")]
    assert not any(exam.usable_as_healthy for exam in exams.values())


def test_the_archives_test_patients_are_the_test_split(tmp_path):
    root = write_cbis_ddsm(tmp_path / "archive", "png", 6)
    for task, patients in ((MALIGNANCY, 24), (PatchTask(label="malignancy", image_size=16, whole_image=True), 24)):
        data = build_patches(CbisDdsmSource(path=root), task, SplitRule(), centre="A", seed=0, cache=tmp_path / "cache")
        table = data.table.groupby("patient")["split"].first()
        assert Counter(table == "test") == {True: patients // 2, False: patients // 2}
    free = build_patches(
        CbisDdsmSource(path=root, official_split=False),
        MALIGNANCY,
        SplitRule(),
        centre="A",
        seed=0,
        cache=tmp_path / "cache",
    )
    assert (free.table.groupby("patient")["split"].first() == "test").sum() == 4
    assert not any(free.data_card()["boxes"][split]["malignant"] == 0 for split in ("train", "test"))


def test_a_patient_of_both_sets_is_a_test_patient(tmp_path):
    root = write_cbis_ddsm(tmp_path, "png", 2)
    rows = [cbis_row("calc", "test", 0, "LEFT", "CC", 1, "BENIGN")]  # patient 0 trains in the table of masses
    mask = np.zeros((240, 200), np.uint8)
    mask[10:30, 40:60] = 255
    write_cbis_picture(root, rows[0]["image file path"], "png", "000000", np.full((240, 200), 9, np.uint8))
    write_cbis_picture(root, rows[0]["ROI mask file path"], "png", "000000", mask)
    for patient in (30, 31):
        for folder in root.glob(f"Calc-Test_P_000{patient}_*"):
            shutil.rmtree(folder)
    write_csv(root / "calc_case_description_test_set.csv", rows)
    cohort = load(root)
    assert "P_00000" in cohort.for_test and cohort.report["patients_in_both_sets"] == 1
    assert "P_00000" not in load(root, abnormalities="mass").for_test


def test_one_kind_needs_the_files_of_that_kind_only(tmp_path):
    root = write_cbis_ddsm(tmp_path, "png", 2, kinds=("mass",))
    assert {lesion.kind for exam in load(root, abnormalities="mass").exams for lesion in exam.lesions} == {"mass"}
    assert "has no calc_case_description_train_set.csv" in str(refused(root))


def test_an_image_in_two_tables_is_taken_once_with_both_kinds(tmp_path):
    """The film of a breast with a mass and calcifications is in two folders, pixel by pixel the same."""
    root = write_cbis_ddsm(tmp_path, "png", 2)
    rows = [cbis_row("calc", "test", 10, "LEFT", "CC", 1, "MALIGNANT")]
    mask = np.zeros((240, 200), np.uint8)
    mask[10:30, 40:60] = 255
    of_mass = next(root.glob("Mass-Test_P_00010_LEFT_CC/*/*/000000.png"))
    write_cbis_picture(root, rows[0]["ROI mask file path"], "png", "000000", mask)
    write_cbis_picture(root, rows[0]["image file path"], "png", "000000", np.zeros((2, 2), np.uint8))
    shutil.copy(of_mass, next(root.glob("Calc-Test_P_00010_LEFT_CC/*/*/000000.png")))
    for folder in root.glob("Calc-Test_P_0003*"):
        shutil.rmtree(folder)
    write_csv(root / "calc_case_description_test_set.csv", rows)
    cohort = load(root)
    (exam,) = [exam for exam in cohort.exams if exam.patient == "P_00010"]
    assert sorted((lesion.kind, lesion.box) for lesion in exam.lesions) == [
        ("calcification", Box(10, 40, 30, 60)), ("mass", Box(60, 60, 90, 90)),
    ]  # fmt: skip
    assert cohort.report["copies"] == 1


def test_counts_go_from_rows_to_areas_to_lesions(tmp_path):
    """Rows of 1 and 2 share a mask (one lesion), row 3 has two areas, row 4 none that can be read."""
    table = tmp_path / "mass_case_description_train_set.csv"
    labels = ("MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT")
    write_csv(table, [cbis_row("mass", "train", 1, "LEFT", "CC", k, label) for k, label in enumerate(labels, start=1)])
    write_csv(tmp_path / "mass_case_description_test_set.csv", [cbis_row("mass", "test", 2, "LEFT", "CC", 1, "BENIGN")])
    rows, _ = CbisDdsmSource(path=tmp_path, abnormalities="mass")._rows(Account(tmp_path))
    a, b, c = Box(0, 0, 9, 9), Box(20, 0, 29, 9), Box(40, 0, 49, 9)
    boxes = {row.where: found for row, found in zip(rows, ([a], [a], [b, c], None, [a]), strict=True) if found}
    assert tally(rows, boxes) == {
        "mass train": {"rows_benign": 2, "rows_malignant": 2, "masks": 3, "areas": 4, "lesions_benign": 2, "lesions_malignant": 1},
        "mass test": {"rows_benign": 1, "rows_malignant": 0, "masks": 1, "areas": 1, "lesions_benign": 1, "lesions_malignant": 0},
    }  # fmt: skip


def test_counts_are_in_the_report(tmp_path):
    report = load(write_cbis_ddsm(tmp_path, "png", 4)).report
    counts = report["counts"]
    assert "mass train: 5 rows, 5 masks, 5 areas, 5 lesions" in report["notes"]
    assert set(counts) == {"mass train", "mass test", "calcification train", "calcification test"}
    assert all(
        sum((n["lesions_benign"], n["lesions_malignant"])) == n["areas"] == n["masks"] == 5 for n in counts.values()
    )


def test_the_real_tables_hold_the_official_numbers(real_images):
    folder = real_images / "format_samples" / "cbis_ddsm"
    if not folder.is_dir():
        pytest.skip(f"no tables at {folder}")
    account = Account(folder)
    rows, _ = CbisDdsmSource(path=folder)._rows(account)
    assert not account.problems and not account.fatal
    # One box per row that no other row of its image has: the rows are what is left.
    boxes = {row.where: [Box(int(row.cells["abnormality_id"]), 0, 99, 99)] for row in rows}
    counts = {
        table: (count["lesions_benign"], count["lesions_malignant"]) for table, count in tally(rows, boxes).items()
    }
    assert counts == {
        "mass train": (681, 637), "mass test": (231, 147), "calcification train": (1002, 544), "calcification test": (197, 129),
    }  # fmt: skip
    assert len({row.image for row in rows if (row.kind, row.split) == ("mass", "train")}) == 1231
    assert len({row.patient for row in rows if row.kind == "mass"}) == 892
    CbisDdsmSource(path=folder)._reserve(account, rows)
    assert account.report["patients_in_both_sets"] == 31 and len(account.for_test) == 349
    masses = Account(folder)
    CbisDdsmSource(path=folder)._reserve(masses, [row for row in rows if row.kind == "mass"])
    assert "patients_in_both_sets" not in masses.report
    densities = Counter(row.density for row in rows)
    assert densities[""] == 2 and set(densities) == {"", "1", "2", "3", "4"}


def broken(folder):
    root = write_cbis_ddsm(folder, "dicom", 8, kinds=("mass",))
    below = root / "CBIS-DDSM"
    table = root / "mass_case_description_train_set.csv"
    rows = [cbis_row("mass", "train", place, ("LEFT", "RIGHT")[place % 2], ("CC", "MLO")[place // 2 % 2], number, "BENIGN", place % 3 == 2)
            for place in range(8) for number in ((1, 2) if place == 1 else (1,))]  # fmt: skip
    rows[0]["pathology"] = "UNPROVEN"
    rows[2] = rows[1] | {"ROI mask file path": rows[2]["ROI mask file path"]}
    rows[3]["image view"] = "ML"
    write_csv(table, rows)
    for patient in (3, 4):
        shutil.rmtree(
            next(below.glob(f"Mass-Training_P_0000{patient}_*_1" if patient == 3 else "Mass-Training_P_00004_LEFT_CC"))
        )
    (mask,) = (file for file in below.glob("Mass-Training_P_00005_*_1/*/*/000000.dcm"))
    write_dicom(mask, np.zeros((240, 200), np.uint8))
    (other,) = below.glob("Mass-Training_P_00005_*_1/*/*/000001.dcm")
    write_dicom(other, np.zeros((50, 50), np.uint8))
    for file in below.glob("Mass-Training_P_00006_*_1/*/*/*.dcm"):
        write_dicom(file, np.full((7, 7), 255, np.uint8))
    (image,) = below.glob("Mass-Training_P_00007_RIGHT_MLO/*/*/*.dcm")
    image.write_bytes(image.read_bytes()[:3000])
    (below / "Mass-Test_P_00099_LEFT_CC").mkdir()
    return root


def test_all_problems_are_collected_in_one_error(tmp_path):
    error = refused(broken(tmp_path), abnormalities="mass")
    texts = " ".join(problem.text for problem in error.problems)
    assert Counter(problem.code for problem in error.problems) == {
        "unknown_label": 1, "duplicate_lesion": 1, "row_without_file": 2, "empty_mask": 1, "mask_size": 1, "bad_image": 1,
        "file_without_row": 1,
    }, texts  # fmt: skip
    for told in ("pathology 'UNPROVEN'", "no mask for Mass-Training_P_00003", "no image for Mass-Training_P_00004",
                 "must have the image's size (240, 200)", "Mass-Test_P_00099_LEFT_CC: no row"):  # fmt: skip
        assert told in texts, told


def test_what_may_be_skipped_is_counted(tmp_path):
    root = broken(tmp_path)
    cohort = load(root, abnormalities="mass", max_bad_fraction=0.5)
    assert sum(cohort.report["skipped"].values()) == 8 == len(cohort.private["problems"])
    assert cohort.report["other_views"] == 1
    counts = cohort.report["counts"]["mass train"]
    assert (counts["rows_benign"], counts["masks"], counts["lesions_benign"]) == (6, 1, 1)
    assert refused(root, abnormalities="mass", max_bad_fraction=0.2).code == "row_without_file"


def test_a_second_copy_of_a_file_is_read_once_if_it_is_the_same_and_a_fault_if_not(tmp_path):
    root = write_cbis_ddsm(tmp_path, "png", 2, kinds=("mass",))
    image = next(root.glob("Mass-Training_P_00000_LEFT_CC/*/*/*.png"))
    mask = next(root.glob("Mass-Training_P_00000_LEFT_CC_1/*/*/000001.png"))
    for file in (image, mask):
        shutil.copy(file, file.with_name("again.png"))
    whole = {exam.name for exam in load(root, abnormalities="mass").exams}
    assert load(root, abnormalities="mass").report["identical_files"] == 2 and len(whole) == 4
    image.with_name("again.png").write_bytes(image.read_bytes() + b"\0")
    mask.with_name("again.png").write_bytes(mask.read_bytes() + b"\0")
    error = refused(root, abnormalities="mass")
    assert error.code == "duplicate_image" and "are not the same; keep one of them" in str(error)
    shutil.move(image.with_name("again.png"), tmp_path.parent / "x.png")
    error = refused(root, abnormalities="mass")
    assert error.code == "mask_size" and "keep one of them" in str(error)


def test_a_second_tree_of_the_archive_is_not_passed_over(tmp_path):
    root = write_cbis_ddsm(tmp_path / "a", "dicom", 2, kinds=("mass",))
    shutil.copytree(root / "CBIS-DDSM", root / "AA resized")
    found = load(root, abnormalities="mass")
    assert len(found.exams) == 4 and found.report["identical_files"] >= 4 + 6
    for file in (root / "AA resized").rglob("*.dcm"):
        write_dicom(file, np.zeros((20, 20), np.uint8) + np.arange(20, dtype=np.uint8))
    error = refused(root, abnormalities="mass")
    assert "duplicate_image" in error.numbers and "AA resized" in str(error) and "CBIS-DDSM/Mass" in str(error)


def test_a_second_table_of_one_name_is_refused_where_it_differs(tmp_path):
    root = write_cbis_ddsm(tmp_path, "png", 2, kinds=("mass",))
    table = root / "mass_case_description_train_set.csv"
    (root / "csv").mkdir()
    shutil.copy(table, root / "csv")
    assert load(root, abnormalities="mass").report["identical_files"] == 1
    (root / "csv" / table.name).write_text(table.read_text().replace("BENIGN", "MALIGNANT"))
    assert refused(root, abnormalities="mass", max_bad_fraction=1.0).code == "duplicate_file"


def test_the_remedy_of_a_mask_is_one_that_this_source_has(tmp_path):
    root = write_cbis_ddsm(tmp_path, "png", 1, kinds=("mass",))
    mask = next(root.glob("Mass-Training_P_00000_LEFT_CC_1/*/*/000001.png"))
    write_cbis_picture(root, mask.relative_to(root).as_posix(), "png", "000001", np.eye(240, 200, dtype=np.uint8) * 100)
    error = refused(root, abnormalities="mass")
    assert (
        "with the values 100" in str(error)
        and "mask_classes" not in str(error)
        and "set `mask_threshold`" in str(error)
    )
