"""Tables of archives: every spelling, separator and kind of file gives the same cells."""

import csv
import io
import re
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_partitions.archives.account import Account
from data_partitions.archives.exclusions import read_exclusions
from data_partitions.errors import DataError
from data_partitions.reading.limits import DEFAULT
from data_partitions.reading.tables import MARKS, canonical, read_records, read_table

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


def table(path, text, encoding="utf-8"):
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_table(path)


def test_rows_with_another_number_of_cells_are_faults_of_their_line(tmp_path):
    found = table(tmp_path / "a.csv", "a,b,c\n1,2,3\n1,2\n\n1,2,3,4\n4,5,6\n")
    assert found.rows == [(2, ("1", "2", "3")), (6, ("4", "5", "6"))]
    assert [problem.text.split(";")[0] for problem in found.problems] == [
        "a.csv row 3 has 2 cells where the header has 3", "a.csv row 5 has 4 cells where the header has 3",
    ]  # fmt: skip


@given(
    rows=st.lists(st.lists(st.text("abc ,;\"'0é", max_size=6), min_size=2, max_size=4), min_size=1, max_size=6),
    mark=st.sampled_from(MARKS), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)  # fmt: skip
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_writer_wrote_is_read(tmp_path, rows, mark, encoding, end):
    """Whatever the separator, the encoding and the ends of lines: the cells of the standard library's writer, without spaces."""
    width = len(rows[0])
    rows = [(row + ["x"] * width)[:width] for row in rows]
    out = io.StringIO()
    csv.writer(out, delimiter=mark, lineterminator=end).writerows([[f"c{i}" for i in range(width)], *rows])
    found = table(tmp_path / "a.csv", out.getvalue(), encoding)
    expected = [tuple(cell.strip() for cell in row) for row in rows]
    assert [cells for _, cells in found.rows] == [row for row in expected if any(row)] and not found.problems


def test_a_row_that_cannot_be_read_in_a_table_of_lesions_or_exclusions_refuses_it(tmp_path):
    account = Account(tmp_path)
    (tmp_path / "a.csv").write_text("image,x\na.png,1\nb.png\n")
    assert len(account.records(tmp_path / "a.csv", ("image",), findings=True)) == 1
    assert [problem.code for problem in account.fatal] == ["bad_row"] and not account.problems
    with pytest.raises(DataError, match="row 3 has 1 cells"):
        read_exclusions(tmp_path / "a.csv", None, DEFAULT)


def test_two_columns_of_one_name_are_refused_where_they_differ(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image,breast density,breast_density\na,1,1\n")
    assert read_records(path, ["image"])[0] == [(2, {"image": "a", "breast_density": "1"})]
    path.write_text("image,breast density,breast_density\na,1,2\n")
    with pytest.raises(DataError, match="two columns are called 'breast_density' and differ in row 2"):
        read_records(path, ["image"])


@pytest.mark.parametrize(("name", "data"), [("a.xlsx", b"PK no"), ("a.csv", b""), ("a.csv", b'a,b\n"x,y\nc,d,e,f\n')])
def test_files_that_are_no_table(tmp_path, name, data):
    if name.endswith("x"):
        pytest.importorskip("openpyxl")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as error:
        read_records(tmp_path / name, ["a"])
    assert error.value.code == "bad_table" and name in str(error.value)


# --- rows that must not be lost


def test_ditto_marks_in_the_last_column_swallow_no_row(tmp_path):
    """Two quotation marks that open a cell each: the second line does not begin with the mark that closes the first."""
    (tmp_path / "a.csv").write_text('image,x,note\n0.png,5,"\n1.png,6,"\n2.png,7,\n')
    table = read_table(tmp_path / "a.csv")
    assert [cells[0] for _, cells in table.rows] == ["2.png"]
    assert [problem.text.split(" has ")[0] for problem in table.problems] == ["a.csv row 2", "a.csv row 3"]


def spreadsheet(path, rows, dimension=None, second=None):
    """An .xlsx of these rows; dimension: what the file says of its size, as exporters write it."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    if second:
        book.create_sheet("more").append(second)
    book.save(path)
    if dimension:
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        sheet = "xl/worksheets/sheet1.xml"
        parts[sheet] = re.sub(rb'<dimension ref="[^"]*"', f'<dimension ref="{dimension}"'.encode(), parts[sheet])
        with zipfile.ZipFile(path, "w") as file:
            for name, data in parts.items():
                file.writestr(name, data)
    return path


@pytest.mark.parametrize("dimension", ["A1", "A1:B2", None])
def test_a_spreadsheet_is_read_beyond_the_size_that_it_states(tmp_path, dimension):
    path = spreadsheet(tmp_path / "a.xlsx", [["image", "x"], ["0.png", 1], ["1.png", 2.0], ["2.png", 3]], dimension)
    assert [cells for _, cells in read_table(path).rows] == [("0.png", "1"), ("1.png", "2"), ("2.png", "3")]


def test_a_formula_without_its_result_is_no_empty_cell_and_further_sheets_are_counted(tmp_path):
    path = spreadsheet(tmp_path / "a.xlsx", [["image", "x"], ["0.png", "=1+1"]], second=["image"])
    table = read_table(path)
    assert table.rows == [(2, ("0.png", "#FORMULA"))] and table.facts["further_sheets"] == 1


@pytest.mark.parametrize("encoding", ["undefined", "hex", "no such"])
def test_encodings_that_are_none(tmp_path, encoding):
    (tmp_path / "a.csv").write_text("image\n0.png\n")
    with pytest.raises(DataError, match="set `encoding`"):
        read_table(tmp_path / "a.csv", encoding)
