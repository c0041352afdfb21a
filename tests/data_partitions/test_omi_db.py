"""OMI-DB in its own layout: marks, opinions, which images are taken, and every fault at once."""

import json
import shutil
from collections import Counter

import pydicom
import pytest
from archives import OMI_ROOT, omi_mark, write_omi_db

from data_partitions import Box, DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.account import Account
from data_partitions.archives.omi_db import OmiDbSource, _opinion

SICK = f"optm2/{OMI_ROOT}1001.1/{OMI_ROOT}1001.12"  # the right CC of the second client


def load(path, **arguments):
    return OmiDbSource(path=path, **arguments).load("A", 0)


def refused(path, **arguments) -> DataError:
    with pytest.raises(DataError) as error:
        load(path, **arguments)
    return error.value


def change(root, name, edit):
    """Edit one JSON file of a client."""
    file = root / "data" / name.split("_")[1] / f"{name}.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_what_a_reader_sees_is_taken_in_two_views(tmp_path):
    cohort = load(write_omi_db(tmp_path))
    exams = {exam.name: exam for exam in cohort.exams}
    assert len(exams) == 6 * 4 and cohort.report["raw_images"] == 6 and cohort.report["other_views"] == 3
    sick = exams[SICK]
    assert (sick.patient, sick.laterality, sick.view, sick.age) == ("optm2", "R", "CC", 59)
    assert (sick.spacing_mm, sick.scanner) == (0.07, "HOLOGIC, Inc. Lorad Selenia")
    (lesion,) = sick.lesions
    assert (lesion.box, lesion.kind, lesion.malignant, sick.malignant) == (Box(90, 120, 130, 150), "mass", True, True)
    assert Counter(exam.malignant for exam in exams.values()) == {True: 4, False: 2 + 12, None: 6}
    assert {exam.patient for exam in exams.values() if exam.usable_as_healthy} == {"optm1", "optm3", "optm5"}


def test_clients_of_a_site_are_a_centre(tmp_path):
    root = write_omi_db(tmp_path)
    patients = [{exam.patient for exam in load(root, sites=[site]).exams} for site in ("jarv", "stge")]
    assert patients == [{"optm1", "optm2", "optm5", "optm6"}, {"optm3", "optm4"}]
    assert "no client of site nowhere; it has jarv, stge" in str(refused(root, sites=["jarv", "nowhere"]))


@pytest.mark.parametrize(
    ("linked", "events", "label"),
    [
        ("1", {"BIOPSYWIDE": "B5"}, True), ("1", {"BIOPSYFINE": "C2"}, False), ("1", {"BIOPSYWIDE": "B3"}, None),
        ("1", {"BIOPSYWIDE": "B3", "SURGERY": "H2"}, None), ("1", {"BIOPSYWIDE": "B2", "SURGERY": "H5"}, True),
        ("1", {"BIOPSYWIDE": "Malignant"}, True), ("2", {"BIOPSYWIDE": "B5"}, None), ("2, 1", {"BIOPSYWIDE": "B5"}, True),
        (None, {"BIOPSYWIDE": "B5"}, None), ("1", {}, None), ("1", {"BIOPSYWIDE": None}, None),
    ],
)  # fmt: skip
def test_a_mark_has_the_opinion_on_its_lesion(tmp_path, linked, events, label):
    episode = {event: {"R": {"1": {"Opinion": opinion}}} for event, opinion in events.items()}
    mark = omi_mark(1, (0, 0, 9, 9), linked)
    assert _opinion(Account(tmp_path), "", mark, episode, "R") is label
    assert _opinion(Account(tmp_path), "", mark, episode, "L") is None


@pytest.mark.parametrize(
    "edit",
    [
        lambda nbss: nbss["3"].update(SURGERY={"L": {"1": {"Opinion": "H2"}}}),
        lambda nbss: nbss.update({"4": {"EpisodeType": "CI"}}), lambda nbss: nbss.pop("3"),
    ],
)  # fmt: skip
def test_a_client_with_a_procedure_or_interval_cancer_or_no_episode_is_not_healthy(tmp_path, edit):
    root = write_omi_db(tmp_path, 2)
    change(root, "nbss_optm1", edit)
    assert not any(exam.usable_as_healthy or exam.malignant is False for exam in load(root).exams)


