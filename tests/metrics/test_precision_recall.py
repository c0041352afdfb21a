"""Precision and recall against a naive loop, and on sets where both are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.precision_recall import precision_recall


def naive(real, fake, k):
    """Definition 1 of the paper, pair by pair."""

    def covered(point, centres):
        for i, centre in enumerate(centres):
            others = sorted(np.sqrt(((centre - other) ** 2).sum()) for j, other in enumerate(centres) if j != i)
            if np.sqrt(((point - centre) ** 2).sum()) <= others[k - 1]:
                return True
        return False

    return np.mean([covered(f, real) for f in fake]), np.mean([covered(r, fake) for r in real])


# Small integers: distances are exact roots and ties are frequent.
POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=5, max_size=12).map(
    lambda points: np.array(points, float)
)


@given(POINTS, POINTS, st.integers(1, 4))
def test_against_a_naive_loop(real, fake, k):
    assert precision_recall(real, fake, k) == pytest.approx(naive(real, fake, k))


def test_more_images_than_one_block_holds(monkeypatch):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(60, 3)), rng.normal(1.5, 1.0, size=(45, 3))
    expected = naive(real, fake, 3)
    assert precision_recall(real, fake) == pytest.approx(expected)
    monkeypatch.setattr("metrics.precision_recall._ROWS_AT_A_TIME", 7)
    assert precision_recall(real, fake) == pytest.approx(expected)
    assert all(0.2 < share < 0.95 for share in expected) and expected[0] != expected[1]


def test_the_same_set_far_away_sets_and_a_collapse():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 6))
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    precision, recall = precision_recall(real, np.repeat(real[:10], 20, axis=0))
    assert precision == 1.0 and recall == pytest.approx(10 / 200)  # copies have balls of no size
    recalls = [precision_recall(real, rng.normal(size=(200, 6)) * spread)[1] for spread in (1.0, 0.5, 0.1)]
    assert recalls == sorted(recalls, reverse=True) and recalls[0] > 0.7 and recalls[2] < 0.05


def test_exchanging_the_sets_exchanges_precision_and_recall():
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(40, 2)), rng.normal(size=(30, 2)) * 0.4
    assert precision_recall(real, fake) == precision_recall(fake, real)[::-1]


@pytest.mark.parametrize(
    ("real", "fake", "k", "text"),
    [
        (np.zeros((9, 2)), np.zeros((9, 2)), 0, "k is 0"),
        (np.zeros((9, 2)), np.zeros((3, 2)), 3, "3 generated images; with k = 3, at least 4"),
        (np.zeros((2, 2)), np.zeros((9, 2)), 2, "2 real images"),
        (np.zeros((9, 2)), np.zeros((9, 3)), 3, r"generated features have shape \(9, 3\)"),
        (np.zeros(9), np.zeros((9, 3)), 3, "real features have shape"),
        (np.full((9, 2), np.nan), np.zeros((9, 2)), 3, "real features hold NaN"),
    ],
)
def test_refusals(real, fake, k, text):
    with pytest.raises(ValueError, match=text):
        precision_recall(real, fake, k)
