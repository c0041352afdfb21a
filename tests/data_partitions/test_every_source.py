"""What has to hold in every source that reads files, whatever its layout."""

import csv
import os
import shutil

import numpy as np
import pytest
from archives import ddsm_abnormality, ddsm_overlay, ddsm_square, write_bcdr_table
from every_source import ARCHIVES, CSV, described, image_files, noise, written
from PIL import Image

from data_partitions import Box, DataError
from data_partitions.archives.exclusions import names_of
from data_partitions.reading.folders import files_below
from data_partitions.reading.image_files import ORIENTATION, TURNS
from data_partitions.reading.tables import read_records
from data_partitions.sources import WHOLE_SOURCES

ALL = list(ARCHIVES)
PICTURES = ["folder", "bcdr", "cdd_cesm", "isic", "mini_mias", "ddsm"]


def spoil(file, how):
    """The file, damaged."""
    data = file.read_bytes()
    if how == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "a page":
        file.write_bytes(b"<html><body>404</body></html>")
    elif how == "zeros":
        file.write_bytes(bytes(len(data)))


# --- A: one place opens files


@pytest.mark.parametrize("how", ["cut", "empty", "a page", "zeros"])
@pytest.mark.parametrize("name", ALL)
def test_a_damaged_image_is_a_fault_with_its_name_and_may_be_left_out(tmp_path, name, how):
    archive = written(name, tmp_path)
    whole, victim = archive.load(tmp_path), archive.images(tmp_path)[0]
    spoil(victim, how)
    with pytest.raises(DataError) as refused:
        archive.load(tmp_path)
    assert victim.stem in " ".join(problem.text for problem in refused.value.problems)
    left = archive.load(tmp_path, max_bad_fraction=0.9)
    assert len(left.exams) == len(whole.exams) - 1 and sum(left.report["skipped"].values()) >= 1


@pytest.mark.parametrize("name", ALL)
def test_images_beyond_a_bound_are_faults(tmp_path, name):
    archive = written(name, tmp_path)
    for limits, code in (({"megapixels": 1e-3}, "image_too_large"), ({"megabytes": 1e-4}, "file_too_large")):
        with pytest.raises(DataError) as refused:
            archive.load(tmp_path, limits=limits, max_bad_fraction=0.1)
        assert code in {problem.code for problem in refused.value.problems}


# --- B: tables


