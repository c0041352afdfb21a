"""The body's mask: its morphology against scipy's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from data_partitions.reading import body

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14))


@given(MASKS)
@settings(max_examples=60)
def test_morphology_is_that_of_scipy(mask):
    assert (body._opened(mask) == ndimage.binary_opening(mask, iterations=2)).all()
    assert (body._filled(mask) == ndimage.binary_fill_holes(mask)).all()


@given(st.integers(8, 12), st.integers(0, 8))
@settings(max_examples=20)
def test_the_largest_bright_area_without_its_holes_and_thin_bridges(radius, seed):
    y, x = np.mgrid[0:60, 0:60]
    disc = np.hypot(y - 25, x - 20) <= radius
    grey = np.where(disc, 180.0, 5.0) + np.random.default_rng(seed).uniform(0, 3, disc.shape)
    grey[25, 20] = 5  # a hole
    grey[50:56, 45:56] = 250  # a label
    grey[25, 20 + radius : 45] = 180  # a scratch
    # Nothing but the disc's own four tips is cut off.
    assert (body.body_mask(grey.astype(np.uint8)) ^ disc).sum() <= 12


@given(arrays(np.uint8, (6, 6)))
@settings(max_examples=60)
def test_the_threshold_is_one_that_parts_the_greys_best(grey):
    values = np.sqrt(grey.ravel().astype(float))
    chosen = body._otsu(np.bincount(grey.ravel(), minlength=256))

    def within(threshold):
        """Variance within the two classes, of which none is empty."""
        dark = grey.ravel() <= threshold
        return sum(part.var() * part.size for part in (values[dark], values[~dark])) if 0 < dark.sum() < 36 else np.inf

    best = min(within(threshold) for threshold in range(256))
    assert within(chosen) <= best + 1e-9 or len(np.unique(grey)) == 1


def test_an_image_of_one_grey_has_no_body():
    assert not body.body_mask(np.full((20, 20), 90, np.uint8)).any()
