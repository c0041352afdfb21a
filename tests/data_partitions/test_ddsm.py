"""DDSM in its own layout: chain codes, .ics files, normal cases, and every fault at once."""

from collections import Counter

import numpy as np
import pytest
from archives import SHAPE, ddsm_abnormality, ddsm_overlay, ddsm_square, write_ddsm
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_partitions import Box, DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.account import Account
from data_partitions.archives.ddsm import DdsmSource, _case, chain


def load(path, **arguments):
    return DdsmSource(path=path, **arguments).load("A", 0)


def refused(path, **arguments) -> DataError:
    with pytest.raises(DataError) as error:
        load(path, **arguments)
    return error.value


def test_a_chain_goes_clockwise_from_up():
    assert chain(10, 20, "01234567").tolist() == [
        [20, 10], [19, 10], [18, 11], [18, 12], [19, 13], [20, 13], [21, 12], [21, 11], [20, 10],
    ]  # fmt: skip


@given(st.integers(0, 500), st.integers(0, 500), st.text("01234567", max_size=60))
def test_a_chain_and_its_way_back_end_where_they_began(x, y, code):
    back = "".join(str((int(step) + 4) % 8) for step in reversed(code))
    points = chain(x, y, code + back)
    assert points[0].tolist() == points[-1].tolist() == [y, x]
    assert len(points) == 2 * len(code) + 1
    assert np.abs(np.diff(points, axis=0)).max(initial=0) <= 1


def test_cases_lesions_and_healthy_images(tmp_path):
    exams = {exam.name.split("/")[-1]: exam for exam in load(write_ddsm(tmp_path)).exams}
    assert len(exams) == 32
    sick = exams["B_1001_1.LEFT_MLO"]
    assert (sick.patient, sick.laterality, sick.view, sick.age, sick.density) == ("B-1001-1", "L", "MLO", 51, "2")
    assert (sick.spacing_mm, sick.scanner, sick.shape, sick.malignant) == (0.05, "HOWTEK", SHAPE, True)
    (lesion,) = sick.lesions
    assert (lesion.box, lesion.kind, lesion.malignant, lesion.birads) == (Box(100, 60, 121, 81), "mass", True, "5")
    # The other breast of a woman with cancer is neither healthy nor benign: nobody says so.
    other = exams["B_1001_1.RIGHT_CC"]
    assert other.malignant is None and not other.usable_as_healthy
    assert {name[2:6] for name, exam in exams.items() if exam.usable_as_healthy} == {"1004", "1005", "1006", "1007"}


@pytest.mark.parametrize(
    ("types", "pathology", "kind", "malignant"),
    [
        (("CALCIFICATION TYPE PLEOMORPHIC DISTRIBUTION CLUSTERED",), "BENIGN", "calcification", False),
        (("CALCIFICATION TYPE FINE_LINEAR_BRANCHING DISTRIBUTION LINEAR", "MASS SHAPE ARCHITECTURAL_DISTORTION MARGINS N/A"),
         "BENIGN_WITHOUT_CALLBACK", "mass", False),
        (("OTHER",), "UNPROVEN", "other", None), ((), "MALIGNANT", "other", True),
    ],
)  # fmt: skip
def test_types_and_pathology(tmp_path, types, pathology, kind, malignant):
    root = write_ddsm(tmp_path, 1, 0)
    overlay = next(root.rglob("*LEFT_CC.OVERLAY"))
    overlay.write_text(ddsm_overlay(ddsm_abnormality("20 30 2 2 2 4 4 6 6 6 0 0", types, pathology)))
    exam = next(exam for exam in load(root).exams if exam.name.endswith("LEFT_CC"))
    assert [(x.box, x.kind, x.malignant) for x in exam.lesions] == [(Box(30, 20, 33, 24), kind, malignant)]
    assert exam.malignant is malignant