def rewrite(folder, change):
    """Every table of the archive, changed line by line: change(line, number)."""
    for file in files_below(folder, "*.csv"):
        lines = file.read_text(encoding="utf-8").splitlines()
        file.write_text("\n".join(change(line, number) for number, line in enumerate(lines)) + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", CSV)
def test_separators_at_the_end_of_rows_change_nothing_and_are_counted(tmp_path, name):
    archive = written(name, tmp_path)
    if name == "cbis_ddsm":  # its rows end inside quotation marks
        pytest.skip("cells of this archive run over two lines")
    whole, mark = described(archive.load(tmp_path)), ";" if name == "inbreast" else ","
    rewrite(tmp_path, lambda line, number: line + mark if number else line)
    found = archive.load(tmp_path)
    assert described(found) == whole and found.report["trailing_separators"] > 1


@pytest.mark.parametrize("name", CSV)
def test_a_stray_quotation_mark_is_a_fault_of_its_line_and_swallows_none(tmp_path, name):
    archive = written(name, tmp_path)
    file = files_below(tmp_path, "*.csv")[0]
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    mark = ";" if name == "inbreast" else ","
    row = max(place for place, line in enumerate(lines) if mark in line)  # a last line may be the end of a cell
    first, rest = lines[row].split(mark, 1)
    lines[row] = f'"{first}{mark}{rest}'
    file.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        archive.load(tmp_path)
    assert any(
        "quotation mark" in problem.text and f"{file.name} row" in problem.text for problem in refused.value.problems
    )


@pytest.mark.parametrize("how", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252", "cr"])
@pytest.mark.parametrize("name", CSV)
def test_encodings_and_ends_of_lines_are_found_out(tmp_path, name, how):
    archive = written(name, tmp_path)
    whole = described(archive.load(tmp_path))
    for file in files_below(tmp_path, "*.csv"):
        text = file.read_bytes().decode()
        file.write_bytes(text.replace("\r\n", "\n").replace("\n", "\r").encode() if how == "cr" else text.encode(how))
    assert described(archive.load(tmp_path)) == whole


def told(archive, folder) -> bool:
    """Whether an image that no table names is counted or a fault."""
    try:
        return archive.load(folder).report.get("files_without_row") == 1
    except DataError as error:
        return bool({"file_without_row", "duplicate_image", "bad_value"} & {problem.code for problem in error.problems})


@pytest.mark.parametrize("name", ALL)
def test_an_image_that_no_table_names_is_told(tmp_path, name):
    """Under a name that its source looks for, and under others, wherever it lies."""
    archive = written(name, tmp_path)
    model = archive.images(tmp_path)[0]
    looked_for = {
        "inbreast": "99999999_abc_MG_R_CC_ANON.dcm", "cdd_cesm": "P99_L_DM_CC.jpg", "mini_mias": "mdb300.pgm",
        "isic": "ISIC_9999999.jpg",
    }.get(name, f"other{model.suffix}")  # fmt: skip
    (model.parent / "more").mkdir()
    places = [
        model.with_name(looked_for), model.with_name(f"stray{model.suffix}"), model.with_name("stray.png"),
        model.parent / "more" / f"stray{model.suffix}", tmp_path / "stray.png", tmp_path / f"stray{model.suffix}",
    ]  # fmt: skip
    for stranger in places:
        if stranger.suffix == model.suffix:
            shutil.copy(model, stranger)
        else:
            Image.fromarray(noise(99)).save(stranger)
        with stranger.open("ab") as file:  # no copy of the other
            file.write(b"\0\0")
        assert told(archive, tmp_path), stranger
        stranger.unlink()
    assert "files_without_row" not in archive.load(tmp_path).report


@pytest.mark.parametrize("name", ["bcdr", "cbis_ddsm", "omi_db", "cdd_cesm"])
def test_images_of_another_choice_are_no_strangers(tmp_path, name):
    archive = written(name, tmp_path)
    choice = {
        "bcdr": {"sets": ["d01"]}, "cbis_ddsm": {"abnormalities": "mass"}, "omi_db": {"sites": ["jarv"]},
        "cdd_cesm": {"images": "subtracted"},
    }[name]  # fmt: skip
    assert "files_without_row" not in archive.load(tmp_path, **choice).report
    Image.fromarray(noise(99)).save(tmp_path / "stray.png")
    assert archive.load(tmp_path, **choice).report["files_without_row"] == 1


DECIMALS = {
    "folder": (), "inbreast": ("File Name", "ACR", "Bi-Rads"),
    "cbis_ddsm": ("breast_density", "breast density", "assessment", "abnormality id"),
    "bcdr": ("patient_id", "segmentation_id", "image_view", "image_type_id", "age", "density", "mammography_nodule",
             "mammography_calcification"),
    "cdd_cesm": ("Patient_ID", "Age", "BIRADS"), "isic": ("age",),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CSV if DECIMALS[name]])
def test_whole_numbers_that_are_written_as_decimals_are_the_same(tmp_path, name):
    """As programs write a column of numbers of which some row has none."""
    archive = written(name, tmp_path)
    whole, changed = archive.load(tmp_path), 0
    for file in files_below(tmp_path, "*.csv"):
        with file.open(newline="", encoding="utf-8") as text:
            reader = csv.DictReader(text, delimiter=";" if name == "inbreast" else ",", skipinitialspace=True)
            rows = list(reader)
        for row in rows:
            for column in set(DECIMALS[name]) & set(row):
                if row[column].strip().isdigit():
                    row[column] += ".0"
                    changed += 1
        with file.open("w", newline="", encoding="utf-8") as text:
            writer = csv.DictWriter(text, list(rows[0]), delimiter=";" if name == "inbreast" else ",")
            writer.writeheader()
            writer.writerows(rows)
    found = archive.load(tmp_path)
    assert described(found) == described(whole) and (changed or name == "isic")
    assert [lesion.birads for exam in found.exams for lesion in exam.lesions] == [
        lesion.birads for exam in whole.exams for lesion in exam.lesions
    ]
    assert found.report == whole.report


AGES = {"bcdr": (", 62, 2,", ", sixty, 2,"), "cdd_cesm": (",50,B", ",sixty,B"), "isic": (",55.0,", ",sixty,"),
        "ddsm": ("PATIENT_AGE 50", "PATIENT_AGE sixty")}  # fmt: skip
DENSITIES = {"bcdr": (", 62, 2,", ", 62, dense,"), "cdd_cesm": (",50,B", ",50,dense"), "ddsm": ("DENSITY 1", "DENSITY dense"),
             "inbreast": (";1;1;", ";dense;1;"), "cbis_ddsm": ("P_00000,1,", "P_00000,dense,")}  # fmt: skip
VIEWS = {"bcdr": ("outlines.csv", ", 1, 2, patient", ", 1, LCC?, patient"), "cdd_cesm": ("annotations.csv", ",CC,", ",C C,"),
         "inbreast": (".csv", ";CC;", ";C C;"),
         "cbis_ddsm": ("set.csv", ",CC,", ",C C,"), "ddsm": (".ics", "RIGHT_CC", "RIGHT_C")}  # fmt: skip


def change_once(folder, ending, old, new):
    file = next(f for f in files_below(folder, f"*{ending}") if old in f.read_text(encoding="utf-8"))
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "old", "new", "value"),
    [(name, *texts, "'sixty'") for name, texts in AGES.items()] + [(name, *texts, "'dense'") for name, texts in DENSITIES.items()],
)  # fmt: skip
def test_an_age_or_density_that_cannot_be_read_is_a_fault_with_its_value(tmp_path, name, old, new, value):
    archive = written(name, tmp_path)
    change_once(tmp_path, ".ics" if name == "ddsm" else ".csv", old, new)
    with pytest.raises(DataError) as refused:
        archive.load(tmp_path)
    texts = [problem.text for problem in refused.value.problems]
    assert any(value in text.replace("DENSE", "dense") and "correct it, or leave it empty" in text for text in texts), (
        texts
    )


