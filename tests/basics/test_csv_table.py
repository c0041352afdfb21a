"""Cells that a spreadsheet would run are written as texts, and read back as they were."""

import csv
import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from basics.csv_table import read_cell, text_cell, to_csv

RUN = "=+-@\t\r\n"


@given(st.text(alphabet=st.sampled_from(RUN + "'a1 ")) | st.text())
@example("'=1")
@example("''")
def test_a_text_comes_back_as_it_was_and_no_cell_is_run(text):
    assert read_cell(text_cell(text)) == text
    assert not text_cell(text).startswith(tuple(RUN))


@given(st.text(max_size=5))
def test_no_cell_that_was_not_made_is_changed_beyond_its_mark(cell):
    assert read_cell(cell) in (cell, cell[1:])


def test_two_texts_never_become_one_cell():
    texts = ["=1", "'=1", "''=1", "'", "", "1", "'1"]
    assert len({text_cell(text) for text in texts}) == len(texts)


def test_numbers_stay_numbers_and_texts_do_not_become_formulas():
    rows = [{"who": "=1+1", "size": -0.5, "part": "-0.5"}, {"who": "B", "size": np.float32(2), "part": "=x"}]
    lines = list(csv.reader(io.StringIO(to_csv(rows, ("who", "size", "part"), numeric=("size", "part")))))
    assert sorted(lines[1:]) == [["'=1+1", "-0.5", "-0.5"], ["B", "2", "'=x"]]


@pytest.mark.parametrize("text", ["-5", "+1", "-inf", "@a"])
def test_a_text_that_looks_like_a_number_is_a_text_where_texts_are(text):
    assert to_csv([{"who": text}], ("who",)) == f"who\n'{text}\n"
