"""mini-MIAS as distributed: y from the bottom, lines without coordinates, and the patches of the developer's copy."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_partitions import Cohort, DataError, PatchTask, SplitRule, build_patches
from data_partitions.archives.folder import FolderSource
from data_partitions.archives.mini_mias import MiniMiasSource
from data_partitions.exams import Box
from data_partitions.extraction import Extraction

INFO = """
MAMMOGRAPHIC IMAGE ANALYSIS SOCIETY
1st column: MIAS database reference number.

mdb001 G CIRC B 100 40 15
mdb002 G NORM
mdb003 D NORM\x20
mdb004 D CALC M *NOTE 3*
mdb005 F CIRC B 30 150 10
mdb005 F SPIC M 60 90 12
mdb006 F ARCH B
"""


def archive(folder, info=INFO, films=6, shape=(200, 160)):
    for number in range(1, films + 1):
        pixels = np.full(shape, 5, np.uint8)
        pixels[:, :100] = 120 + number
        pixels = pixels[:, ::-1] if number % 2 else pixels
        Image.fromarray(pixels).save(folder / f"mdb{number:03d}.pgm")
    (folder / "Info.txt").write_text(info)
    return folder


def refused(folder, **settings) -> DataError:
    with pytest.raises(DataError) as error:
        MiniMiasSource(path=folder, **settings).load("A", 0)
    return error.value


def test_y_is_measured_from_the_bottom(tmp_path):
    cohort = MiniMiasSource(path=archive(tmp_path)).load("A", 0)
    exams = {exam.name: exam for exam in cohort.exams}
    # Row of the centre from the top: 200 - 40 = 160.
    assert [(x.box, x.kind, x.malignant) for x in exams["mdb001"].lesions] == [(Box(145, 85, 175, 115), "mass", False)]
    assert [x.malignant for x in exams["mdb005"].lesions] == [False, True] and exams["mdb005"].malignant
    assert {e.name: e.patient for e in cohort.exams}["mdb004"] == exams["mdb003"].patient == "mias_p002"
    assert [exams[f"mdb00{i}"].laterality for i in (1, 2)] == ["R", "L"] and exams["mdb003"].density == "D"


def test_films_whose_lesion_has_no_place_are_no_healthy_ones(tmp_path):
    cohort = MiniMiasSource(path=archive(tmp_path)).load("A", 0)
    assert cohort.report["lesions_without_coordinates"] == 2
    assert {e.name for e in cohort.exams if e.usable_as_healthy and not e.lesions} == {"mdb002", "mdb003"}
    assert {e.name: e.malignant for e in cohort.exams}["mdb004"] is True


def test_every_fault_is_named(tmp_path):
    bad = INFO + "mdb007 F NORM\nmdb006 X NORM\nmdb006 F LUMP B 1 2 3\nmdb006 F CIRC Q 1 2 3\nmdb006 F CIRC B one 2 3\n"
    bad += "mdb002 F CIRC B 500 900 3\nmdb002 F CIRC B 1 2\n"
    error = refused(archive(tmp_path, bad))
    assert sorted(p.code for p in error.problems) == [
        "bad_value", "bad_value", "contour_outside", "row_without_file", "unknown_label", "unknown_label", "unknown_label"
    ]  # fmt: skip
    texts = " ".join(p.text for p in error.problems)
    for told in ("line 12: no file mdb007.pgm", "line 13: 'mdb006 X NORM'", "one 2 3 is not x, y and radius",
                 "line 17: the circle: (-703, 497, -697, 503) lies outside its image of (200, 160)", "has 6 words"):  # fmt: skip
        assert told in texts, told
    left = MiniMiasSource(path=tmp_path, max_bad_fraction=0.6).load("A", 0)
    assert left.report["skipped"] == {"row_without_file": 1, "unknown_label": 3, "bad_value": 2, "contour_outside": 1}
    assert "mdb002" not in {e.name for e in left.exams if e.usable_as_healthy}


def test_without_its_list_there_is_no_archive(tmp_path):
    archive(tmp_path)
    (tmp_path / "Info.txt").unlink()
    assert refused(tmp_path).code == "missing_file"
    (tmp_path / "Info.txt").write_bytes(b"\xff\xfe mdb001")
    assert refused(tmp_path).code == "bad_encoding"


# --- the real archive, where it is at hand


@pytest.fixture(scope="module")
def both(real_images, real_cache, tmp_path_factory):
    """The developer's copy (PNG and csv), and the same films as PGM with the archive's own list."""
    copy, folder = real_images / "mammography_mini_mias", tmp_path_factory.mktemp("mias")
    for file in sorted((copy / "images").glob("*.png"))[:60]:
        Image.open(file).save(folder / f"{file.stem}.pgm")
    films = {file.stem for file in folder.glob("*.pgm")}
    info = (real_images / "format_samples" / "mini_mias_pgm" / "Info.txt").read_text()
    lines = [line for line in info.splitlines() if not line.startswith("mdb") or line[:6] in films]
    (folder / "Info.txt").write_text("\n".join(lines))
    there = FolderSource(path=copy, lesions="lesions.csv", spacing_mm=0.2).load("A", 0, real_cache)
    named = [replace(e, name=e.name[7:13]) for e in there.exams if e.name[7:13] in films]
    return MiniMiasSource(path=folder).load("A", 0), Cohort(named)


def test_exams_are_those_of_the_developers_copy(both):
    ours, folder = ({e.name: e for e in cohort.exams} for cohort in both)
    assert ours.keys() == folder.keys() and len(ours) == 60
    for name, exam in ours.items():
        other = folder[name]
        for field in (
            "patient",
            "shape",
            "view",
            "laterality",
            "density",
            "lesions",
            "malignant",
            "usable_as_healthy",
            "spacing_mm",
        ):
            assert getattr(exam, field) == getattr(other, field), (name, field)


def test_patches_are_those_of_the_developers_copy(both):
    """Streams are named after the image, so under the same names all crops and healthy boxes are equal, bit by bit."""
    task = PatchTask(image_size=32, margin_mm=4.2, crops=3)
    a, b = [], []
    (table_a, _), (table_b, _) = (
        Extraction(cohort, task, 0, None).run(SplitRule(), pixels) for cohort, pixels in zip(both, (a, b), strict=True)
    )
    assert len(a) > 60 and table_a.equals(table_b)
    np.testing.assert_array_equal(a, b)


def test_untouched_films(real_images, tmp_path):
    folder = real_images / "format_samples" / "mini_mias_pgm"
    error = refused(folder)
    assert error.numbers == {"row_without_file": 325} and len(error.problems) == 325
    data = build_patches(
        MiniMiasSource(path=folder, max_bad_fraction=1.0), PatchTask(image_size=32), SplitRule(test_only=True), centre="A",
        seed=0, cache=tmp_path,
    )  # fmt: skip
    assert data.counts()["test"][1] == 4, "one each of mdb001 and mdb058, two of mdb005"
    assert data.report["skipped"] == {"row_without_file": 325}
