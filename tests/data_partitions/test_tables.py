"""Tables of archives: every spelling, separator and kind of file gives the same cells."""

import pytest

from data_partitions.errors import DataError
from data_partitions.reading.tables import canonical, read_records

ROWS = [(2, {"patient_id": "P1", "breast_density": "3"}), (4, {"patient_id": "P2", "breast_density": ""})]


@pytest.mark.parametrize(
    "name", ["Breast Density", "breast_density", " BREAST-DENSITY ", "#breast density", "breast  density"]
)
def test_spellings_of_one_column(name):
    assert canonical(name) == "breast_density"


@pytest.mark.parametrize(
    "data",
    [
        b"patient_id,breast density\nP1,3\n,\nP2,\n", b"patient id;breast_density\nP1;3\n;\nP2;\n",
        b"\xef\xbb\xbfpatient_id\tbreast-density\r\nP1\t3\r\n\t\r\n P2\t \r\n", b'patient_id,breast density\n"P1\n",3\n,\nP2, \n',
    ],
)  # fmt: skip
def test_text_tables(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(data)
    # Numbers are those of lines: a cell that ends with a line break takes two.
    lines = 2 if b'P1\n"' not in data else 3
    expected = [(2, ROWS[0][1]), (2 + lines, ROWS[1][1])]
    assert read_records(tmp_path / "a.csv", ["patient_id", "breast_density"])[0] == expected


def test_a_newer_spreadsheet(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["Patient_ID", "Breast density"], ["P1", 3.0], [None, None], [" P2", None]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert read_records(tmp_path / "a.xlsx", ["patient_id"])[0] == ROWS


@pytest.mark.parametrize(("name", "data"), [("a.xlsx", b"PK no"), ("a.csv", b""), ("a.csv", b'a,b\n"x,y\nc,d,e,f\n')])
def test_files_that_are_no_table(tmp_path, name, data):
    if name.endswith("x"):
        pytest.importorskip("openpyxl")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as error:
        read_records(tmp_path / name, ["a"])
    assert error.value.code == "bad_table" and name in str(error.value)