def test_patches_of_lesions_and_healthy_tissue(tmp_path):
    root = write_ddsm(tmp_path / "archive")
    task = PatchTask(image_size=16, margin_mm=0.2, crops=1)
    data = build_patches(
        DdsmSource(path=root), task, SplitRule(test_only=True), centre="B", seed=0, cache=tmp_path / "c"
    )
    assert data.counts()["test"] == {0: 8, 1: 8}
    assert data.data_card()["spacing_mm"] == [0.05] and set(data.table["width"]) == {21 + 2 * 4}


def broken(folder):
    root = write_ddsm(folder, 6, 2)
    case = {path.name[-4:]: path for path in root.rglob("case*") if path.name != "cases"}

    def overlay(number, text):
        file = next(case[number].glob("*LEFT_CC.OVERLAY"))
        file.write_text(text(file.read_text()))

    overlay("1000", lambda text: text.replace("#", ""))
    overlay("1001", lambda text: text.replace("MALIGNANT", "MALIGN"))
    overlay("1002", lambda text: text.replace("LESION_TYPE MASS", "LESION_TYPE LUMP"))
    overlay("1003", lambda text: ddsm_overlay(ddsm_abnormality(ddsm_square(900, 900, 5))))
    overlay("1004", lambda text: text.replace("ABNORMALITIES 1", "ABNORMALITIES 2"))
    next(case["1005"].glob("*LEFT_CC.OVERLAY")).unlink()
    (case["1006"] / "A_1006_1.LEFT_CC.OVERLAY").write_text(ddsm_overlay(ddsm_abnormality(ddsm_square(60, 90, 5))))
    (case["1006"] / "A_1006_1.LEFT_MLO.png").rename(case["1006"] / "A_1006_1.LEFT_MLO.LJPEG")
    small = Image.linear_gradient("L").resize((50, 60))
    small.save(case["1006"] / "A_1006_1.RIGHT_CC.png")
    small.save(case["1006"] / "A_1006_1.RIGHT_MLO.tif")
    ics = case["1007"] / "B-1007-1.ics"
    ics.write_text(ics.read_text().replace("LEFT_CC LINES 240", "LEFT_CC LINES ?"))
    picture = case["1007"] / "B_1007_1.LEFT_MLO.png"
    picture.write_bytes(picture.read_bytes()[:900])
    (case["1007"] / "B_1007_1.RIGHT_CC.png").unlink()
    (root / "empty.ics").write_text("ics_version 1.0\n")
    return root


def test_all_problems_are_collected_in_one_error(tmp_path):
    error = refused(broken(tmp_path))
    texts = " ".join(problem.text for problem in error.problems)
    assert Counter(problem.code for problem in error.problems) == {
        "bad_annotation": 2, "unknown_label": 2, "contour_outside": 1, "row_without_file": 2, "lesion_without_row": 1,
        "not_converted": 1, "image_size": 1, "duplicate_image": 1, "bad_value": 1, "bad_image": 1, "bad_table": 1,
    }, texts  # fmt: skip
    for told in (
        "ends in #", "'MALIGN'", "'LUMP'", "(900, 900, 906, 906)", "1 abnormalities, 2 announced", "empty.ics",
        "convert it to A_1006_1.LEFT_MLO.png", "is (60, 50), (240, 200) announced", "B-1007-1.ics LEFT_CC: LINES",
    ):  # fmt: skip
        assert told in texts, told


def test_what_may_be_skipped_is_counted_and_no_healthy_box_comes_from_an_image_with_an_unread_finding(tmp_path):
    cohort = load(broken(tmp_path), max_bad_fraction=0.5)
    assert sum(cohort.report["skipped"].values()) == 14 == len(cohort.private["problems"])
    assert sum(len(exam.lesions) for exam in cohort.exams) == 6 + 1  # six MLO views, and the one of two announced
    assert {exam.name.split("/")[-1] for exam in cohort.exams if exam.usable_as_healthy} == {"B_1007_1.RIGHT_MLO"}


def test_a_folder_without_cases_is_named(tmp_path):
    assert "has no .ics file" in str(refused(tmp_path))


