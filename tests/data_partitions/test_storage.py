"""Patches of 16 bits: the same pictures with more levels, from every way to open an image to the file of patches."""

import numpy as np
import pytest
from PIL import Image as PillowImage

from basics.image_shape import ImageShape
from data_partitions import PatchTask, SplitRule, build_patches
from data_partitions.exams import Box, stored_window
from data_partitions.phantom.phantom import PhantomSource
from data_partitions.reading.image_files import open_image
from data_partitions.resizing import resized

WINDOW = Box(2, 3, 20, 30)


def built(storage, tmp_path, **keys):
    task = PatchTask(storage=storage, margin_mm=6, crops=1, image_size=[40, 32], **keys)
    return build_patches(PhantomSource(patients=6), task, SplitRule(), centre="A", seed=1, cache=tmp_path)


@pytest.mark.parametrize(
    "keys", [{}, {"preprocess": ["flip_to_left", {"fit": {"height": 600, "width": 450}}, "segment_breast"]}]
)
def test_the_phantom_in_16_bits_is_the_phantom(tmp_path, keys):
    plain, deep = built("uint8", tmp_path, **keys), built("uint16", tmp_path, **keys)
    assert plain.pixels.dtype == np.uint8 and deep.pixels.dtype == np.uint16 and plain.pixels.shape == deep.pixels.shape
    # Rounded at the other places of resizing: never more than three of 256 levels.
    assert np.abs(deep.pixels / 257 - plain.pixels).max() <= 3
    assert len(np.unique(deep.pixels)) > 2000
    np.testing.assert_array_equal(deep.labels, plain.labels)
    assert (
        np.abs(deep.float32() - plain.float32()).max() < 0.02
        and deep.float32().min() >= -1
        and deep.float32().max() <= 1
    )
    assert deep.digest(b"k") != plain.digest(b"k")


def test_files_of_256_levels_keep_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    PillowImage.fromarray(pixels).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png", dark_background=False)
    np.testing.assert_array_equal(stored_window(image, WINDOW, "uint16"), pixels[2:20, 3:30].astype(np.uint16) * 257)
    np.testing.assert_array_equal(stored_window(image, WINDOW, "uint8"), pixels[2:20, 3:30])


def test_deep_files_keep_their_levels(tmp_path):
    values = np.random.default_rng(0).integers(100, 5000, (40, 50), dtype=np.uint16)
    values[0, :2] = 100, 5000
    np.save(tmp_path / "a.npy", values)
    image = open_image(tmp_path / "a.npy", dark_background=False)
    deep = stored_window(image, Box(0, 0, 40, 50), "uint16")[..., 0]
    assert deep.min() == 0 and deep.max() == 65535
    assert len(np.unique(deep)) == len(np.unique(values))
    assert len(np.unique(stored_window(image, Box(0, 0, 40, 50), "uint8"))) == 256


def test_an_image_without_deep_levels_gives_those_that_it_has():
    class Plain:
        def window(self, box):
            return np.full((box.height, box.width, 1), 200, np.uint8)

    assert (stored_window(Plain(), WINDOW, "uint16") == 200 * 257).all()


def test_colour_becomes_the_same_luminance():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    plain = resized(pixels, ImageShape(1, 32, 24))
    deep = resized(pixels.astype(np.uint16) * 257, ImageShape(1, 32, 24))
    assert deep.shape == plain.shape == (1, 32, 24) and np.abs(deep / 257 - plain).max() < 1.6
