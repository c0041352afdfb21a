"""INbreast in its own layout: boxes to the pixel, what is healthy, and every fault of a broken copy at once."""

import shutil
import struct
from collections import Counter

import numpy as np
import pytest
from archives import (
    breast,
    inbreast_region,
    inbreast_row,
    square,
    write_csv,
    write_inbreast,
    write_inbreast_outlines,
)
from dicom_files import write_dicom

from data_partitions import Box, DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.inbreast import InbreastSource

MALIGNANCY = PatchTask(label="malignancy")
FIRST_SICK = "20586910"  # patient 1, left, CC


def exams_of(path, **arguments):
    return {exam.name: exam for exam in InbreastSource(path=path, **arguments).load("A", 0).exams}


def refused(path, task=None, **arguments) -> DataError:
    with pytest.raises(DataError) as error:
        InbreastSource(path=path, **arguments).load("A", 0, None, task)
    return error.value


# --- what is read


def test_the_archive_is_read_from_its_folder_or_the_one_above(tmp_path):
    root = write_inbreast(tmp_path, 4)
    for path in (root, tmp_path):
        exams = exams_of(path)
        assert len(exams) == 16 and len({exam.patient for exam in exams.values()}) == 4
    sick = exams[FIRST_SICK]
    assert (sick.patient, sick.view, sick.laterality, sick.density) == ("6c613a14b80a8592", "CC", "L", "2")
    assert (sick.shape, sick.spacing_mm, sick.scanner) == ((240, 200), 0.07, "SIEMENS MammoNovation")
    assert sick.malignant and exams["20586911"].view == "MLO"
    assert exams["20586930"].malignant is False and exams["20586930"].lesions[0].malignant is False


def test_boxes_are_those_of_the_pixels_that_hold_the_points(tmp_path):
    lesions = exams_of(write_inbreast(tmp_path, 2))[FIRST_SICK].lesions
    assert {(lesion.kind, lesion.box) for lesion in lesions} == {
        ("mass", Box(100, 40, 131, 71)), ("calcification", Box(150, 60, 163, 73)),
    }  # fmt: skip
    assert {lesion.birads for lesion in lesions} == {"5"}
    with_points = exams_of(tmp_path, single_points=True)[FIRST_SICK].lesions
    assert Box(60, 60, 61, 61) in {lesion.box for lesion in with_points} and len(with_points) == 3


@pytest.mark.parametrize(
    ("names", "boxes"),
    [
        (["Mass", "Mass"], [Box(20, 20, 56, 56)]),  # they overlap: one lesion
        (["Mass", "Espiculated Region"], [Box(20, 20, 56, 56)]),
        (["Spiculated region", "Spiculated Region"], [Box(20, 20, 56, 56)]),
        (["Mass", "Cluster"], [Box(20, 20, 41, 41), Box(35, 35, 56, 56)]),  # two kinds are two lesions
    ],
)
def test_what_is_connected_and_of_one_kind_is_one_lesion(tmp_path, names, boxes):
    root = write_inbreast(tmp_path, 2)
    regions = [inbreast_region(name, square(20 + 15 * i, 20 + 15 * i, 20)) for i, name in enumerate(names)]
    write_inbreast_outlines(root, FIRST_SICK, regions)
    assert sorted(lesion.box for lesion in exams_of(root)[FIRST_SICK].lesions) == boxes


def test_healthy_is_birads_1_without_any_outline(tmp_path):
    root = write_inbreast(tmp_path, 4)
    rows = [inbreast_row(int(name), exam.laterality, exam.view, "1", "2" if name == "20586902" else "1")
            for name, exam in exams_of(root).items()]  # fmt: skip
    write_csv(root / "INbreast.csv", rows, delimiter=";")
    write_inbreast_outlines(root, "20586900", [inbreast_region("Calcification", [(5.5, 5.5)])])
    cohort = InbreastSource(path=root).load("A", 0)
    healthy = {exam.name for exam in cohort.exams if exam.usable_as_healthy and not exam.lesions}
    assert not {"20586900", "20586902", FIRST_SICK} & healthy and len(healthy) == 16 - 2 - 4
    assert cohort.report["single_points"] == 5


def test_patches_of_lesions_and_healthy_tissue(tmp_path):
    root = write_inbreast(tmp_path, 12)
    task = PatchTask(image_size=16, margin_px=4, crops=1)
    data = build_patches(InbreastSource(path=root), task, SplitRule(), centre="A", seed=0, cache=tmp_path / "cache")
    counts = data.counts()
    assert sum(labels[1] for labels in counts.values()) == sum(labels[0] for labels in counts.values()) == 24
    assert "6c613a" not in str(data.report) and "2058" not in str(data.report)
    # Tissue is at half of the window's range, and so is what the patches hold.
    assert data.stored().mean() == pytest.approx(127, abs=12)


