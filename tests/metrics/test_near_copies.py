"""Near copies of training images are told from images that are as unlike them as those of other patients."""

import numpy as np
import pytest

from metrics.near_copies import NearCopies, near_copies

SHAPE = (1, 32, 48)


def images_of(patients, each=3, seed=0, noise=0.4):
    """Images of patients: several of a patient are alike. (images, patients)."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(patients, *SHAPE))
    base = base.repeat(each, axis=0) + noise * rng.normal(size=(patients * each, *SHAPE))
    return (128 + 30 * base).clip(0, 255).astype(np.uint8), np.arange(patients).repeat(each)


REAL, PATIENTS = images_of(40)
RNG = np.random.default_rng(9)


def blurred(images):
    return (np.roll(images.astype(float), 1, axis=-1) + images).astype(float) / 2


@pytest.mark.parametrize(
    "copied",
    [
        lambda images: images,
        lambda images: images[..., ::-1],
        lambda images: images[..., ::-1, ::-1],
        lambda images: (images // 2 + 60).astype(np.uint8),
        lambda images: (images.astype(float) + RNG.normal(scale=15, size=images.shape)).clip(0, 255).astype(np.uint8),
        blurred,
        lambda images: images.astype(np.uint16) * 257,
    ],
)
def test_copies_are_found_however_they_are_mirrored_brightened_or_blurred(copied):
    found = near_copies(copied(REAL[::3]), REAL, PATIENTS)
    assert found == NearCopies(40, 40) and found.more_than(0.05)


def test_images_of_other_patients_are_none():
    others, _ = images_of(80, each=1, seed=5)
    found = near_copies(others, REAL, PATIENTS)
    assert found.images == 80 and not found.more_than(0.05)


def test_a_few_copies_among_many_are_within_the_margin_and_many_are_not():
    others, _ = images_of(120, each=1, seed=5)
    assert not near_copies(np.concatenate([others, REAL[:4]]), REAL, PATIENTS).more_than(0.05)
    assert near_copies(np.concatenate([others, REAL[::4]]), REAL, PATIENTS).more_than(0.05)


def test_of_one_patient_nothing_can_be_told_so_every_image_counts():
    assert near_copies(REAL[6:8], REAL[:3], PATIENTS[:3]) == NearCopies(2, 2)


def test_flat_images_are_none_and_no_images_are_fine():
    assert near_copies(np.full((4, *SHAPE), 7, np.uint8), REAL, PATIENTS).near == 0
    assert near_copies(REAL[:0], REAL, PATIENTS) == NearCopies(0, 0)
    assert not NearCopies(0, 0).more_than(0.0) and not NearCopies(9, 9).more_than(1.0)


def test_several_channels_and_small_images():
    rng = np.random.default_rng(3)
    real = rng.integers(0, 256, size=(30, 3, 8, 8), dtype=np.uint8)
    assert near_copies(real, real, np.arange(30)).near == 30
    assert near_copies(rng.integers(0, 256, size=(50, 3, 8, 8), dtype=np.uint8), real, np.arange(30)).near <= 5
