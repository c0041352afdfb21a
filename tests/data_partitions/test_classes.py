"""Classes of a task: which word decides, what is refused, and what becomes of images of none of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from data_partitions import DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.folder import FolderSource
from data_partitions.archives.isic import IsicSource
from data_partitions.archives.medmnist import MedmnistSource
from data_partitions.dealing.partition import PartitionRule, partition
from data_partitions.exams import Box, Cohort, Exam, Lesion
from data_partitions.frames import Frame
from data_partitions.phantom.phantom import PhantomSource
from data_partitions.shown_classes import of_task

MASS = Lesion(Box(0, 0, 4, 4), "mass", True, diagnosis="IDC")


def image(**known):
    return Exam("p", "p", (8, 8), lambda: None, **known)


@pytest.mark.parametrize(
    ("classes", "label"),
    [
        (["healthy", "lesion"], 1),
        (["benign", "malignant"], 1),
        (["healthy", "mass", "calcification"], 1),
        (["healthy", "DCIS", "IDC"], 2),  # the source's own word comes first
        (["healthy", "malignant", "IDC"], 2),
        (["healthy", "mass", "malignant"], 2),  # malignancy before kind
        (["healthy", "calcification"], None),
        (["idc", "other thing"], 0),  # capitals make no difference
    ],
)
def test_the_most_special_word_decides(classes, label):
    task = PatchTask(label="diagnosis", classes=classes)
    assert task.label_of_lesion(MASS) == label
    assert task.wants(MASS) == (label is not None)


def test_words_of_whole_images():
    task = PatchTask(label="diagnosis", classes=["nv", "mel"], whole_image=True)
    assert [task.label_of_image(image(diagnosis=word)) for word in ("nv", "mel", "bcc", "")] == [0, 1, None, None]
    malignancy = PatchTask(label="malignancy", whole_image=True)
    assert [malignancy.label_of_image(image(malignant=m, diagnosis="nv")) for m in (False, True, None)] == [0, 1, None]
    lesion = PatchTask(whole_image=True)
    assert [lesion.label_of_image(image(lesions=lesions)) for lesions in ((), (MASS,))] == [0, 1]


@given(st.booleans() | st.none(), st.sampled_from(["mass", "calcification", "other"]), st.sampled_from(["", "nv"]))
def test_two_classes_by_name_are_the_two_of_the_short_forms(malignant, kind, diagnosis):
    lesion = replace(MASS, malignant=malignant, kind=kind, diagnosis=diagnosis)
    whole = image(malignant=malignant, diagnosis=diagnosis, lesions=(lesion,))
    for short, classes in (("lesion", ["healthy", "lesion"]), ("malignancy", ["benign", "malignant"])):
        one, other = PatchTask(label=short), PatchTask(label="diagnosis", classes=classes)
        assert one.label_of_lesion(lesion) == other.label_of_lesion(lesion)
        assert one.label_of_image(whole) == other.label_of_image(whole)
        assert one.healthy == other.healthy


def test_label_and_classes_follow_from_each_other():
    assert PatchTask().classes == ("healthy", "lesion") and PatchTask(label="malignancy").classes == (
        "benign",
        "malignant",
    )
    assert PatchTask(classes=["benign", "malignant"]).label == "malignancy"
    assert PatchTask(classes=["healthy", "lesion"]).label == "lesion"
    seven = PatchTask(classes=["nv", "mel", "bkl", "bcc", "akiec", "vasc", "df"])
    assert seven.label == "diagnosis" and PatchTask.model_validate(seven.model_dump(mode="json")) == seven


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"label": "diagnosis"}, r"label diagnosis needs classes, such as classes: \[mel, nv, bcc\]"),
        (
            {"label": "malignancy", "classes": ["malignant", "benign"]},
            "classes of label malignancy are benign, malignant in this order",
        ),
        ({"classes": ["mel"]}, "classes are 1; name 2 to 100"),
        ({"classes": ["mel", "Mel"]}, "twice"),
        ({"classes": ["mel", "n/v"]}, "class 'n/v' cannot be a name"),
        ({"classes": ["mel", " nv"]}, "class ' nv' cannot be a name"),
        ({"classes": [["mel", "nv"], "bcc"]}, "an image shows one class .no multi-label"),
        ({"classes": "mel"}, "give a list of names"),
        (
            {"labels": ["a", "b"]},
            "labels is not a key of a task: an image shows one class .no multi-label, no tabular data",
        ),
        ({"features": ["age"]}, "no tabular data"),
        ({"storage": "uint16", "preprocess": ["clahe"]}, "clahe works on 256 levels"),
        ({"image_size": 8}, "height 8"),
    ],
)
def test_what_is_no_task(keys, words):
    with pytest.raises(ValueError, match=words):
        PatchTask(**keys)


# -- sources -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    rows = ["image,patient_id,label"]
    for number, word in enumerate(["nv"] * 12 + ["mel"] * 9 + ["bcc"] * 6):
        name = f"images/{number}.png"
        PillowImage.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(tmp_path / name)
        rows.append(f"{name},p{number},{word}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def source(folder):
    return FolderSource(path=folder, columns={"diagnosis": "label"}, background="none")


def built(source, task, tmp_path):
    return build_patches(source, task, SplitRule(), centre="A", seed=1, cache=tmp_path / "cache")


def test_a_folder_of_three_diagnoses(folder, tmp_path):
    task = PatchTask(classes=["bcc", "mel", "nv"], whole_image=True, image_size=16, channels=3)
    patches = built(source(folder), task, tmp_path)
    assert patches.classes == ("bcc", "mel", "nv")
    assert np.bincount(patches.labels).tolist() == [6, 9, 12]
    totals = {label: sum(own[label] for own in patches.counts().values()) for label in (0, 1, 2)}
    assert totals == {0: 6, 1: 9, 2: 12}
    # Every split has its share of every class.
    assert all(abs(patches.counts()["train"][label] - 0.7 * totals[label]) <= 1 for label in totals)
    card = patches.data_card()
    assert card["classes"] == ["bcc", "mel", "nv"] and set(card["boxes"]["train"]) == {"bcc", "mel", "nv"}
    assert {row["class"] for row in patches.partition_rows(b"k")} == {"bcc", "mel", "nv"}
    few = patches.draw_fraction(boxes=9, seed=3)
    assert np.bincount(few.labels).tolist() == [2, 3, 4]


def test_images_of_no_class_are_refused_by_name_or_left_out_and_counted(folder, tmp_path):
    task = PatchTask(classes=["mel", "nv"], whole_image=True, image_size=16, channels=3)
    with pytest.raises(DataError) as refused:
        built(source(folder), task, tmp_path)
    assert refused.value.code == "outside_classes"
    assert (
        "images/21.png is 'bcc', which is none of the task's classes mel, nv; add it to task.classes, or set task.others: leave_out"
        in str(refused.value)
    )
    patches = built(source(folder), task.model_copy(update={"others": "leave_out"}), tmp_path)
    assert len(patches) == 21 and patches.report["other_images"] == 6
    assert "5 images of none of the task's classes, left out" in patches.report["notes"]


def test_an_image_without_any_word_has_no_label(folder, tmp_path):
    table = folder / "metadata.csv"
    table.write_text(table.read_text().replace("images/3.png,p3,nv", "images/3.png,p3,"))
    task = PatchTask(classes=["bcc", "mel", "nv"], whole_image=True, image_size=16, channels=3)
    with pytest.raises(DataError, match="images/3.png has no label; whether it is bcc or mel or nv is not known"):
        built(source(folder), task, tmp_path)


def test_lesions_of_no_class_are_refused_or_left_out_and_counted(tmp_path):
    phantom = PhantomSource(patients=40)
    kinds = {lesion.kind for exam in phantom.load("A", 1).exams for lesion in exam.lesions}
    assert {"mass", "calcification", "distortion"} <= kinds
    task = PatchTask(classes=["healthy", "mass", "calcification"], image_size=16, margin_mm=6)
    with pytest.raises(
        DataError, match="is 'distortion', which is none of the task's classes healthy, mass, calcification; add it"
    ):
        built(phantom, task, tmp_path)
    patches = built(phantom, task.model_copy(update={"others": "leave_out"}), tmp_path)
    others = sum(lesion.kind == "distortion" for exam in phantom.load("A", 1).exams for lesion in exam.lesions)
    assert patches.report["other_lesions"] == others
    assert set(patches.table["lesion_type"]) == {"", "mass", "calcification"}
    assert (patches.table["lesion_type"][patches.labels == 0] == "").all()


def test_words_of_archives(tmp_path):
    rng, arrays = np.random.default_rng(0), {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (14, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(14)[:, None] % 7
    np.savez(tmp_path / "dermamnist.npz", **arrays)
    derma = MedmnistSource(path=tmp_path / "dermamnist.npz")
    task = PatchTask(
        classes=["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"], whole_image=True, image_size=28, channels=3
    )
    patches = built(derma, task, tmp_path)
    assert np.bincount(patches.labels).tolist() == [6] * 7
    (tmp_path / "dermamnist.npz").rename(tmp_path / "bloodmnist.npz")
    unnamed = MedmnistSource(path=tmp_path / "bloodmnist.npz")
    assert {exam.diagnosis for exam in unnamed.load("A", 0).exams} == set("0123456")
    with pytest.raises(DataError, match="train_00002: label 2 has no name; `names` has 2: a, b"):
        MedmnistSource(path=tmp_path / "bloodmnist.npz", names=("a", "b")).load("A", 0)
    assert IsicSource.model_fields["release"] is not None


def test_patients_are_dealt_out_by_diagnosis_where_asked(folder):
    cohort = source(folder).load("A", 0)
    rule = PartitionRule(centres={"a": 9, "b": 18}, classes="diagnosis")
    home = partition(cohort, rule, 3, {}).home
    words = {exam.patient: exam.diagnosis for exam in cohort.exams}
    counts = {
        centre: [sum(words[p] == w for p, c in home.items() if c == centre) for w in ("nv", "mel", "bcc")]
        for centre in "ab"
    }
    assert counts == {"a": [4, 3, 2], "b": [8, 6, 4]}


def test_a_short_form_asks_for_its_own_word_only():
    """`breastmnist` calls label 0 malignant; a scenario that says otherwise is believed."""
    contrary = image(malignant=False, diagnosis="malignant")
    assert PatchTask(label="malignancy", whole_image=True).label_of_image(contrary) == 0
    assert PatchTask(whole_image=True).label_of_image(image(diagnosis="lesion")) == 0
    assert PatchTask(label="malignancy").label_of_lesion(replace(MASS, malignant=False, diagnosis="malignant")) == 0


def test_what_is_malignant_is_never_healthy():
    task = PatchTask(classes=["healthy", "malignant"], label="diagnosis", whole_image=True)
    assert [task.label_of_image(image(malignant=m)) for m in (True, False, None)] == [1, 0, 0]
    three = PatchTask(classes=["healthy", "benign", "malignant"], whole_image=True)
    assert [
        three.label_of_image(image(malignant=m, lesions=ls)) for m, ls in ((True, ()), (False, (MASS,)), (False, ()))
    ] == [2, 1, 0]


def test_where_no_lesion_is_located_nobody_knows_who_is_healthy(folder, tmp_path):
    table = folder / "metadata.csv"
    table.write_text(
        table.read_text()
        .replace("label\n", "malignant\n")
        .replace(",nv\n", ",0\n")
        .replace(",mel\n", ",1\n")
        .replace(",bcc\n", ",1\n")
    )
    task = PatchTask(classes=["healthy", "benign", "malignant"], whole_image=True, image_size=16, channels=3)
    with pytest.raises(
        DataError,
        match="malignant images and no located lesion, so nothing says which images are healthy; name the table",
    ):
        built(FolderSource(path=folder, background="none"), task, tmp_path)


def test_a_lesion_of_unknown_malignancy_has_no_label_where_classes_are_of_malignancy(tmp_path):
    unknown = Exam("p", "e", (80, 80), lambda: None, lesions=(Lesion(Box(30, 30, 40, 40), "mass"),))
    by_malignancy = PatchTask(classes=["healthy", "benign", "malignant"], others="leave_out")
    with pytest.raises(DataError) as refused:
        of_task(Cohort([unknown]), by_malignancy, "A")
    assert refused.value.code == "no_label"
    by_kind = PatchTask(classes=["healthy", "calcification"], others="leave_out", label="diagnosis")
    assert of_task(Cohort([unknown]), by_kind, "A").report == {
        "other_lesions": 1, "notes": ["<5 lesions of none of the task's classes, left out"],
    }  # fmt: skip


@pytest.mark.parametrize("classes", [5, {"a": 1}, [None, "a"], [True, False], [0.5, 1.5]])
def test_classes_that_are_no_names(classes):
    with pytest.raises(ValueError, match="give a list of names"):
        PatchTask(classes=classes)


def test_an_image_too_narrow_for_the_tasks_shape():
    with pytest.raises(
        DataError, match="an image of 10x10 px holds no box of the shape 16x1280; change task.image_size"
    ):
        Frame(16, 1280).largest((10, 10))
