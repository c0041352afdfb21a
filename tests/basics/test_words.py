"""Lists of names stay readable."""

from basics.words import listed


def test_few_names_are_all_there_and_many_are_counted():
    assert listed([]) == "none" and listed(iter("AB")) == "A, B"
    assert listed(f"c{i}" for i in range(12)).count(",") == 11
    assert listed(f"c{i}" for i in range(13)) == "c0, c1, c2, ..., c12 (13)"