@pytest.mark.parametrize("word", ["", "NA", "nan", "unknown", "?", "none"])
@pytest.mark.parametrize("name", list(AGES))
def test_words_for_not_known_are_the_same_in_every_source(tmp_path, name, word):
    archive = written(name, tmp_path)
    old, new = AGES[name]
    change_once(tmp_path, ".ics" if name == "ddsm" else ".csv", old, new.replace("sixty", word))
    assert (
        None in {exam.age for exam in archive.load(tmp_path).exams} or name == "bcdr"
    )  # where the outlines say it, too


@pytest.mark.parametrize("name", list(VIEWS))
def test_a_word_that_is_no_view_is_a_fault(tmp_path, name):
    archive, (ending, old, new) = written(name, tmp_path), VIEWS[name]
    change_once(tmp_path, ending, old, new)
    with pytest.raises(DataError) as refused:
        archive.load(tmp_path)
    assert {problem.code for problem in refused.value.problems} & {"unknown_label", "bad_value"}


# --- E: several files where one is meant


@pytest.mark.parametrize("name", ALL)
def test_files_of_operating_systems_are_passed_over_and_counted(tmp_path, name):
    archive = written(name, tmp_path)
    whole = described(archive.load(tmp_path))
    for file in files_below(tmp_path):
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7junk")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    (image_files(tmp_path)[0].parent / "Thumbs.db").write_bytes(b"\0")
    (tmp_path / "__MACOSX").mkdir()
    shutil.copy(image_files(tmp_path)[0], tmp_path / "__MACOSX")
    found = archive.load(tmp_path)
    assert described(found) == whole
    assert found.report["system_files"] >= len(files_below(tmp_path)) + 2


