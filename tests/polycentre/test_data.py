"""`polycentre data`: tables, copies, warnings, all problems at once, and a page that loads nothing."""

import csv
import re

import numpy as np
import pytest
import yaml
from archives import write_bcdr, write_inbreast
from PIL import Image
from typer.testing import CliRunner

from polycentre.command_line import cli

SITES = ("rosendahl", "vidir_modern", "vidir_molemax")


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Function: `polycentre data` of a scenario with these centres; returns (status, text, page)."""
    monkeypatch.setenv("COLUMNS", "250")

    def call(**sections):
        tree = {
            "name": "looked-at",
            "task": {"name": "malignancy", "label": "malignancy", "whole_image": True, "image_size": 32, "channels": 3},
            "generators": {"g": {"centre": "B", "model": "dcgan", "width": 8, "steps": 1}},
            "arms": {"real": {"strategy": "local"}, "g": {"strategy": "one_shot", "generators": ["g"]}},
        } | sections
        file = tmp_path / "scenario.yaml"
        file.write_text(yaml.safe_dump(tree))
        done = CliRunner().invoke(
            cli, ["data", str(file), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
        )
        page = tmp_path / "out" / "data.html"
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output, page.read_text() if page.exists() else ""

    return call


def lesion(seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((60, 45), Image.Resampling.BICUBIC)


@pytest.fixture
def ham(tmp_path):
    """HAM10000 in small: three sources, a lesion at two of them, and the archive's two pairs of one picture."""
    folder = tmp_path / "ham"
    folder.mkdir()
    ids = [f"ISIC_{24000 + i:07d}" for i in range(90)]
    ids[10], ids[20], ids[12], ids[22] = "ISIC_0024366", "ISIC_0029861", "ISIC_0024777", "ISIC_0029938"
    rows = []
    for i, name in enumerate(ids):
        lesion({20: 10, 22: 12}.get(i, i)).save(folder / f"{name}.jpg")
        rows.append({"lesion_id": f"HAM_{i // 2:07d}" if i < 4 else f"HAM_{i:07d}", "image_id": name,
                     "dx": "mel" if i % 3 == 0 else "nv", "age": 50, "dataset": SITES[i // 30]})  # fmt: skip
    rows[60]["lesion_id"] = "HAM_0000000"  # two images at rosendahl, one at vidir_molemax
    rows[60]["dx"] = "mel"
    with (folder / "HAM10000_metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def three_centres(folder):
    return {
        "centres": {
            "rosendahl": {"roles": ["receiver"]}, "vidir_modern": {"roles": ["provider"]}, "vidir_molemax": {"roles": ["test"]},
        },
        "generators": {"g": {"centre": "vidir_modern", "model": "dcgan", "width": 8, "steps": 1}},
        "partition": {
            "source": {"source": "isic", "path": str(folder), "release": "ham10000"}, "by": "site", "centres": list(SITES),
        },
    }  # fmt: skip


def rows_of(text, caption):
    """Rows of one of the printed tables, as words."""
    block = text.split(caption)[1].split("\n\n")[0]
    return [line.split() for line in block.splitlines()[2:]]


def test_three_sources_with_counts_spanning_lesions_and_both_copies(look, ham):
    status, text, page = look(**three_centres(ham))
    assert status == 0
    amounts = {row[0]: row for row in rows_of(text, "What each centre has") if row[-4] == "malignant"}
    # One image of rosendahl's lesion came from vidir_molemax.
    assert {c: int(amounts[c][-5]) for c in SITES} == {"rosendahl": 31, "vidir_modern": 30, "vidir_molemax": 29}
    official = {" ".join(row[2:-3]): row[-3:] for row in rows_of(text, "Archives: what was found")}
    assert official["images"] == ["90", "10015", "-"] and official["site vidir_modern"] == ["30", "3363", "-"]
    assert ["HAM_0000000", "rosendahl"] in rows_of(text, "Patients found in several centres (1)")
    copies = {(row[2], row[5]): row[0] for row in rows_of(text, "Copies among ")}
    assert copies == {("ISIC_0024366", "ISIC_0029861"): "exact", ("ISIC_0024777", "ISIC_0029938"): "exact"}
    # They were joined before anything was dealt out, so none leaks.
    assert "copies of images across" not in text
    assert page.count("data:image/png") == 6, "two classes of three centres"


def test_a_near_copy_in_another_split_or_centre_is_a_warning(look, ham):
    with Image.open(ham / "ISIC_0024005.jpg") as image:
        image.resize((48, 36), Image.Resampling.BILINEAR).save(ham / "ISIC_0024065.jpg")  # of vidir_molemax
    status, text, _ = look(**three_centres(ham))
    near = [row for row in rows_of(text, "Copies among ") if row[0] == "near"]
    assert status == 0 and [(r[2], r[3], r[5], r[6]) for r in near] == [
        ("ISIC_0024005", "rosendahl", "ISIC_0024065", "vidir_molemax")
    ]
    assert "warning: 1 near copies of images across centres or splits" in text


def test_all_problems_of_all_centres_are_listed(look, ham, tmp_path):
    table = (ham / "HAM10000_metadata.csv").read_text().replace("ISIC_0024001", "ISIC_1111111")
    (ham / "HAM10000_metadata.csv").write_text(table.replace(",nv,50,vidir_modern", ",newus,50,vidir_modern", 3))
    other = tmp_path / "folder"
    other.mkdir()
    (other / "metadata.csv").write_text("image,patient_id,label\na.png,,1\nb.png,p,0\n")
    status, text, page = look(
        centres={
            "A": {"roles": ["receiver"], "data": {"source": "isic", "path": str(ham), "release": "ham10000"}},
            "B": {"roles": ["provider"], "data": {"source": "folder", "path": str(other)}},
        }
    )
    assert status == 2
    rows = rows_of(text, "Problems (6)")
    assert sorted((row[0], row[1]) for row in rows) == [
        ("A", "row_without_file"), *[("A", "unknown_label")] * 3, ("B", "bad_value"), ("B", "row_without_file")
    ]  # fmt: skip
    assert "HAM10000_metadata.csv row 3: no file ISIC_1111111.jpg; add it or drop the row" in text
    assert "6 problems keep this data from being used" in page and "ISIC_1111111" in page


def test_warnings_of_one_class_and_tiny_validation(look, tmp_path):
    for centre, labels in (("a", [0] * 30), ("b", [0, 1] * 15)):
        folder = tmp_path / centre
        folder.mkdir()
        lines = ["image,patient_id,label"]
        for i, label in enumerate(labels):
            lesion(100 * (centre == "b") + i).save(folder / f"{i}.png")
            lines.append(f"{i}.png,p{i},{label}")
        (folder / "metadata.csv").write_text("\n".join(lines))
    status, text, page = look(
        centres={
            "A": {"roles": ["receiver"], "data": {"source": "folder", "path": str(tmp_path / "b")}},
            "B": {"roles": ["provider"], "data": {"source": "folder", "path": str(tmp_path / "a")}},
        }
    )
    assert status == 0
    assert "warning: B, malignancy: only one class (0 malignant, 30 benign)" in text
    assert re.search(r"warning: A, malignancy: regions for validation: 2 malignant, \d benign", text)
    assert "Usable, with" in page


def test_the_page_loads_nothing_and_says_whose_images_it_shows(look, tiny_text):
    tree = yaml.safe_load(tiny_text)
    status, text, page = look(**{key: tree[key] for key in ("centres", "task", "generators", "arms", "study")})
    assert status == 0
    assert "shows images of patients" in page and "default-src 'none'" in page
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    assert "drawn by the phantom" in text
    assert [row[0] for row in rows_of(text, "What each centre has")] == ["A", "A", "B", "B", "C", "C"]


def test_counts_stand_beside_those_of_authors_and_papers(look, tmp_path):
    status, text, _ = look(
        centres={
            "A": {"roles": ["receiver"], "data": {"source": "inbreast", "path": str(write_inbreast(tmp_path / "in"))}},
            "B": {"roles": ["provider"], "data": {"source": "bcdr", "path": str(write_bcdr(tmp_path / "bcdr"))}},
        },
        task={"label": "lesion", "image_size": 32, "margin_px": 4},
    )
    assert status == 0
    counts = {(row[0], row[1]): row[2:] for row in rows_of(text, "Archives: what was found")}
    assert counts["inbreast", "masses"] == ["8", "116", "116"]
    assert counts["inbreast", "lesions"] == ["16", "-", "3028"] and counts["inbreast", "malignant"][1:] == ["-", "-"]
    assert counts["bcdr", "images"] == ["72", "7315", "-"]
