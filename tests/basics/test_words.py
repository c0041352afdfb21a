"""Lists of names and foreign words stay readable."""

from basics.words import listed, one_line


def test_few_names_are_all_there_and_many_are_counted():
    assert listed([]) == "none" and listed(iter("AB")) == "A, B"
    assert listed(f"c{i}" for i in range(12)).count(",") == 11
    assert listed(f"c{i}" for i in range(13)) == "c0, c1, c2, ..., c12 (13)"


def test_foreign_words_are_put_on_one_line():
    assert one_line("a\n b\t\x00c\u202ed ") == "a b ?c?d" and one_line(ValueError("1.2\n.3")) == "1.2 .3"
    assert one_line("abcdef", 3) == "abc..." and one_line("abc", 3) == "abc"
