"""Sliced Wasserstein distance: closed forms, the pyramid, and what it sees."""

import math

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from metrics.sliced_wasserstein import distance_of_projections, laplacian_pyramid, sliced_wasserstein


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(n=40, channels=1, size=(32, 32), seed=0):
    return rng(seed).integers(0, 256, (n, channels, *size), dtype=np.uint8)


def test_equal_sets_have_distance_zero():
    images = noise(channels=3, size=(40, 32))
    found = sliced_wasserstein(images, images.copy(), rng())
    assert found == {(40, 32): 0.0, (20, 16): 0.0}
    assert sliced_wasserstein(images, images.copy(), rng(1)) == found


def test_points_in_another_order_have_distance_zero():
    points = rng().standard_normal((500, 6))
    assert distance_of_projections(points, rng(1).permutation(points), rng(2)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dimensions", [2, 49])
def test_a_shifted_gaussian(dimensions):
    """|v| E|cos|, where E|cos| = Gamma(d / 2) / (sqrt(pi) Gamma((d + 1) / 2)); the points themselves do not matter."""
    points, shift = rng().standard_normal((2000, dimensions)), rng(1).standard_normal(dimensions)
    expected = np.linalg.norm(shift) * math.exp(math.lgamma(dimensions / 2) - math.lgamma((dimensions + 1) / 2))
    expected /= math.sqrt(math.pi)
    assert distance_of_projections(points, points + shift, rng(2)) == pytest.approx(expected, rel=0.08)
    assert distance_of_projections(points, points + 3 * shift, rng(2)) == pytest.approx(
        3 * distance_of_projections(points, points + shift, rng(2))
    )


def test_in_one_dimension_it_is_the_distance_of_scipy():
    ours, theirs = rng().standard_normal((300, 1)), 2 * rng(1).standard_normal((300, 1)) + 1
    assert distance_of_projections(ours, theirs, rng(2)) == pytest.approx(
        wasserstein_distance(ours[:, 0], theirs[:, 0])
    )


def test_levels_of_a_pyramid():
    images = rng().standard_normal((2, 3, 64, 40)).astype(np.float32)
    levels = laplacian_pyramid(images)
    assert [level.shape[2:] for level in levels] == [(64, 40), (32, 20)], "a further half would have 10 columns"
    flat = laplacian_pyramid(np.full((1, 1, 64, 64), 5.0))
    assert [level.shape[2:] for level in flat] == [(64, 64), (32, 32), (16, 16)]
    for level in flat[:-1]:
        assert np.abs(level).max() < 1e-6
    assert flat[-1] == pytest.approx(5), "what is the same everywhere is in the last level"


def smooth(images):
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(images.astype(float), (0, 0, 2, 2)).astype(np.uint8)


def test_it_sees_structure_at_its_resolution_and_collapse():
    real, again = noise(seed=1), noise(seed=2)
    floor = sliced_wasserstein(real, again, rng())
    blurred = sliced_wasserstein(real, smooth(again), rng())
    assert all(blurred[size] > 3 * floor[size] for size in floor)
    mixed = np.concatenate([real[:20], smooth(real[20:])])
    same = sliced_wasserstein(mixed, np.concatenate([again[:20], smooth(again[20:])]), rng())
    collapsed = sliced_wasserstein(mixed, np.repeat(again[:1], len(mixed), axis=0), rng())
    assert all(collapsed[size] > 3 * same[size] for size in floor)


def test_a_set_s_own_mean_and_contrast_go_unseen():
    real, again = noise(seed=1) // 2, noise(seed=2) // 2
    ours, theirs = sliced_wasserstein(real, again, rng()), sliced_wasserstein(real, again + 50, rng())
    assert ours == pytest.approx(theirs, rel=1e-2)


@pytest.mark.parametrize("other", [noise(39), noise(channels=3), noise(size=(32, 16)), noise().astype(np.uint16)])
def test_sets_that_cannot_be_compared_are_refused(other):
    with pytest.raises(ValueError, match="cannot be compared; give equally many images of one shape and type"):
        sliced_wasserstein(noise(), other, rng())
