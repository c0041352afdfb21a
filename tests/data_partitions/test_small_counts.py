"""Counts as they leave: one rule, which never says more than five numbers could be meant."""

from hypothesis import given
from hypothesis import strategies as st

from data_partitions.small_counts import fewest_shown_alike, shown_count, shown_total, shown_weight

COUNTS = st.integers(0, 10_000)


def alike(count):
    return [n for n in range(max(0, count - 10), count + 11) if shown_count(n) == shown_count(count)]


@given(COUNTS)
def test_a_shown_count_could_be_one_of_several(count):
    shown = shown_count(count)
    assert len(alike(count)) == (3 if shown == 5 else 5)
    assert shown == "<5" if count < 5 else shown % 5 == 0 and abs(shown - count) <= 2


def test_nothing_and_a_few_look_the_same():
    assert [shown_count(n) for n in (0, 1, 4, 5, 7, 8)] == ["<5", "<5", "<5", 5, 5, 10]
    assert [shown_weight(n) for n in (0, 2, 4, 5, 7, 8)] == [5, 5, 5, 5, 5, 10]


@given(COUNTS)
def test_a_number_that_is_picked_says_what_the_shown_count_says(count):
    picked = fewest_shown_alike(count)
    assert 0 <= picked <= count
    assert {fewest_shown_alike(n) for n in alike(count)} == {picked}
    assert picked == min(alike(count))


@given(st.lists(COUNTS, max_size=8), st.data())
def test_a_total_follows_from_what_is_shown_of_its_parts(counts, data):
    others = [data.draw(st.sampled_from(alike(n))) for n in counts]
    assert shown_total(counts) == shown_total(others)


def test_a_total_of_hidden_counts_is_hidden():
    assert [shown_total([3, 4]), shown_total([3, 22, 22]), shown_total([])] == ["<5", 40, "<5"]