def test_a_real_header(real_images):
    file = real_images / "format_samples/ddsm_schema_SYNTHETIC/A-9999-1.ics"
    if not file.is_file():
        pytest.skip(f"no sample {file}")
    case = _case(Account(file.parent), file)
    assert (case.name, case.age, case.density, case.digitizer) == ("A-9999-1", 42, "4", "LUMISYS LASER")
    assert [(p.laterality, p.view, p.shape, p.spacing_mm, p.overlay) for p in case.pictures] == [
        ("L", "CC", (4696, 3024), 0.05, True), ("L", "MLO", (4688, 3048), 0.05, True),
        ("R", "CC", (4624, 3056), 0.05, False), ("R", "MLO", (4664, 3120), 0.05, False),
    ]  # fmt: skip
    assert case.pictures[0].stem.name == "A_9999_1.LEFT_CC"


@pytest.mark.parametrize("end", ["", " OVERLA", " overlay"])
def test_a_line_that_does_not_say_whether_there_is_an_overlay_is_a_fault_and_its_case_not_healthy(tmp_path, end):
    root = write_ddsm(tmp_path, 1, 1)
    sick = next(root.rglob("A-1000-1.ics"))
    sick.write_text(sick.read_text().replace("RESOLUTION 50 OVERLAY", f"RESOLUTION 50{end}"))
    for file in root.rglob("*.OVERLAY"):
        file.unlink()
    error = refused(root)
    assert [problem.code for problem in error.problems] == ["bad_value"] * 2
    assert "and not in OVERLAY or NON_OVERLAY; correct it" in str(error)
    left = load(root, max_bad_fraction=0.5).exams
    assert {exam.patient for exam in left if exam.usable_as_healthy or exam.malignant is False} == {"B-1001-1"}


@pytest.mark.parametrize("ends", [("OVERLAY", "NON_OVERLAY"), ("NON_OVERLAY", "OVERLAY")])
def test_two_lines_of_one_image_are_a_fault_and_it_is_not_healthy(tmp_path, ends):
    root = write_ddsm(tmp_path, 1, 1)
    sick = next(root.rglob("A-1000-1.ics"))
    line = next(line for line in sick.read_text().splitlines() if line.startswith("LEFT_CC")).removesuffix("OVERLAY")
    text = sick.read_text().replace(f"{line}OVERLAY", f"{line}{ends[0]}\n{line}{ends[1]}")
    sick.write_text(text)
    assert "duplicate_image" in {problem.code for problem in refused(root).problems}
    left = load(root, max_bad_fraction=0.5).exams
    assert {exam.patient for exam in left if exam.usable_as_healthy} == {"B-1001-1"}
    assert [exam.malignant for exam in left if exam.name.endswith("A_1000_1.LEFT_CC")] == [None]


def test_a_resolution_with_decimals_is_read(tmp_path):
    root = write_ddsm(tmp_path, 0, 1)
    file = next(root.rglob("*.ics"))
    file.write_text(file.read_text().replace("RESOLUTION 50", "RESOLUTION 43.5").replace("LINES 240", "LINES 240.0"))
    assert {exam.spacing_mm for exam in load(root).exams} == {0.0435}
    file.write_text(file.read_text().replace("RESOLUTION 43.5", "RESOLUTION fine"))
    assert "RESOLUTION 'fine' is not a number" in str(refused(root))


def test_an_abnormality_that_is_there_twice_is_a_fault_and_counts_once(tmp_path):
    root = write_ddsm(tmp_path, 1, 0)
    one = ddsm_abnormality(ddsm_square(60, 100, 20))
    next(root.rglob("*LEFT_CC.OVERLAY")).write_text(ddsm_overlay(one, one))
    assert [problem.code for problem in refused(root).problems] == ["duplicate_lesion"]
    assert [len(e.lesions) for e in load(root, max_bad_fraction=0.5).exams if e.name.endswith("LEFT_CC")] == [1]
