"""Texts that a spreadsheet would run, in every csv file that holds texts."""

import csv

import pandas as pd
import pytest

from basics import csv_table
from reports.record_files import PARTITION, RESULTS

FORMULA = '=HYPERLINK("http://x","y")'
ROW = {"centre": "B", "task": FORMULA, "split": "train", "class": "+1", "patients": 5, "images": "<5", "digest": "@x"}


def cells(folder):
    with open(folder / PARTITION.file, newline="") as file:
        return list(csv.reader(file))[1]


def test_no_cell_of_a_node_is_a_formula_and_it_is_read_as_it_was(tmp_path, monkeypatch):
    PARTITION.write(tmp_path, [ROW])
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells(tmp_path))
    read = PARTITION.read(tmp_path).iloc[0]
    assert (read["task"], read["class"], read["digest"]) == (FORMULA, "+1", "@x")
    monkeypatch.setattr(csv_table, "text_cell", lambda text: text)  # without the defence
    PARTITION.write(tmp_path, [ROW])
    assert FORMULA in cells(tmp_path) and "+1" in cells(tmp_path)


def test_a_negative_number_stays_one(tmp_path):
    row = {name: "x" for name in RESULTS.columns} | {
        "value": -0.5,
        "real_fraction": 1.0,
        "repeat": 0,
        "n_real": 3,
        "n_synthetic": 0,
    }
    RESULTS.write(tmp_path, [row])
    assert ",-0.5," in (tmp_path / RESULTS.file).read_text()
    assert RESULTS.read(tmp_path)["value"].tolist() == [-0.5]


@pytest.mark.parametrize("kind", ["=1", "-x", "plain"])
def test_a_table_of_patches_is_read_as_it_was_written(kind, tmp_path):
    from data_partitions.patch_dataset import COLUMNS, TEXT, write_patches

    table = pd.DataFrame([{name: kind if name in TEXT else 1 for name in COLUMNS}])
    write_patches(tmp_path, table, {}, ["a"])
    with open(tmp_path / "table.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert not any(row[name].startswith(("=", "-")) for name in TEXT)
    assert all(csv_table.read_cell(row[name]) == kind for name in TEXT)
