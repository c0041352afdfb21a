"""Same pictures: copies that were saved again are found, different pictures are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from data_partitions.near_duplicates import fingerprint_of, same_pictures


def picture(seed: int, size: int = 160) -> Image.Image:
    """Smooth blobs, so that all pictures are alike in kind."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return coarse.resize((size, size - 30), Image.Resampling.BICUBIC)


def saved_again(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


CHANGES = {
    "saved again": saved_again,
    "smaller": lambda image: image.resize((96, 78), Image.Resampling.BILINEAR),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "grey": lambda image: image.convert("L"),
}


def prints(images):
    arrays = [np.asarray(image) for image in images]
    return [fingerprint_of(a[..., None] if a.ndim == 2 else a) for a in arrays]


@pytest.mark.parametrize("change", CHANGES)
def test_near_copies_are_found_and_other_pictures_are_not(change):
    originals = [picture(seed) for seed in range(30)]
    changed = [CHANGES[change](image) for image in originals]
    pairs = same_pictures(prints(originals + changed))
    assert {(p.first, p.second) for p in pairs} == {(i, 30 + i) for i in range(30)}
    assert not any(p.exact for p in pairs) and all(p.correlation > 0.96 for p in pairs)


def test_exact_copies_are_one_pair_each_with_the_first():
    images = [picture(0), picture(1), picture(0), picture(2), picture(0)]
    assert [p[:3] for p in same_pictures(prints(images)) if p.exact] == [(0, 2, True), (0, 4, True)]


def test_flat_images_are_not_alike():
    flat = [Image.new("L", (50, 50), grey) for grey in (3, 90, 91)]
    assert same_pictures(prints(flat)) == [] == same_pictures([])


def test_photographs_of_different_lesions_are_told_apart(real_images):
    folder = real_images / "dermatology_ham10000_200x150" / "images"
    files = sorted(folder.glob("*.jpg"))[:150]
    assert len(files) == 150
    pairs = same_pictures(prints(Image.open(file) for file in files))
    assert pairs == []