def test_labels_come_from_birads_and_an_unknown_one_is_no_label(tmp_path):
    root = write_inbreast(tmp_path, 4)
    exams = exams_of(root, malignant=("5", "6"), benign=("1",))
    assert exams["20586930"].malignant is None
    error = refused(root, MALIGNANCY, malignant=("5", "6"), benign=("1",))
    assert error.code == "no_label" and error.numbers["no_label"] == 4
    InbreastSource(path=root).load("A", 0, None, MALIGNANCY)


# --- the table as a spreadsheet


def biff(rows: list[list[str | float]]) -> bytes:
    """A spreadsheet in the oldest .xls format (BIFF2): numbers are floats, as in the archive's own file."""
    records = [struct.pack("<HHHH", 9, 4, 2, 0x10)]
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if isinstance(value, float):
                records.append(struct.pack("<HHHH3xd", 3, 15, y, x, value))
            elif value:
                text = value.encode("latin-1")
                records.append(struct.pack("<HHHH3xB", 4, 8 + len(text), y, x, len(text)) + text)
    return b"".join(records) + struct.pack("<HH", 10, 0)


def test_the_true_spreadsheet_holds_numbers_and_a_footer(tmp_path):
    pytest.importorskip("xlrd")
    root = write_inbreast(tmp_path, 2)
    expected = exams_of(root)
    (root / "INbreast.csv").unlink()
    rows = [list(inbreast_row(0, "", "", "", ""))]
    for name, exam in expected.items():
        birads = exam.lesions[0].birads if exam.lesions else "1"
        rows.append(
            [
                "removed",
                "removed",
                exam.laterality,
                exam.view,
                201001.0,
                float(name),
                float(exam.density),
                float(birads),
            ]
        )
    rows += [[], ["", "", "", "", "", "", "", "", "X", "107"]]
    (root / "INbreast.xls").write_bytes(biff(rows))
    cohort = InbreastSource(path=root).load("A", 0)
    assert {e.name: (e.lesions[0].birads if e.lesions else "", e.density) for e in cohort.exams} == {
        e.name: (e.lesions[0].birads if e.lesions else "", e.density) for e in expected.values()
    }
    assert cohort.report["rows_without_file_name"] == 1


def test_a_missing_reader_names_the_extra(tmp_path, monkeypatch):
    root = write_inbreast(tmp_path, 2, table=False)
    (root / "INbreast.xls").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "xlrd", None)
    assert "pip install 'polycentre[spreadsheets]'" in str(refused(root, table="INbreast.xls"))


# --- bad input


def broken(tmp_path):
    """An archive of 40 images with one fault of each kind."""
    root = write_inbreast(tmp_path, 10)
    images, rows = root / "AllDICOMs", []
    for name, exam in exams_of(root).items():
        rows.append(
            inbreast_row(int(name), exam.laterality, exam.view, "1", exam.lesions[0].birads if exam.lesions else "1")
        )
    for place, change in (
        (1, {"Bi-Rads": "7"}),
        (2, {"View": "XCCL"}),
        (3, {"ACR": "9"}),
        (5, {"File Name": FIRST_SICK}),
    ):
        rows[place] |= change
    write_csv(root / "INbreast.csv", rows, delimiter=";")
    first = {file.name[:8]: file for file in sorted(images.iterdir())}
    first["20586920"].unlink()
    first["20586921"].write_bytes(first["20586921"].read_bytes()[:3000])
    write_dicom(
        first["20586922"],
        np.zeros((8, 8, 3), np.uint8),
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
    )
    write_dicom(images / "20586960_other_MG_L_CC_ANON.dcm", breast(0))
    write_dicom(images / "20586999.dcm", breast(0))
    write_inbreast_outlines(root, FIRST_SICK, [
        inbreast_region("Mass", square(500, 500, 9)), inbreast_region("Lump", square(5, 5, 9)),
        inbreast_region("Mass", square(5, 5, 9), NumberOfPoints=7), inbreast_region("Mass", square(230, 10, 30)),
    ])  # fmt: skip
    write_inbreast_outlines(root, "31", [])
    (root / "AllXML" / "20586923.xml").write_text("<plist><dict>")
    return root


