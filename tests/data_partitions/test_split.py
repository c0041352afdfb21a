"""Splits are disjoint, complete, stratified, and do not depend on the order of the rows."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_partitions.split import SPLITS, SplitRule, split_patients

strata = st.dictionaries(
    st.text("abcdefgh0123456789", min_size=1, max_size=6),
    st.tuples(st.sampled_from("01"), st.sampled_from("abcd")),
    min_size=1,
    max_size=120,
)


@given(strata, st.integers(0, 2**32), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_every_patient_is_in_one_split_whatever_the_order(patients, seed, random):
    splits = split_patients(patients, SplitRule(), seed)
    assert splits.keys() == patients.keys()
    assert set(splits.values()) <= set(SPLITS)
    shuffled = list(patients.items())
    random.shuffle(shuffled)
    assert split_patients(dict(shuffled), SplitRule(), seed) == splits


@given(strata, st.integers(0, 2**32))
@settings(max_examples=60)
def test_each_class_is_within_one_patient_of_its_share(patients, seed):
    splits = split_patients(patients, SplitRule(), seed)
    for label in "01":
        members = [p for p, stratum in patients.items() if stratum[0] == label]
        for split, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
            assert abs(sum(splits[p] == split for p in members) - share * len(members)) < 1 + 1e-9


def test_densities_are_spread_as_the_classes_are():
    patients = {f"p{i}": (str(i % 2), "abcd"[i % 4 if i % 3 else 0]) for i in range(400)}
    splits = split_patients(patients, SplitRule(), 5)
    for density in "abcd":
        members = [p for p, stratum in patients.items() if stratum[1] == density]
        share = np.mean([splits[p] == "train" for p in members])
        assert share == pytest.approx(0.7, abs=3 / len(members))


def test_another_seed_is_another_split_and_the_same_seed_the_same():
    patients = {f"p{i}": ("0", "a") for i in range(50)}
    assert split_patients(patients, SplitRule(), 1) == split_patients(patients, SplitRule(), 1)
    assert split_patients(patients, SplitRule(), 1) != split_patients(patients, SplitRule(), 2)


def test_test_only_puts_everyone_into_test():
    assert set(split_patients({"a": ("0", ""), "b": ("1", "")}, SplitRule(test_only=True), 0).values()) == {"test"}


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ValidationError, match="must sum to 1"):
        SplitRule(train=0.7, val=0.2, test=0.2)


def test_an_archives_own_test_patients_are_the_test_split_and_no_one_else():
    strata = {f"p{k}": (str(k % 2), "a") for k in range(60)}
    reserved = {f"p{k}" for k in range(0, 60, 3)} | {"not here"}
    splits = split_patients(strata, SplitRule(), 0, reserved)
    assert {patient for patient, split in splits.items() if split == "test"} == reserved - {"not here"}
    counts = Counter(splits.values())
    assert counts["val"] == pytest.approx(40 * 0.15 / 0.85, abs=1) and set(splits) == set(strata)
    assert split_patients(strata, SplitRule(), 0) == split_patients(strata, SplitRule(), 0, ())
    assert set(split_patients(strata, SplitRule(test_only=True), 0, reserved).values()) == {"test"}
