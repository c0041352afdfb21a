"""Phantoms are named as such, wherever the scenario says what a centre's data is."""

import pytest

from reports.sections.limits import phantom_centres
from reports.study import read_study


@pytest.mark.parametrize(
    ("scenario", "centres"),
    [
        ("centres: {A: {data: {source: phantom}}, B: {data: {source: inbreast}}, C: {}}", ["A"]),
        # As resolved: the archive is in the partition, and its centres have no data of their own.
        ("centres: {A: {}, B: {}, C: {}}\npartition: {source: {source: phantom}, centres: {C: 1, A: 2}}", ["A", "C"]),
        ("centres: {A: {}, B: {}}\npartition: {source: {source: ham10000}, centres: {A: 1}}", []),
        ("centres: {A: {data: {source: dealt, archive: {source: phantom}}}}", ["A"]),
        ("centres: {A: {data: {source: dealt, archive: {source: ham10000}}}}", []),
    ],
)
def test_centres_whose_patients_are_computed(scenario, centres):
    assert phantom_centres(read_study(scenario)) == centres