def test_all_problems_are_collected_in_one_error(tmp_path):
    error = refused(broken(tmp_path))
    assert Counter(problem.code for problem in error.problems) == {
        "unknown_label": 3, "duplicate_image": 2, "row_without_file": 1, "file_without_row": 1, "bad_image": 1,
        "bad_photometric": 1, "bad_value": 1, "contour_outside": 1, "bad_annotation": 2, "lesion_without_row": 2,
    }  # fmt: skip
    texts = " ".join(problem.text for problem in error.problems)
    for told in (
        "INbreast.csv row 3: Bi-Rads '7'", "ACR '9'", "INbreast.csv row 7: file name 20586910", "20586999.dcm",
        "AllDICOMs/20586920_*.dcm", "20586910.xml outline 2: kind 'Lump'", "20586911_", "20586923.xml is not",
        "5 points of (x, y), 7 announced", "the mass: (500, 500, 510, 510) lies outside its image of (240, 200)",
    ):  # fmt: skip
        assert told in texts, told
    assert not any("2058" in str(value) for value in error.numbers.values())


def test_what_may_be_skipped_is_counted_and_images_with_unread_findings_are_not_healthy(tmp_path):
    root = broken(tmp_path)
    cohort = InbreastSource(path=root, max_bad_fraction=0.4).load("A", 0)
    assert cohort.report["skipped"]["unknown_label"] == 3 and sum(cohort.report["skipped"].values()) == 15
    assert "<5 left out: bad_image" in cohort.report["notes"] and len(cohort.private["problems"]) == 15
    exams = {exam.name: exam for exam in cohort.exams}
    assert len(exams) == 40 - 8 and cohort.report["other_views"] == 1  # two files of one number are not used
    # The last outline leaves the image at the bottom: it is cut there.
    assert [lesion.box for lesion in exams[FIRST_SICK].lesions] == [Box(230, 10, 240, 41)]
    assert cohort.report["outlines_cut"] == 1
    assert not exams["20586923"].usable_as_healthy
    assert refused(root, max_bad_fraction=0.1).code == "unknown_label"


def test_tables_that_cannot_be_read_are_named_with_what_they_have(tmp_path):
    root = write_inbreast(tmp_path, 2)
    text = (root / "INbreast.csv").read_text()
    (root / "INbreast.csv").write_text(text.replace("Bi-Rads", "Birads"))
    assert "no column for bi_rads; it has Patient ID" in str(refused(root))
    (root / "INbreast.csv").write_bytes(text.replace("removed", "é").encode("latin-1"))
    assert refused(root, encoding="utf-8").code == "bad_encoding"
    assert len(exams_of(root, encoding="latin-1")) == 8
    assert refused(root, table="other.csv").code == "missing_file"
    assert "has no folder AllDICOMs" in str(refused(root / "AllXML"))
    assert "correct `path`" in str(refused(tmp_path / "nowhere"))


# --- outlines that are missing

WHOLE = PatchTask(label="malignancy", whole_image=True, image_size=16)


@pytest.mark.parametrize("task", [PatchTask(), MALIGNANCY, PatchTask(whole_image=True, image_size=16)])
def test_without_outlines_a_task_that_needs_lesions_is_refused(tmp_path, task):
    root = write_inbreast(tmp_path, 4)
    shutil.rmtree(root / "AllXML")
    error = refused(root, task, max_bad_fraction=1.0)
    assert error.code == "missing_file" and "AllXML does not exist, and the task needs the outlines" in str(error)


@pytest.mark.parametrize("task", [None, WHOLE])
def test_without_outlines_birads_is_enough_for_whole_images(tmp_path, task):
    root = write_inbreast(tmp_path, 4)
    whole = InbreastSource(path=root).load("A", 0, None, task)
    shutil.rmtree(root / "AllXML")
    found = InbreastSource(path=root).load("A", 0, None, task)
    assert [(e.name, e.malignant, e.usable_as_healthy) for e in found.exams] == [
        (e.name, e.malignant, e.usable_as_healthy) for e in whole.exams
    ]
    assert found.report["without_outlines"] == 4 and "without_outlines" not in whole.report


def test_a_malignant_image_without_a_file_of_outlines_is_told(tmp_path):
    root = write_inbreast(tmp_path, 4)
    for name in (FIRST_SICK, "20586930"):  # BI-RADS 5 and 2
        (root / "AllXML" / f"{name}.xml").unlink()
    assert InbreastSource(path=root).load("A", 0).report["without_outlines"] == 2
    error = refused(root, PatchTask())
    assert len(error.problems) == 1 and f"BI-RADS 5, and no file AllXML/{FIRST_SICK}.xml" in str(error)


def test_a_second_folder_of_images_is_refused(tmp_path):
    root = write_inbreast(tmp_path, 2)
    shutil.copytree(root, tmp_path / "AA resized")
    error = refused(tmp_path, max_bad_fraction=1.0)
    assert error.code == "duplicate_file" and "AA resized/AllDICOMs and INbreast Release 1.0/AllDICOMs" in str(error)
    assert len(exams_of(root)) == 8