@pytest.mark.parametrize("name", ["isic", "mini_mias"])
def test_one_name_in_two_folders_is_read_once_if_it_is_the_same_and_a_fault_if_not(tmp_path, name):
    archive = written(name, tmp_path)
    whole, victim = described(archive.load(tmp_path)), archive.images(tmp_path)[0]
    (tmp_path / "zz_again").mkdir()
    shutil.copy(victim, tmp_path / "zz_again")
    found = archive.load(tmp_path)
    assert described(found) == whole and found.report["identical_files"] == 1
    with Image.open(victim) as picture:
        picture.resize((20, 16)).save(tmp_path / "zz_again" / victim.name)  # an original beside its smaller copy
    with pytest.raises(DataError, match="have one name and are not the same; keep one of them"):
        archive.load(tmp_path)


@pytest.mark.parametrize("name", ["folder", "isic"])
def test_further_pages_are_a_fault_or_counted(tmp_path, name):
    archive = written(name, tmp_path)
    victim = archive.images(tmp_path)[0]
    with Image.open(victim) as picture:
        first = picture.copy()
    colour = first.mode == "RGB"
    pages = [
        Image.fromarray(noise(page, (first.height, first.width, 3) if colour else (first.height, first.width)))
        for page in (1, 2)
    ]
    first.save(victim, format="TIFF", save_all=True, append_images=pages)
    with pytest.raises(DataError, match="has 3 frames or pages"):
        archive.load(tmp_path)
    found = archive.load(tmp_path, limits={"frames": 3})
    assert found.report["further_pages"] == 1 and victim.relative_to(tmp_path).as_posix() in {
        exam.file for exam in found.exams
    }


def test_a_name_that_is_no_text_can_be_shown(tmp_path):
    """Old archives hold names in the letters of another system."""
    written("folder", tmp_path)
    model = image_files(tmp_path)[0]
    stranger = os.path.join(os.fsencode(tmp_path), b"M\xfcller.png")
    with open(stranger, "wb") as file:
        file.write(model.read_bytes())
    found = ARCHIVES["folder"].load(tmp_path)
    assert found.report["files_without_row"] == 1
    (row,) = [row for row in found.private["account"] if "without a usable row" in row[1]]
    assert row[3] == "M?ller.png"
    assert WHOLE_SOURCES["folder"](path=tmp_path).files_digest()


# --- F: content


@pytest.mark.parametrize("name", PICTURES)
def test_images_of_one_grey_value_are_counted_and_left_out(tmp_path, name):
    archive = written(name, tmp_path)
    whole = archive.load(tmp_path)
    # Two of different patients: as copies of each other they would become one group.
    patients: dict[str, str] = {}
    for exam in whole.exams:
        patients.setdefault(exam.patient, exam.file)
    for file in list(patients.values())[:2]:
        with Image.open(tmp_path / file) as picture:
            blank = Image.fromarray(np.zeros_like(np.asarray(picture)))
            kind = picture.format
        blank.save(tmp_path / file, format=kind)
    found = archive.load(tmp_path)
    assert len(found.exams) == len(whole.exams) - 2 and found.report["blank_images"] == 2
    kept = archive.load(tmp_path, blank_images="keep")
    assert len(kept.exams) == len(whole.exams) and kept.groups == whole.groups


