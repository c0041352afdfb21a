"""What a table says about malignancy, and what it does not say: unknown is never benign."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from data_partitions import DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.folder import FolderSource
from data_partitions.reading.label_words import LabelWords, UnknownWord

WHOLE = PatchTask(label="malignancy", whole_image=True, image_size=16)
LESIONS = PatchTask(label="malignancy", image_size=16, margin_px=2, crops=1)
TWELVE = ["malignant", "benign"] * 6


def archive(folder: Path, labels: list[str] | None, lesions: str | None = None) -> Path:
    """One image a patient; without `labels` the metadata have no column for them."""
    (folder / "images").mkdir()
    count = len(labels or TWELVE)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 60), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{i:02d}.png")
    table = pd.DataFrame({"image": [f"images/{i:02d}.png" for i in range(count)], "patient_id": range(count)})
    if labels is not None:
        table["malignant"] = labels
    table.to_csv(folder / "metadata.csv", index=False)
    if lesions is not None:
        (folder / "lesions.csv").write_text("image,kind,x,y,radius,severity\n" + lesions)
    return folder


def load(path, task=None, **arguments):
    return FolderSource(path=path, **arguments).load("A", 0, None, task)


def refused(path, task=None, **arguments) -> DataError:
    with pytest.raises(DataError) as error:
        load(path, task, **arguments)
    return error.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [(t, True) for t in ("malignant", " Malignant ", "M", "1", "1.0", "1.00", "TRUE")]
    + [(t, False) for t in ("benign", "BENIGN", "B", "0", "0.0", "False", "normal", "N", " none")]
    + [(t, None) for t in ("", "  ", "NA", "N/A", "NaN", "Unknown", "null", "?")],
)
def test_words(text, expected):
    assert LabelWords().read(text) is expected


@pytest.mark.parametrize("text", ["malignat", "2", "0.5", "yes", "inf"])
def test_any_other_word_is_a_mistake(text):
    with pytest.raises(UnknownWord):
        LabelWords().read(text)


def test_a_misspelt_label_is_named_with_row_and_remedy(tmp_path):
    archive(tmp_path, ["malignat", *TWELVE[1:]])
    error = refused(tmp_path)
    assert error.code == "bad_value" and error.numbers == {"bad_value": 1}
    for told in ("metadata.csv row 2", "'malignat'", "list it in `positive` or `negative`"):
        assert told in str(error)


def test_positive_alone_makes_every_other_known_word_negative(tmp_path):
    archive(tmp_path, ["mel", "nv", "BCC ", "Mel", "unknown", "df"])
    exams = load(tmp_path, positive=("MEL", "bcc")).exams
    assert [e.malignant for e in exams] == [True, False, True, True, None, False]
    assert "'df'" in str(refused(tmp_path, positive=("mel", "bcc"), negative="nv"))


@pytest.mark.parametrize(
    "given", [{}, {"positive": 1}, {"positive": [1.0, True]}, {"positive": "mel", "negative": [0]}]
)
def test_words_say_the_same_after_writing_and_reading(tmp_path, given):
    source = FolderSource(path=tmp_path, **given)
    assert FolderSource.model_validate(json.loads(json.dumps(source.model_dump(mode="json")))) == source


def test_no_word_is_positive_and_negative(tmp_path):
    with pytest.raises(ValidationError, match="1 is in `positive` and in `negative`"):
        FolderSource(path=tmp_path, positive=("1.0",), negative=("1", "0"))


# --- what has no label is not used


def test_images_without_a_label_are_problems_of_malignancy_and_never_benign(tmp_path):
    archive(tmp_path, [*TWELVE, "NA", "", "unknown"])
    error = refused(tmp_path, WHOLE)
    assert error.code == "no_label" and error.numbers == {"no_label": 3}
    assert "metadata.csv row 14" in str(error) and "name the column" in str(error)
    assert refused(tmp_path, WHOLE, max_bad_fraction=0.19).code == "no_label"
    source = FolderSource(path=tmp_path, max_bad_fraction=0.2)
    data = build_patches(source, WHOLE, SplitRule(), centre="A", seed=0, cache=tmp_path.parent / "cache")
    assert len(data) == 12 and data.labels.sum() == 6
    assert data.report["skipped"] == {"no_label": 3} and "<5 left out: no_label" in data.report["notes"]
    assert len(load(tmp_path, PatchTask()).exams) == 15  # not a matter of `label: lesion`


def test_lesions_without_a_label_are_problems_of_malignancy(tmp_path):
    rows = "images/00.png,mass,20,20,5,M\nimages/01.png,mass,20,20,5,NA\nimages/02.png,CALC,20,20,5,\n"
    archive(tmp_path, TWELVE, rows)
    error = refused(tmp_path, LESIONS, lesions="lesions.csv")
    assert error.numbers == {"no_label": 2} and "lesions.csv row 3: the mass has no label" in str(error)
    masses = LESIONS.model_copy(update={"lesions": "mass"})
    assert refused(tmp_path, masses, lesions="lesions.csv").numbers == {"no_label": 1}
    source = FolderSource(path=tmp_path, lesions="lesions.csv", max_bad_fraction=0.5)
    data = build_patches(source, LESIONS, SplitRule(), centre="A", seed=0, cache=tmp_path.parent / "cache")
    assert data.labels.tolist() == [1] and data.report["skipped"] == {"no_label": 2}
    assert not load(tmp_path, PatchTask(), lesions="lesions.csv").report.get("skipped")


def test_an_image_takes_the_label_of_its_lesions_where_all_are_known(tmp_path):
    rows = (
        "images/00.png,mass,20,20,5,B\nimages/01.png,mass,20,20,5,NA\nimages/02.png,mass,,,,M\n"
        "images/03.png,mass,20,20,5,NA\nimages/03.png,mass,30,20,5,M\n"
    )
    archive(tmp_path, None, rows)
    exams = sorted(load(tmp_path, lesions="lesions.csv").exams, key=lambda exam: exam.name)
    assert [e.malignant for e in exams[:5]] == [False, None, True, True, False]


def test_an_empty_label_is_not_filled_in_with_benign_because_no_lesion_is_listed(tmp_path):
    archive(tmp_path, ["", "NA", "benign"], "images/00.png,mass,20,20,5,M\n")
    assert [e.malignant for e in load(tmp_path, lesions="lesions.csv").exams] == [True, None, False]


@pytest.mark.parametrize("label", ["0.7", "0.5", "-0.1", "inf"])
def test_a_fraction_is_no_class_where_every_other_word_is_benign(tmp_path, label):
    archive(tmp_path, [label, "1", "2", "0.0"])
    error = refused(tmp_path, positive=[1])
    assert len(error.problems) == 1 and f"row 2: malignant {label!r}" in str(error)
    assert [e.malignant for e in load(tmp_path, positive=[1], max_bad_fraction=0.5).exams] == [True, False, False]


def test_two_rows_of_an_image_that_disagree_leave_it_without_a_label(tmp_path):
    archive(tmp_path, TWELVE)
    table = tmp_path / "metadata.csv"
    table.write_text(table.read_text() + "images/01.png,1,malignant\nimages/02.png,2,malignant\n")
    assert [problem.code for problem in refused(tmp_path).problems] == ["duplicate_image"] * 2
    exams = load(tmp_path, max_bad_fraction=0.5).exams
    assert [e.malignant for e in exams[:3]] == [True, None, True] and not exams[1].usable_as_healthy