def test_a_client_with_a_mark_is_not_healthy_even_without_a_biopsy(tmp_path):
    root = write_omi_db(tmp_path, 1)

    def edit(imagedb):
        imagedb["STUDIES"][f"{OMI_ROOT}1000.1"][f"{OMI_ROOT}1000.5"][f"{OMI_ROOT}1000.10"] = {
            "1": omi_mark(1, (9, 9, 20, 20))
        }

    assert all(exam.usable_as_healthy for exam in load(root).exams)
    change(root, "imagedb_optm1", edit)
    assert not any(exam.usable_as_healthy for exam in load(root).exams)


def test_kinds(tmp_path):
    root = write_omi_db(tmp_path, 2)
    marks = {
        "1": omi_mark(1, (10, 10, 30, 30)), "2": omi_mark(2, (10, 40, 30, 60), Mass=None, SuspiciousCalcifications="x"),
        "3": omi_mark(3, (30, 90, 10, 70), Mass=None, ArchitecturalDistortion="ArchitecturalDistortion"),
        "4": omi_mark(4, (190, 100, 300, 120), Mass="", FocalAsymmetry="FocalAsymmetry"),
    }  # fmt: skip

    def edit(imagedb):
        study = imagedb["STUDIES"][f"{OMI_ROOT}1001.1"]
        study[f"{OMI_ROOT}1001.7"][f"{OMI_ROOT}1001.12"] = marks

    change(root, "imagedb_optm2", edit)
    (exam,) = [exam for exam in load(root).exams if exam.name == SICK]
    assert [(x.kind, x.box) for x in exam.lesions] == [
        ("mass", Box(10, 10, 30, 30)), ("calcification", Box(40, 10, 60, 30)), ("distortion", Box(70, 10, 90, 30)),
        ("other", Box(100, 190, 120, 200)),
    ]  # fmt: skip


def test_patches_of_lesions_and_healthy_tissue(tmp_path):
    root = write_omi_db(tmp_path / "archive")
    task = PatchTask(image_size=16, margin_px=4, crops=1)
    data = build_patches(
        OmiDbSource(path=root), task, SplitRule(test_only=True), centre="B", seed=0, cache=tmp_path / "c"
    )
    assert data.counts()["test"] == {0: 6, 1: 6}


def broken(folder):
    root = write_omi_db(folder, 10)
    shutil.rmtree(root / "images/optm1")
    (root / "data/optm3/nbss_optm3.json").unlink()
    (root / "data/optm5/nbss_optm5.json").write_text('{"3": ')
    (root / "data/optm7/imagedb_optm7.json").write_text("[]")
    change(root, "imagedb_optm9", lambda imagedb: imagedb.pop("STUDIES"))
    change(root, "nbss_optm2", lambda nbss: nbss["3"]["BIOPSYWIDE"]["R"]["1"].update(Opinion="B9"))

    def edit(imagedb):
        for place, box in ((7, (500, 500, 510, 510)), (8, (10, 10, 10, 30))):
            imagedb["STUDIES"][f"{OMI_ROOT}1003.1"][f"{OMI_ROOT}1003.{place}"][f"{OMI_ROOT}1003.{place + 5}"] = {
                "1": omi_mark(1, box)
            }

    change(root, "imagedb_optm4", edit)
    first, second = sorted((root / "images/optm6").rglob("*.dcm"))[:2]
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:9000])
    return root


