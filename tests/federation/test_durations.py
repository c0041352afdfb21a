"""What is learnt from jobs that were done, of which sort of work."""

from dataclasses import replace

import pytest

from federation.wire.durations import Durations
from federation.wire.job import Job

JOB = Job(
    "s", "u", "A", "learn_classifier",
    {"seed": 1, "classifier": {"model": "cnn"}, "recipe": {"steps": {"real": 100, "mix": 10}}, "task": {"image_size": 32}},
    strategy="local",
)  # fmt: skip


def test_the_longest_of_the_last_sixteen():
    durations = Durations()
    assert durations.longest(JOB) is None
    for seconds in (30.0, *[0.1] * 15):
        durations.add(JOB, seconds)
    assert durations.longest(JOB) == 30.0
    durations.add(JOB, 0.1)
    assert durations.longest(JOB) == 0.1


@pytest.mark.parametrize("change", [{"seed": 2}, {"data": {"source": "phantom"}}, {"name": "g01"}])
def test_seeds_data_and_names_make_no_other_sort(change):
    durations = Durations()
    durations.add(JOB, 1.0)
    assert durations.longest(replace(JOB, centre="B", unit="v", body=JOB.body | change)) == 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"classifier": {"model": "resnet18"}}, {"recipe": {"steps": {"real": 10**6, "mix": 10}}}, {"task": {"image_size": [1280, 1024]}},
        {"training": {"batch_size": 512}},
    ],
)  # fmt: skip
def test_another_model_length_or_size_is_another_sort(change):
    durations = Durations()
    durations.add(JOB, 1.0)
    assert durations.longest(replace(JOB, body=JOB.body | change)) is None
    assert durations.longest(replace(JOB, kind="test_classifier")) is None
    assert durations.longest(replace(JOB, strategy="pooled")) is None