@pytest.mark.parametrize("name", PICTURES)
def test_a_turned_picture_is_the_same_exam_with_its_boxes(tmp_path, name):
    """Stored on its side or mirrored, with the orientation that undoes it."""
    archive = written(name, tmp_path)
    files = archive.images(tmp_path)
    pictures = []
    for file in files:
        with Image.open(file) as picture:
            pictures.append(picture.copy())
        pictures[-1].save(file, format="PNG")  # exactly what JPEG decoded to
    whole = archive.load(tmp_path)
    for place, (file, picture) in enumerate(zip(files, pictures, strict=True)):
        orientation = 2 + place % 7
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stored = picture.transpose(TURNS[{6: 8, 8: 6}.get(orientation, orientation)])  # the others undo themselves
        stored.save(file, format="PNG", exif=exif)
    found = archive.load(tmp_path)
    assert described(found) == described(whole) and found.report["turned"] == len(files)
    before = {exam.name: exam.open().window(Box(0, 0, *exam.shape)) for exam in whole.exams}
    assert "turned" not in whole.report
    for exam, picture in ((exam, pictures[files.index(tmp_path / exam.file)]) for exam in found.exams):
        seen = exam.open().window(Box(0, 0, *exam.shape))
        assert (seen == before[exam.name]).all() and seen.shape[:2] == (picture.height, picture.width)


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_transparent_is_black_and_counted(tmp_path, name):
    archive = written(name, tmp_path)
    files = archive.images(tmp_path)[:3]
    for place, file in enumerate(files):
        with Image.open(file) as picture:
            layers = picture.convert("RGBA" if picture.mode == "RGB" else "LA")
        alpha = np.full((layers.height, layers.width), 255, np.uint8)
        alpha[:5, :7] = 255 if place == 2 else 0  # the last one has no transparent pixel
        layers.putalpha(Image.fromarray(alpha))
        layers.save(file, format="PNG")
        with Image.open(file) as picture:
            colours = np.asarray(picture)[..., :-1]
        exam = next(exam for exam in archive.load(tmp_path).exams if tmp_path / exam.file == file)
        seen = exam.open().window(Box(0, 0, *exam.shape))
        assert (seen == colours * (alpha > 0)[..., None]).all()
    assert archive.load(tmp_path).report["transparent"] == 2


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0"]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_orientation_that_cannot_be_read_is_doubted(tmp_path, kind, exif):
    written("folder", tmp_path)
    victim = ARCHIVES["folder"].images(tmp_path)[0]
    Image.fromarray(noise(3)).save(victim, format=kind, exif=exif)
    found = ARCHIVES["folder"].load(tmp_path)
    assert found.report["orientation_unreadable"] == 1 and "turned" not in found.report


# --- G: names


@pytest.mark.parametrize("name", ALL)
def test_an_exclusion_list_goes_by_every_name_of_an_image(tmp_path, name):
    archive = written(name, tmp_path / "data")
    exams = archive.load(tmp_path / "data").exams
    chosen = {}
    for exam, place in zip(exams, (0, 1, -1), strict=False):
        chosen[names_of(exam)[place]] = exam.name
    # A name may be that of several images: DDSM's stems and CBIS-DDSM's files are.
    out = {exam.name for exam in exams if set(names_of(exam)) & set(chosen)}
    assert set(chosen.values()) <= out
    (tmp_path / "out.csv").write_text(
        "image,reason\n" + "".join(f"{name},clip\n" for name in chosen) + "nobody.png,clip\n"
    )
    found = archive.load(tmp_path / "data", exclude=tmp_path / "out.csv")
    assert {exam.name for exam in found.exams} == {exam.name for exam in exams} - out
    reason = "clip" if len(out) >= 5 else "reasons of fewer than 5 images each"
    assert found.report["excluded"] == {reason: len(out)} and found.report["excluded_unknown"] == 1


@pytest.mark.parametrize("name", ["inbreast", "folder"])
def test_dicom_is_known_by_its_content(tmp_path, name):
    archive = written(name, tmp_path)
    if name == "folder":
        from dicom_files import write_dicom

        write_dicom(tmp_path / "images" / "scan", noise(0).astype(np.uint16))
        table = (tmp_path / "metadata.csv").read_text()
        (tmp_path / "metadata.csv").write_text(table + "images/scan,someone,benign,x\n")
        exam = next(exam for exam in archive.load(tmp_path).exams if exam.name == "images/scan")
        assert exam.shape == (60, 50) and type(exam.open()).__name__ == "DicomImage"
        return
    whole = described(archive.load(tmp_path))
    for file in archive.images(tmp_path):
        file.rename(file.with_suffix(""))
    assert described(archive.load(tmp_path)) == whole