def test_all_problems_are_collected_in_one_error(tmp_path):
    error = refused(broken(tmp_path))
    texts = " ".join(problem.text for problem in error.problems)
    assert Counter(problem.code for problem in error.problems) == {
        "row_without_file": 5 + 1, "bad_annotation": 3 + 1, "unknown_label": 2, "contour_outside": 1, "bad_image": 2,
    }, texts  # fmt: skip
    for told in ("no file nbss_optm3.json", "nbss_optm5.json is not JSON", "imagedb_optm7.json holds no object",
                 "imagedb_optm9.json: has no STUDIES", "opinion 'B9'", "(500, 500, 510, 510)", "are not a box"):  # fmt: skip
        assert told in texts, told


def test_what_may_be_skipped_is_counted(tmp_path):
    root = broken(tmp_path)
    cohort = load(root, max_bad_fraction=0.5, missing_images="skip")
    assert cohort.report["missing_images"] == 5 and sum(cohort.report["skipped"].values()) == 10
    assert not any(exam.usable_as_healthy for exam in cohort.exams)  # each healthy client has lost a file
    assert {exam.patient for exam in cohort.exams} == {"optm2", "optm3", "optm4", "optm5", "optm6", "optm8", "optm10"}
    assert "has no folder data" in str(refused(root / "data/optm1"))


def test_raw_images_without_any_for_presentation_are_used_and_doubted(tmp_path):
    root = write_omi_db(tmp_path, 2)
    whole = load(root)
    assert whole.report["raw_images"] == 2 and "raw_alone" not in whole.report
    for file in root.rglob("*.dcm"):
        dataset = pydicom.dcmread(file)
        if dataset.PresentationIntentType == "FOR PROCESSING":
            file.unlink()  # beside the image for presentation
            continue
        dataset.PresentationIntentType = "FOR PROCESSING"
        dataset.save_as(file)
    cohort = load(root, missing_images="skip")
    assert [exam.name for exam in cohort.exams] == [exam.name for exam in whole.exams]
    assert cohort.report["raw_alone"] == len(whole.exams) and "raw_images" not in cohort.report


@pytest.mark.parametrize("spelt", [{"x1": "10", "y1": "10", "x2": "50", "y2": "60"}, {"MarkID": 9}, {}])
def test_a_mark_without_its_coordinates_is_a_fault_and_its_client_not_healthy(tmp_path, spelt):
    root = write_omi_db(tmp_path, 1)

    def edit(imagedb):
        imagedb["STUDIES"][f"{OMI_ROOT}1000.1"][f"{OMI_ROOT}1000.5"][f"{OMI_ROOT}1000.10"] = {
            "9": spelt,
            "Note": {"text": "x"},
        }

    change(root, "imagedb_optm1", edit)
    error = refused(root)
    assert len(error.problems) == 1 and "mark 9: X1, Y1, X2, Y2 are not a box" in str(error)
    assert not any(exam.usable_as_healthy or exam.malignant is False for exam in load(root, max_bad_fraction=0.5).exams)


@pytest.mark.parametrize("no", ["0", 0, "0.0", 0.0, False, "false", "No", "", None, "NA"])
def test_a_sign_that_says_no_is_no_sign(tmp_path, no):
    root = write_omi_db(tmp_path, 2)

    def edit(imagedb):
        study = imagedb["STUDIES"][f"{OMI_ROOT}1001.1"]
        study[f"{OMI_ROOT}1001.7"][f"{OMI_ROOT}1001.12"]["77"] |= {"Mass": no, "ArchitecturalDistortion": "1.0"}

    change(root, "imagedb_optm2", edit)
    (exam,) = [exam for exam in load(root).exams if exam.name == SICK]
    assert [lesion.kind for lesion in exam.lesions] == ["distortion"]


def test_with_sites_strangers_among_their_clients_are_counted(tmp_path):
    root = write_omi_db(tmp_path, 4)
    for client in ("optm1", "optm3"):  # of jarv and of stge
        file = next((root / "images" / client).rglob("*.dcm"))
        shutil.copy(file, file.with_name("stray.dcm"))
    assert load(root, sites=["jarv"]).report["files_without_row"] == 1
    assert load(root).report["files_without_row"] == 2
