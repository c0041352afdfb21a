"""Words of a data card: makers and codes, never the text of a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_partitions.card_words import WORDS


@pytest.mark.parametrize(
    ("column", "text", "word"),
    [
        ("scanner", "GE MEDICAL SYSTEMS Senographe Essential", "GE"), ("scanner", "SIEMENS Mammomat", "Siemens"),
        ("scanner", "Lorad, A Hologic Company Selenia", "Hologic"), ("scanner", "film", "film"), ("scanner", " Film ", "film"),
        ("scanner", "Jane Doe", "other"), ("scanner", "Gerard Siemensen", "other"), ("scanner", "", ""),
        ("view", "cc", "CC"), ("view", "RMLO", "other"), ("view", "MRN-7001", "other"), ("laterality", "L", "L"),
        ("density", "d", "d"), ("density", "D", "D"), ("density", "C", "c"), ("density", "7001", "other"),
        ("lesion_type", "mass", "mass"), ("lesion_type", "Jane Doe", "other"),
    ],
)  # fmt: skip
def test_words(column, text, word):
    assert WORDS[column](text) == word


@given(st.sampled_from(sorted(WORDS)), st.text(max_size=30), st.text(max_size=30))
def test_no_part_of_a_text_leaves_that_is_not_a_word_of_the_list(column, before, after):
    shown = WORDS[column](f"{before} Jane-Doe {after}")
    assert "jane" not in shown.casefold() and len(shown) < 16