# --- H: checks come before conversions

LABELS = {
    "folder": ("*.csv", "benign", "0.7"), "bcdr": ("*outlines.csv", "Benign", "0.7"), "cbis_ddsm": ("*.csv", "BENIGN", "0.7"),
    "cdd_cesm": ("*.csv", "Benign", "0.7"), "isic": ("*.csv", ",mel,", ",0.7,"), "mini_mias": ("Info.txt", " B ", " 0.7 "),
    "omi_db": ("*.json", '"B2"', '"0.7"'), "inbreast": ("*.csv", ";4;", ";4.7;"), "ddsm": ("*.OVERLAY", "BENIGN", "0.7"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_a_fraction_is_no_class(tmp_path, name):
    archive, (pattern, word, fraction) = written(name, tmp_path), LABELS[name]
    file = next(file for file in files_below(tmp_path, pattern) if word in file.read_text(encoding="utf-8"))
    file.write_text(file.read_text(encoding="utf-8").replace(word, fraction, 1), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        archive.load(tmp_path)
    assert all(".7'" in problem.text or "0.7 " in problem.text for problem in refused.value.problems)


# --- the account


@pytest.mark.parametrize("name", ALL)
def test_the_account_adds_up(tmp_path, name):
    archive = written(name, tmp_path)
    whole, files = archive.load(tmp_path), archive.images(tmp_path)
    spoil(files[0], "cut")
    (tmp_path / "out.csv").write_text(f"image\n{files[-1].relative_to(tmp_path).as_posix()}\n")
    left = archive.load(tmp_path, max_bad_fraction=0.9, exclude=tmp_path / "out.csv")
    rows = left.private["account"]
    faults = sum(count for kind, what, count, _ in rows if kind == "left out" and what.startswith("fault"))
    excluded = sum(count for kind, what, count, _ in rows if what.startswith("excluded"))
    assert excluded == 1 and faults >= 1 and len(left.exams) == len(whole.exams) - 2
    assert all(example for *_, example in rows)
    assert {kind for kind, *_ in rows} <= {"left out", "changed", "doubted"}


# --- what could not be read is neither healthy nor benign


def _bcdr(root, **changes):
    file = root / "BCDR-D01_dataset/bcdr_d01_outlines.csv"
    rows = [dict(cells) for _, cells in read_records(file, [])[0]]
    number = next(place for place, row in enumerate(rows) if row["classification"] == "Benign")
    rows.append(rows[number] | {"segmentation_id": "99", "classification": "Malign"} | changes)
    write_bcdr_table(file, rows)
    return f"BCDR-D01_dataset/{rows[number]['image_filename']}"


def _ddsm(root):
    file = next(file for file in files_below(root, "*.OVERLAY") if "BENIGN" in file.read_text())
    bad = ddsm_abnormality(ddsm_square(90, 120, 20)).replace("BOUNDARY", "BOUNDRY")
    file.write_text(ddsm_overlay(ddsm_abnormality(ddsm_square(60, 100, 20), pathology="BENIGN"), bad))
    return file.relative_to(root).with_suffix("").as_posix()


def _cbis(root):
    file = root / "mass_case_description_train_set.csv"
    file.write_text(file.read_text().replace("4,MALIGNANT,", "4,MALIGNAT,"))
    return "Mass-Training_P_00001_RIGHT_CC"


def _mini_mias(root):
    (root / "Info.txt").write_text((root / "Info.txt").read_text().replace("SPIC M", "SPIC X"))
    return "mdb005"


def _omi(root):
    file = root / "data/optm4/imagedb_optm4.json"
    file.write_text(file.read_text().replace('{"77": {', '{"78": {"MarkID": 78, "Mass": 1, "X1": "oops"}, "77": {'))
    return next(
        exam.name
        for exam in ARCHIVES["omi_db"].load(root, max_bad_fraction=0.5).exams
        if exam.patient == "optm4" and exam.lesions
    )


def _cesm(root):
    file = root / "Radiology-manual-annotations.csv"
    lines = file.read_text().splitlines(keepends=True)
    first = next(line for line in lines if "P1_L_DM_CC" in line)
    file.write_text("".join(lines) + first.replace("Benign", "Malignant"))
    return "P1_L_DM_CC"


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("bcdr", lambda root: _bcdr(root, lw_x_points="1 2 x")),
        ("bcdr", lambda root: _bcdr(root, lw_x_points="9000 9001 9002", lw_y_points="9000 9001 9003")),
        ("bcdr", lambda root: _bcdr(root, segmentation_id="1")), ("bcdr", lambda root: _bcdr(root, image_view="7")),
        ("ddsm", _ddsm), ("cbis_ddsm", _cbis), ("mini_mias", _mini_mias), ("omi_db", _omi), ("cdd_cesm", _cesm),
    ],
)  # fmt: skip
def test_a_benign_finding_beside_one_that_cannot_be_read_does_not_make_its_image_benign(tmp_path, name, spoilt):
    archive = written(name, tmp_path)
    image = spoilt(tmp_path)
    cohort = archive.load(tmp_path, max_bad_fraction=0.5)
    (exam,) = [exam for exam in cohort.exams if exam.name == image]
    assert exam.lesions and exam.malignant is None and not exam.usable_as_healthy
    assert cohort.report.get("skipped") or cohort.report["other_views"]


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("cbis_ddsm", lambda root: change_once(root, "mass_case_description_train_set.csv", "OVAL,", "OVAL,LOBULATED,")),
        ("cbis_ddsm", lambda root: change_once(root, "mass_case_description_train_set.csv", ",Mass-Training_P_00000_LEFT_CC/", ",/")),
        ("bcdr", lambda root: _bcdr(root, image_filename="")),
        ("mini_mias", lambda root: change_once(root, "Info.txt", "mdb005 F SPIC", "mdb5 F SPIC")),
        ("mini_mias", lambda root: change_once(root, "Info.txt", "mdb005 F SPIC", "MDB005 F SPIC")),
        ("mini_mias", lambda root: change_once(root, "Info.txt", "mdb005 F SPIC", "005 F SPIC")),
        ("cdd_cesm", lambda root: change_once(root, "segmentations_v2.csv", "P1_L_DM_CC .jpg", "")),
    ],
)  # fmt: skip
def test_a_finding_on_nobody_knows_which_image_is_refused_whatever_the_fraction(tmp_path, name, spoilt):
    archive = written(name, tmp_path)
    spoilt(tmp_path)
    with pytest.raises(DataError) as refused:
        archive.load(tmp_path, max_bad_fraction=1.0)
    assert refused.value.code in ("bad_row", "bad_value")


# --- remedies are those of the source


@pytest.mark.parametrize(
    ("name", "settings", "remedy"),
    [
        ("isic", {"metadata": "x.csv"}, "correct `metadata`"), ("isic", {"sites": "x.csv"}, "correct `sites`"),
        ("inbreast", {"table": "x.csv"}, "correct `table`"), ("folder", {"metadata": "x.csv"}, "correct `metadata`"),
        ("folder", {"lesions": "x.csv"}, "correct `lesions`"),
    ],
)  # fmt: skip
def test_a_missing_table_is_told_with_the_setting_that_names_it(tmp_path, name, settings, remedy):
    with pytest.raises(DataError, match=f"x.csv does not exist; {remedy}") as refused:
        written(name, tmp_path).load(tmp_path, **settings)
    assert refused.value.code == "missing_file"
