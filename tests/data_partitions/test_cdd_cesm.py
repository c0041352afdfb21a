"""CDD-CESM in its own layout: shapes of the drawing tool, both kinds of image, and every fault at once."""

from collections import Counter

import numpy as np
import pytest
from archives import cesm_polygon, cesm_region, square, write_cdd_cesm, write_csv
from hypothesis import given
from hypothesis import strategies as st

from data_partitions import Box, DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.cdd_cesm import CddCesmSource, _points
from data_partitions.reading.contours import pixel_box
from data_partitions.reading.tables import read_records


def load(path, **arguments):
    return CddCesmSource(path=path, **arguments).load("A", 0)


def refused(path, **arguments) -> DataError:
    with pytest.raises(DataError) as error:
        load(path, **arguments)
    return error.value


@pytest.mark.parametrize(("images", "mark"), [("low_energy", "DM"), ("subtracted", "CM")])
def test_a_centre_takes_one_kind_of_image(tmp_path, images, mark):
    exams = {exam.name: exam for exam in load(write_cdd_cesm(tmp_path), images=images).exams}
    assert len(exams) == 6 * 4 and all(f"_{mark}_" in name for name in exams)
    sick = exams[f"P2_L_{mark}_MLO"]
    assert (sick.patient, sick.laterality, sick.view, sick.density, sick.age, sick.scanner) == (
        "2",
        "L",
        "MLO",
        "B",
        50,
        images,
    )
    assert [(x.box, x.kind, x.malignant, x.birads) for x in sick.lesions] == [
        (Box(100, 40, 131, 71), "mass", True, "4")
    ]
    assert exams[f"P1_L_{mark}_CC"].malignant is False and exams[f"P1_L_{mark}_CC"].lesions[0].malignant is False
    assert sum(exam.usable_as_healthy for exam in exams.values()) == 12 + 4


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (cesm_polygon([(10, 20), (30, 20), (20, 45)]), Box(20, 10, 46, 31)),
        (cesm_polygon([(10, 20), (30, 25)]) | {"name": "polyline"}, Box(20, 10, 26, 31)),
        ({"name": "rect", "x": 5, "y": 6, "width": 7, "height": 8}, Box(6, 5, 15, 13)),
        ({"name": "circle", "cx": 50, "cy": 60, "r": 10}, Box(50, 40, 71, 61)),
        ({"name": "ellipse", "cx": 50, "cy": 60, "rx": 20, "ry": 10}, Box(50, 30, 71, 71)),
        ({"name": "ellipse", "cx": 50, "cy": 60, "rx": 20, "ry": 10, "theta": 1.5707963267948966}, Box(40, 40, 81, 61)),
        ({"name": "point", "cx": 3, "cy": 4}, Box(4, 3, 5, 4)),
    ],
)
def test_shapes(shape, box):
    assert pixel_box(_points(shape)) == box


@given(st.floats(1, 60), st.floats(1, 60), st.floats(-4, 4))
def test_the_box_of_an_ellipse_is_its_closed_form(rx, ry, theta):
    points = _points({"name": "ellipse", "cx": 100, "cy": 200, "rx": rx, "ry": ry, "theta": theta})
    half = np.hypot(rx * np.sin(theta), ry * np.cos(theta)), np.hypot(rx * np.cos(theta), ry * np.sin(theta))
    np.testing.assert_allclose(points.max(axis=0) - (200, 100), half, rtol=2e-3)
    np.testing.assert_allclose((200, 100) - points.min(axis=0), half, rtol=2e-3)


