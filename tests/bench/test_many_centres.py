"""Which claims a benchmark says hold."""

import pytest

from bench.many_centres import holding

ROW = {"peak_pss_gib": 3.0, "seconds_per_centre": 0.2, "of_plain": 1.1, "start_up_s": 9.0, "same_metrics": True}


def test_all_hold():
    assert all(holding(ROW, ROW).values())


@pytest.mark.parametrize(
    ("few", "many", "broken"),
    [
        ({"same_metrics": False}, {}, "same_metrics"),
        ({}, {"same_metrics": False}, "same_metrics"),
        ({}, {"peak_pss_gib": 8.1}, "memory"),
        ({"seconds_per_centre": 0.3}, {}, "constant"),
        ({"seconds_per_centre": 0.26}, {"seconds_per_centre": 0.26}, "per_centre"),
        ({}, {"of_plain": 1.4}, "of_plain"),
        ({"start_up_s": 15.0}, {}, "start_up"),
    ],
)
def test_one_does_not(few, many, broken):
    assert [claim for claim, holds in holding(ROW | few, ROW | many).items() if not holds] == [broken]
