"""What of a DataError may leave the centre, and that it survives the way between processes."""

import pickle

from data_partitions import DataError, Problem
from data_partitions.errors import BadFile


def test_one_line_with_count_and_the_first_few():
    problems = [Problem("bad_image", f"image {i} does not decode") for i in range(4)] + [Problem("bad_value", "row 9")]
    error = DataError.of(problems, "archive")
    assert error.code == "bad_image"
    assert error.numbers == {"bad_image": 4, "bad_value": 1}
    assert str(error).startswith("archive: 5 problems: image 0 does not decode; image 1")
    assert str(error).endswith("and 2 more") and len(error.problems) == 5


def test_it_can_be_pickled():
    error = DataError("too_few", "3 lesions", have=3, need=5)
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, str(again), again.numbers, again.problems) == (
        "too_few", "3 lesions", {"have": 3, "need": 5}, (Problem("too_few", "3 lesions"),)
    )  # fmt: skip


def test_what_a_file_says_of_itself_stays_on_one_line():
    said = "is compressed as 1.2\n840\x1b[2J"
    for text in (str(BadFile("bad_image", said)), str(DataError("bad_image", said)), Problem("bad_image", said).text):
        assert text == "is compressed as 1.2 840?[2J"
