"""Dealing groups out to centres: disjoint, complete, deterministic, sizes within one patient, whatever the groups."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_partitions.dealing.dealing import REST, Group, deal, in_order, label_skew, proportional, quantity_skew

LABELS = ("healthy", "lesion", "malignant")


@st.composite
def archives(draw):
    """Groups of unequal numbers of images, and sizes of two to five centres that the archive can fill."""
    count = draw(st.integers(8, 40))
    groups = [
        Group(
            f"p{i}", draw(st.integers(1, 6)), draw(st.sampled_from(LABELS)), draw(st.sampled_from("abcd")),
            size=draw(st.floats(10, 200)),
        )
        for i in range(count)
    ]  # fmt: skip
    images = sum(group.images for group in groups)
    weights = draw(st.lists(st.floats(0.05, 1), min_size=2, max_size=5))
    used = draw(st.sampled_from([1.0, 0.9, 0.5]))
    sizes = {f"c{i}": used * images * w / sum(weights) for i, w in enumerate(weights)}
    return groups, sizes


def classes_of(groups):
    return dict(sum((Counter({g.label: g.images}) for g in groups), Counter()))


def check(groups, sizes, home):
    assert set(home) == {group.name for group in groups}, "every group is somewhere"
    assert set(home.values()) <= {*sizes, REST}
    largest = max(group.images for group in groups)
    images = sum(group.images for group in groups)
    for centre, size in {**sizes, REST: images - sum(sizes.values())}.items():
        got = sum(group.images for group in groups if home[group.name] == centre)
        assert abs(got - size) <= largest + 1e-3, (centre, got, size, largest)


@settings(max_examples=25)
@given(archives(), st.integers(0, 5), st.randoms())
def test_sizes_are_within_one_patient_and_order_is_irrelevant(archive, seed, shuffle):
    groups, sizes = archive
    targets = proportional(sizes, classes_of(groups))
    home = deal(groups, targets, seed)
    check(groups, sizes, home)
    shuffled = list(groups)
    shuffle.shuffle(shuffled)
    assert deal(shuffled, targets, seed) == home


@settings(max_examples=20)
@given(archives(), st.sampled_from([0.05, 0.5, 5.0]), st.integers(0, 3))
def test_a_skewed_deal_keeps_the_sizes_and_asks_no_class_for_more_than_it_holds(archive, alpha, seed):
    groups, sizes = archive
    classes = classes_of(groups)
    targets = label_skew(sizes, classes, alpha, np.random.default_rng(seed))
    for label, n in classes.items():
        assert sum(own[label] for own in targets.values()) <= n * (1 + 1e-3) + 1e-3
    for centre, size in sizes.items():
        assert sum(targets[centre].values()) == pytest.approx(size, rel=2e-3, abs=2e-3)
    check(groups, sizes, deal(groups, targets, seed))


@settings(max_examples=20)
@given(archives())
def test_consecutive_parts_are_in_order_and_within_one_patient(archive):
    groups, sizes = archive
    home = in_order(groups, sizes)
    check(groups, sizes, home)
    places = {name: i for i, name in enumerate([*sizes, REST])}
    by_size = sorted(groups, key=lambda group: (group.size, group.name))
    walk = [places[home[group.name]] for group in by_size]
    assert walk == sorted(walk)


def test_patients_with_one_image_are_dealt_alike_in_class_and_density():
    """Closed form: 3 classes x 4 densities x 20 patients in shares 1/2, 3/10, 1/5."""
    groups = [Group(f"{c}{d}{i}", 1, c, d) for c in LABELS for d in "abcd" for i in range(20)]
    home = deal(groups, proportional({"A": 120, "B": 72, "C": 48}, classes_of(groups)), 0)
    for label in LABELS:
        assert Counter(home[g.name] for g in groups if g.label == label) == {"A": 40, "B": 24, "C": 16}
        for density in "abcd":
            found = Counter(home[g.name] for g in groups if (g.label, g.density) == (label, density))
            assert all(abs(found[c] - n) <= 1 for c, n in {"A": 10, "B": 6, "C": 4}.items())


def test_another_seed_is_another_deal():
    groups = [Group(f"p{i}", 1) for i in range(40)]
    targets = proportional({"A": 20, "B": 20}, {"": 40})
    assert deal(groups, targets, 0) != deal(groups, targets, 1)


def test_a_small_alpha_is_more_unequal_than_a_large_one():
    """With alpha to infinity every centre has the overall mix; with alpha to 0 a centre has one class."""
    sizes, classes = {"A": 100, "B": 100, "C": 100}, {"healthy": 150, "malignant": 150}
    spread = {}
    for alpha in (0.1, 1.0, 1000.0):
        mixes = [
            [own["malignant"] / 100 for own in label_skew(sizes, classes, alpha, np.random.default_rng(s)).values()]
            for s in range(30)
        ]
        spread[alpha] = float(np.std(mixes))
    assert spread[0.1] > spread[1.0] > spread[1000.0]
    assert spread[1000.0] < 0.03 and spread[0.1] > 0.3


def test_quantities_are_unequal_and_have_a_floor():
    sizes = quantity_skew(["A", "B", "C", "D"], 1000, 0.3, 20, np.random.default_rng(0))
    assert sum(sizes.values()) == pytest.approx(1000) and min(sizes.values()) >= 20
    assert max(sizes.values()) > 2 * min(sizes.values())
    alike = quantity_skew(["A", "B", "C", "D"], 1000, 1e6, 0, np.random.default_rng(0))
    assert all(n == pytest.approx(250, rel=0.02) for n in alike.values())
