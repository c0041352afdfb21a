"""What the pixels of pictures mean: orientation of TIFF, white as 0, deep colours, a transparent level; and what is no file."""

import os

import numpy as np
import pytest
from dicom_files import write_dicom
from pictures import deep_png
from PIL import Image

from data_partitions import Box
from data_partitions.errors import BadFile
from data_partitions.reading.folders import files_below
from data_partitions.reading.image_files import TURNS, is_dicom, kind_of, open_image, read_image, shape_of
from data_partitions.reading.limits import DEFAULT
from data_partitions.reading.looks import inspect
from data_partitions.reading.opening import read_bytes

RAMP = np.arange(60 * 40, dtype=np.uint16).reshape(60, 40)  # values of 12 bits
SHOWN = np.rint(RAMP / RAMP.max() * 255).astype(np.uint8)


def facts(path):
    return set(inspect([path], None)[0].facts)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(tmp_path, orientation, compression):
    for pixels in (SHOWN, RAMP):
        stored = Image.fromarray(pixels)
        stored.save(tmp_path / "a.tif", tiffinfo={274: orientation}, compression=compression)
        upright = np.asarray(stored.transpose(TURNS[orientation]) if orientation in TURNS else stored)
        expected = upright if pixels is SHOWN else np.rint(upright / RAMP.max() * 255)
        assert shape_of(tmp_path / "a.tif", DEFAULT) == upright.shape
        assert (read_image(tmp_path / "a.tif")[..., 0] == expected).all()
        assert facts(tmp_path / "a.tif") == ({"turned"} if orientation in TURNS else set())


def white_as_0(path, pixels):
    """As Pillow writes it, with its values as they are and another number for what they mean."""
    Image.fromarray(pixels).save(path)
    data = bytearray(path.read_bytes())
    first = int.from_bytes(data[4:8], "little")
    for entry in range(first + 2, first + 2 + 12 * int.from_bytes(data[first : first + 2], "little"), 12):
        if int.from_bytes(data[entry : entry + 2], "little") == 262:
            data[entry + 8 : entry + 10] = b"\0\0"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("pixels", [SHOWN, RAMP, RAMP.astype(np.float32) / 7])
def test_where_0_is_white_low_values_are_bright_at_every_depth(tmp_path, pixels):
    found = read_image(white_as_0(tmp_path / "a.tif", pixels))[..., 0].astype(int)
    assert np.abs(found - (255 - SHOWN.astype(int))).max() <= 1
    deep = open_image(tmp_path / "a.tif", dark_background=False).deep_window(Box(0, 0, 60, 40))
    assert deep[0, 0, 0] == 65535 and deep[-1, -1, 0] == 0


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_deep_colours_are_cut_to_8_bits_and_counted_or_a_fault(tmp_path, channels):
    alpha = [np.full_like(RAMP, 65535)] * (1 - channels % 2)
    full = np.stack([RAMP * 27] * (channels - len(alpha)) + alpha, axis=2)
    path = deep_png(tmp_path / "a.png", full)
    assert (read_image(path) == (RAMP * 27 >> 8)[..., None]).all() and "deep_colours" in facts(path)
    twelve = np.stack([RAMP] * (channels - len(alpha)) + alpha, axis=2)
    assert "16 bits a channel, of which it uses fewer" in inspect([deep_png(tmp_path / "b.png", twelve)], None)[0].text
    assert facts(deep_png(tmp_path / "c.png", RAMP)) == set()


def test_a_transparent_level_of_deep_grey_is_black_and_keeps_the_range(tmp_path):
    pixels = RAMP + 500
    pixels[:5] = 60000
    path = deep_png(tmp_path / "a.png", pixels, transparent=(60000,))
    low, high = int(pixels[5:].min()), int(pixels[5:].max())
    found = read_image(path)[..., 0]
    assert (found[:5] == 0).all() and facts(path) == {"transparent"}
    assert (found[5:] == np.rint((pixels[5:] - low) * (255 / (high - low)))).all()
    assert facts(deep_png(tmp_path / "b.png", pixels, transparent=(7,))) == set()


def test_pictures_of_one_bit_are_black_and_white_at_every_depth(tmp_path):
    mask = SHOWN > 100
    np.save(tmp_path / "a.npy", mask)
    Image.fromarray(mask).save(tmp_path / "a.png")
    for path in (tmp_path / "a.npy", tmp_path / "a.png"):
        assert (read_image(path)[..., 0] == mask * 255).all()
        deep = open_image(path, dark_background=False).deep_window(Box(0, 0, 60, 40))[..., 0]
        assert (deep == mask * 65535).all()


# --- what a file is


@pytest.mark.parametrize("name", ["scan", "1.2.840.113.5", "IM.img", "IM.png"])
@pytest.mark.parametrize("part", ["preamble", "meta", "data set"])
def test_dicom_is_known_by_its_content_whatever_its_name(tmp_path, name, part):
    data = write_dicom(tmp_path / "a.dcm", RAMP).read_bytes()
    start = {"preamble": 0, "meta": 132, "data set": data.index(b"\x08\x00\x16\x00UI")}[part]
    (tmp_path / name).write_bytes(data[start:])
    assert is_dicom(tmp_path / name) and not inspect([tmp_path / name], None)[0].code


@pytest.mark.parametrize("data", [b"\x02\0\0\0\x04\0\0\0table of numbers", b"\x08\0\0\1AB", b"image,patient_id\n", b""])
def test_other_files_are_no_dicom(tmp_path, data):
    (tmp_path / "a.5").write_bytes(data)
    assert not is_dicom(tmp_path / "a.5")


def test_pipes_and_links_that_lead_nowhere_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    Image.fromarray(SHOWN).save(tmp_path / "a.png")
    assert files_below(tmp_path) == [tmp_path / "a.png"]
    for read in (kind_of, lambda path: read_bytes(path, DEFAULT)):
        with pytest.raises(BadFile, match="is a folder, a pipe or a device and no file"):
            read(tmp_path / "pipe.png")