def edited(root, change_rows=None, change_regions=None):
    """Write the two tables again after a change of their rows."""
    import csv

    for name, change in (
        ("Radiology-manual-annotations", change_rows),
        ("Radiology_hand_drawn_segmentations_v2", change_regions),
    ):
        if change is not None:
            with (root / f"{name}.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            write_csv(root / f"{name}.csv", change(rows) or rows)


@pytest.mark.parametrize(
    ("findings", "kind"),
    [("Mass", "mass"), ("Mass enhancement", "mass"), ("Non-mass enhancement", "other"), ("Calcifications", "calcification"),
     ("Architectural distortion", "distortion"), ("Mass $ Calcification", "other"), ("Mass $ Mass enhancement", "mass"), ("", "other")],
)  # fmt: skip
def test_one_kind_of_finding_is_the_kind_of_the_outlines(tmp_path, findings, kind):
    root = write_cdd_cesm(tmp_path, 2)
    edited(root, lambda rows: [row | {"Findings": findings} for row in rows])
    assert {lesion.kind for exam in load(root).exams for lesion in exam.lesions} == {kind}


def test_several_rows_of_an_image_are_one_image(tmp_path):
    root = write_cdd_cesm(tmp_path, 2)
    edited(root, lambda rows: rows + [row | {"Findings": "Calcification"} for row in rows if row["Side"] == "L"])
    exams = load(root).exams
    assert len(exams) == 8 and {x.kind for exam in exams for x in exam.lesions} == {"other"}


def test_points_and_outlines_on_normal_images_are_no_healthy_tissue(tmp_path):
    root = write_cdd_cesm(tmp_path, 3)  # patient 3 is normal
    edited(root, None, lambda rows: rows + [
        cesm_region("P3_L_DM_CC", {"name": "point", "cx": 20, "cy": 30}), cesm_region("P3_L_DM_MLO", cesm_polygon(square(190, 190, 30))),
    ])  # fmt: skip
    cohort = load(root)
    exams = {exam.name: exam for exam in cohort.exams}
    assert exams["P3_L_DM_CC"].lesions == () and not exams["P3_L_DM_CC"].usable_as_healthy
    assert [(x.box, x.malignant) for x in exams["P3_L_DM_MLO"].lesions] == [(Box(190, 190, 221, 200), None)]
    assert cohort.report["single_points"] == 1 and cohort.report["outlines_cut"] == 1
    assert refused_for_malignancy(root).numbers == {"no_label": 1}


def refused_for_malignancy(root):
    with pytest.raises(DataError) as error:
        CddCesmSource(path=root).load("A", 0, None, PatchTask(label="malignancy"))
    return error.value


def test_patches_of_both_tasks(tmp_path):
    root = write_cdd_cesm(tmp_path / "archive")
    rule = SplitRule(test_only=True)
    for label, counts in (("lesion", {0: 8, 1: 8}), ("malignancy", {0: 4, 1: 4})):
        task = PatchTask(label=label, image_size=16, margin_px=4, crops=1)
        data = build_patches(CddCesmSource(path=root), task, rule, centre="B", seed=0, cache=tmp_path / "c")
        assert data.counts()["test"] == counts


def test_the_spreadsheet_itself(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    root = write_cdd_cesm(tmp_path, 2)
    book = openpyxl.Workbook()
    records = read_records(root / "Radiology-manual-annotations.csv", [])[0]
    book.active.append(list(records[0][1]))
    for _, cells in records:
        book.active.append([int(value) if value.isdigit() else value for value in cells.values()])
    book.save(root / "Radiology manual annotations.xlsx")
    expected = {exam.name: exam.lesions[0].birads if exam.lesions else "" for exam in load(root).exams}
    (root / "Radiology-manual-annotations.csv").unlink()
    assert {exam.name: exam.lesions[0].birads if exam.lesions else "" for exam in load(root).exams} == expected


def broken(folder):
    root = write_cdd_cesm(folder, 6)
    images = root / "Low energy images of CDD-CESM"

    def rows(rows):
        low = [row for row in rows if row["Type"] == "DM"]
        low[0]["Pathology Classification/ Follow up"] = "Probably benign"
        low[1]["View"] = "ML"
        low[2]["Patient_ID"] = ""
        rows.append(dict(low[4]) | {"Patient_ID": 99})

    def regions(rows):
        low = [row for row in rows if "_DM_" in row["#filename"]]
        low[4]["region_shape_attributes"] = '{"name": "polygon"'
        low[5]["region_shape_attributes"] = '{"name": "star", "cx": 1}'
        low[8] |= cesm_region("P3_L_DM_CC", cesm_polygon(square(900, 900, 9)))
        rows.append(cesm_region("P77_L_DM_CC", cesm_polygon(square(9, 9, 9))))

    edited(root, rows, regions)
    (images / "P4_L_DM_CC.jpg").unlink()
    file = images / "P4_L_DM_MLO.jpg"
    file.write_bytes(file.read_bytes()[:300])
    (images / "P88_L_DM_CC.jpg").write_bytes((images / "P4_R_DM_MLO.jpg").read_bytes())
    (images / "P4_R_DM_CC .jpg").write_bytes((images / "P4_R_DM_CC.jpg").read_bytes())
    return root


def test_all_problems_are_collected_in_one_error(tmp_path):
    error = refused(broken(tmp_path))
    texts = " ".join(problem.text for problem in error.problems)
    assert Counter(problem.code for problem in error.problems) == {
        "unknown_label": 1, "bad_value": 1, "duplicate_image": 1, "bad_annotation": 2, "contour_outside": 1,
        "lesion_without_row": 1, "row_without_file": 1, "bad_image": 1, "file_without_row": 1,
    }, texts  # fmt: skip
    for told in ("'probably benign'", "shape 'star' is unknown", "P77_L_DM_CC", "(900, 900, 910, 910)"):
        assert told in texts, told


def test_what_may_be_skipped_is_counted(tmp_path):
    cohort = load(broken(tmp_path), max_bad_fraction=0.5)
    assert sum(cohort.report["skipped"].values()) == 10
    assert cohort.report["other_views"] == 1 and cohort.report["identical_files"] == 1
    exams = {exam.name: exam for exam in cohort.exams}
    assert not exams["P3_L_DM_CC"].usable_as_healthy and exams["P3_L_DM_MLO"].usable_as_healthy
    assert not exams["P2_L_DM_CC"].lesions
    assert "has no Radiology-manual-annotations.xlsx" in str(refused(tmp_path, table="other.csv"))


def test_an_outline_that_is_there_twice_is_a_fault_and_counts_once(tmp_path):
    root = write_cdd_cesm(tmp_path, 2)
    count = sum(len(exam.lesions) for exam in load(root).exams)
    edited(root, None, lambda rows: rows + rows)
    assert {problem.code for problem in refused(root).problems} == {"duplicate_lesion"}
    assert sum(len(exam.lesions) for exam in load(root, max_bad_fraction=0.9).exams) == count > 0


@pytest.mark.parametrize("table", ["change_rows", "change_regions"])
def test_a_name_of_neither_kind_of_image_is_a_fault(tmp_path, table):
    root = write_cdd_cesm(tmp_path, 2)
    edited(
        root,
        **{
            table: lambda rows: (
                rows
                + [rows[0] | {"Image_name": "P1_L_MM_CC"} if table == "change_rows" else cesm_region("P1_L_MM_CC", {})]
            )
        },
    )
    assert "'P1_L_MM_CC' is no image's name such as P1_L_DM_CC" in str(refused(root))
