"""Fréchet distance: closed forms, the textbook formula with a general matrix root, and sums that add up."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from federation.wire.arrays import check_arrays
from metrics import FeatureSums, frechet_distance, half_split_floor, split_in_halves


def with_moments(mean, covariance, count=50):
    """Sums of a set with exactly this mean and covariance."""
    mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
    return FeatureSums(count, count * mean, (count - 1) * covariance + count * np.outer(mean, mean))


def gaussian(count, dimensions, seed, offset=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, dimensions)) + offset


def textbook(a, b):
    """Heusel et al. as written, from the features themselves."""
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(c_a @ c_b).real
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c_a + c_b - 2 * root)


def test_equal_covariances_leave_the_distance_of_the_means():
    covariance = np.cov(gaussian(100, 5, 0), rowvar=False)
    a, b = with_moments([1, 2, 3, 4, 5], covariance), with_moments([1, 2, 3, 4, 7], covariance)
    assert frechet_distance(a, b) == pytest.approx(4.0)


def test_diagonal_and_commuting_covariances():
    a, b = np.array([4.0, 9.0, 0.0]), np.array([1.0, 9.0, 16.0])
    # sum of (sqrt a - sqrt b)^2 = 1 + 0 + 16
    assert frechet_distance(with_moments([0, 0, 0], np.diag(a)), with_moments([0, 0, 0], np.diag(b))) == pytest.approx(
        17
    )
    turn = scipy.linalg.qr(gaussian(3, 3, 1))[0]
    turned = [with_moments([1, 1, 1], turn @ np.diag(values) @ turn.T) for values in (a, b)]
    assert frechet_distance(*turned) == pytest.approx(17)


def test_one_dimension():
    a, b = np.array([[0.0], [2.0]]), np.array([[1.0], [3.0], [8.0]])
    expected = (1 - 4) ** 2 + (np.std(a, ddof=1) - np.std(b, ddof=1)) ** 2
    assert frechet_distance(FeatureSums.of(a), FeatureSums.of(b)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_against_the_textbook(seed):
    a, b = gaussian(60, 8, seed), gaussian(40, 8, seed + 10, offset=0.5)
    assert frechet_distance(FeatureSums.of(a), FeatureSums.of(b)) == pytest.approx(textbook(a, b), rel=1e-8)


def test_fewer_images_than_dimensions():
    """Singular covariances: the trace by the small Gram matrices, ||A^T B||_* with A, B the centred sets."""
    a, b = gaussian(12, 90, 0), gaussian(7, 90, 1)
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    common = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    expected = np.square(a.mean(0) - b.mean(0)).sum() + sum(np.square(x).sum() for x in centred) - 2 * common
    assert frechet_distance(FeatureSums.of(a), FeatureSums.of(b)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("count", "dimensions"), [(30, 6), (20, 300), (2, 5)])
def test_a_set_is_at_no_distance_from_itself_and_the_order_of_sides_does_not_matter(count, dimensions):
    a, b = FeatureSums.of(gaussian(count, dimensions, 0)), FeatureSums.of(gaussian(count, dimensions, 1))
    assert 0 <= frechet_distance(a, a) < 1e-10 * np.trace(a.covariance)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_sets_without_any_variance():
    a, b = np.zeros((4, 3)), np.ones((3, 3))
    assert frechet_distance(FeatureSums.of(a), FeatureSums.of(b)) == pytest.approx(3.0)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(1, 5))
def test_sums_of_parts_are_those_of_the_whole(sizes, dimensions):
    features = gaussian(sum(sizes), dimensions, 3)
    parts = np.split(features, np.cumsum(sizes)[:-1])
    total = FeatureSums.of(parts[0])
    for part in parts[1:]:
        total = total + FeatureSums.of(part)
    whole = FeatureSums.of(features)
    assert total.count == whole.count == len(features)
    np.testing.assert_allclose(total.sum, whole.sum, atol=1e-9)
    np.testing.assert_allclose(total.outer, whole.outer, atol=1e-9)
    if len(features) > 1:
        np.testing.assert_allclose(total.mean, features.mean(0), atol=1e-9)
        np.testing.assert_allclose(total.covariance, np.cov(features, rowvar=False).reshape(dimensions, -1), atol=1e-9)


def test_sums_travel_and_come_back_bit_for_bit():
    sums = FeatureSums.of(gaussian(9, 4, 0))
    arrays = sums.to_arrays("texture.real") | {"other": np.zeros(2)}
    assert check_arrays(sums.to_arrays("texture.real")) == 8 + 4 * 8 + 10 * 8
    again = FeatureSums.from_arrays(arrays, "texture.real")
    assert again.count == 9
    np.testing.assert_array_equal(again.sum, sums.sum)
    np.testing.assert_array_equal(again.outer, sums.outer)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"r.sum": None}, "'r.sum' is missing"),
        ({"r.sum": np.zeros(3)}, r"sum float64 \(3,\)"),
        ({"r.count": np.array(-1)}, "are not sums of features"),
        ({"r.count": np.array([9])}, r"count int64 \(1,\)"),
        ({"r.outer": np.zeros(10, np.float16)}, "outer float16"),
    ],
)
def test_arrays_that_are_not_sums(change, text):
    arrays = FeatureSums.of(gaussian(9, 4, 0)).to_arrays("r") | change
    with pytest.raises(ValueError, match=text):
        FeatureSums.from_arrays({name: array for name, array in arrays.items() if array is not None}, "r")


def test_refusals():
    one, two, wide = (FeatureSums.of(gaussian(n, d, 0)) for n, d in ((1, 4), (2, 4), (2, 5)))
    for call in (lambda: frechet_distance(one, two), lambda: frechet_distance(two, one)):
        with pytest.raises(ValueError, match="at least 2 images on each side; one has 1"):
            call()
    with pytest.raises(ValueError, match="4 and of 5 dimensions"):
        frechet_distance(two, wide)
    with pytest.raises(ValueError, match="4 and of 5 dimensions"):
        two + wide
    with pytest.raises(ValueError, match="at least 2 images"):
        _ = one.covariance
    with pytest.raises(ValueError, match="at least 1 image"):
        _ = FeatureSums.of(np.zeros((0, 4))).mean
    with pytest.raises(ValueError, match="NaN"):
        FeatureSums.of(np.array([[np.nan]]))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        FeatureSums.of(np.zeros(3))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 5))
def test_halves_keep_patients_together_and_are_about_equal(patients, seed):
    patients = np.array([f"P{patient}" for patient in patients])
    first = split_in_halves(patients, seed)
    assert not set(patients[first]) & set(patients[~first])
    largest = np.unique(patients, return_counts=True)[1].max()
    assert abs(int(first.sum()) - int((~first).sum())) <= largest


def test_halves_depend_on_the_seed_alone():
    patients = np.repeat(np.arange(40), 2)
    first = split_in_halves(patients, 0)
    assert (split_in_halves(patients, 0) == first).all() and (split_in_halves(patients, 1) != first).any()
    assert first.sum() == 40


def test_the_floor_falls_with_the_number_of_images_and_is_too_low_with_a_patient_on_both_sides():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(300), 4)
    features = np.repeat(rng.normal(size=(300, 6)), 4, axis=0) + 0.1 * rng.normal(size=(1200, 6))

    def floor(count, first):
        return half_split_floor(FeatureSums.of(features[:count][first]), FeatureSums.of(features[:count][~first]))

    few, many = (floor(n, split_in_halves(patients[:n], 0)) for n in (120, 1200))
    assert few > 4 * many
    assert floor(1200, np.arange(1200) % 2 == 0) < many / 4
