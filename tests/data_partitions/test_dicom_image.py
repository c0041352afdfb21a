"""Windows of DICOM files against the whole picture made by the transforms; bodies, digests, and files that change."""

from itertools import product

import numpy as np
import pydicom
import pytest
from dicom_files import read_dicom, write_dicom
from PIL import Image
from pydicom.uid import RLELossless
from test_dicom import table

from data_partitions.errors import BadFile
from data_partitions.exams import Box
from data_partitions.reading import dicom
from data_partitions.reading.body import body_mask
from data_partitions.reading.dicom_image import SAMPLED, DicomImage
from data_partitions.reading.looks import inspect

RNG = np.random.default_rng(0)
SHAPE = (275, 52)  # neither side is a multiple of a band or of a step
WORDS = RNG.integers(0, 4096, SHAPE).astype(np.uint16)
SHOWN = {
    "own range": {},
    "window": {"WindowCenter": 2000, "WindowWidth": 1500},
    "sigmoid": {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
    "rescaled": {"RescaleSlope": -2, "RescaleIntercept": 100},
    "rescaled window": {"RescaleSlope": 0.5, "RescaleIntercept": -7, "WindowCenter": 900, "WindowWidth": 1900},
    "table": {"VOILUTSequence": table(0, np.linspace(0, 1, 4096) ** 2 * 65535, "voi")},
    "modality table": {"ModalityLUTSequence": table(0, np.abs(np.linspace(-1, 1, 4096)) * 9000 + 50, "modality")},
}
STORED = {
    "unsigned 12 of 16": (WORDS, {"BitsStored": 12, "HighBit": 11}),
    "unsigned 16": (WORDS * 15, {}),
    "signed 16": (WORDS.astype(np.int16) - 2000, {}),
    "signed 13 of 16": ((WORDS.astype(np.int16) - 2000) & 0x1FFF, {"BitsStored": 13, "HighBit": 12}),
    "unsigned 12 and junk above": (WORDS | 0xA000, {"BitsStored": 12, "HighBit": 11}),
    "bytes": ((WORDS >> 4).astype(np.uint8), {"RescaleSlope": 16, "RescaleIntercept": 0}),
}


@pytest.mark.parametrize(("stored", "shown"), list(product(STORED, SHOWN)))
def test_windows_are_parts_of_the_picture(tmp_path, stored, shown):
    pixels, tags = STORED[stored]
    kind = ("MONOCHROME1", "MONOCHROME2")[len(shown) % 2]
    path = write_dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation=kind, **(tags | SHOWN[shown]))
    picture, image = read_dicom(path).levels(np.dtype(np.uint8)), DicomImage(path)
    assert image.shape == SHAPE and image.whole().dtype == np.uint8
    assert (image.whole()[..., 0] == picture).all() and len(np.unique(picture)) > 3
    assert (image.window(Box(3, 5, 70, 50))[..., 0] == picture[3:70, 5:50]).all()


def test_uncompressed_files_are_never_decoded_whole(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", WORDS, **SHOWN["window"])
    picture = read_dicom(path).levels(np.dtype(np.uint8))
    monkeypatch.setattr(dicom, "stored_values", lambda _: pytest.fail("decoded"))
    assert (DicomImage(path).window(Box(0, 0, 9, 9))[..., 0] == picture[:9, :9]).all()


def rle(path, **tags):
    """The same picture, compressed."""
    dataset = pydicom.dcmread(write_dicom(path, WORDS, **tags))
    dataset.compress(RLELossless)
    dataset.save_as(path)
    return path


def implicit(path, **tags):
    dataset = pydicom.dcmread(write_dicom(path, WORDS, **tags))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    return path


def big_endian(path, **tags):
    dataset = pydicom.dcmread(write_dicom(path, WORDS.byteswap(), **tags))
    swapped = pydicom.Dataset()
    swapped.update(dataset)
    swapped.file_meta = dataset.file_meta
    swapped.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    pydicom.dcmwrite(path, swapped, implicit_vr=False, little_endian=False, enforce_file_format=True)
    return path


@pytest.mark.parametrize("kind", [rle, implicit, big_endian])
@pytest.mark.parametrize("shown", ["own range", "window"])
def test_other_encodings_are_the_same_image(tmp_path, kind, shown):
    plain, other = (
        DicomImage(make(tmp_path / name, **SHOWN[shown]))
        for make, name in ((lambda path, **tags: write_dicom(path, WORDS, **tags), "a.dcm"), (kind, "b.dcm"))
    )
    assert (plain.whole() == other.whole()).all()
    assert plain.sample_digest() == other.sample_digest() and plain.digest() == other.digest()
    assert (plain.tissue(8) == other.tissue(8)).all()


def test_pixels_of_32_bits_are_shown_over_their_range(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", WORDS.astype(np.uint32) * 70000)
    assert (DicomImage(path).whole()[..., 0] == np.rint(WORDS / WORDS.max() * 255)).mean() > 0.999


# --- the body


@pytest.mark.parametrize("step", [1, 4, 8])
@pytest.mark.parametrize("shape", [(320, 256), (325, 251)])
def test_the_body_is_found_as_on_the_picture(tmp_path, step, shape):
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    disc = np.hypot(y - 150, x) < 120
    pixels = np.where(disc, 2500, 50) + np.random.default_rng(1).integers(0, 400, shape)
    path = write_dicom(tmp_path / "a.dcm", pixels.astype(np.uint16), WindowCenter=1500, WindowWidth=3000)
    picture = Image.fromarray(read_dicom(path).levels(np.dtype(np.uint8))).reduce(step)
    mask, oracle = DicomImage(path).tissue(step), body_mask(np.asarray(picture))
    assert mask.shape == oracle.shape and mask.dtype == bool and 0.2 < mask.mean() < 0.4
    assert (mask ^ oracle).mean() <= (0 if step == 1 else 0.002 * step)
    assert DicomImage(path, dark_background=False).tissue(step).all()


# --- digests


def test_images_that_agree_where_they_are_sampled_are_told_apart(tmp_path):
    other = WORDS.copy()
    other[len(WORDS) // SAMPLED - 1, 5] ^= 1
    files = [write_dicom(tmp_path / f"{i}.dcm", pixels) for i, pixels in enumerate([WORDS, other, WORDS, WORDS * 2])]
    assert len({DicomImage(file).sample_digest() for file in files}) == 2
    for _ in range(2):  # looked at, then remembered
        first, second, third, fourth = (look.digest for look in inspect(files, tmp_path / "cache"))
        assert first == third and len({first, second, fourth}) == 3


# --- files that change


def test_a_file_that_grows_shorter_meanwhile_is_an_error(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", WORDS, **SHOWN["window"])
    image = DicomImage(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert image.window(Box(0, 0, 30, 30)).any()
    with pytest.raises(BadFile, match="ends before its row 275; copy the file again"):
        image.whole()


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("shown", SHOWN)
def test_deep_windows_show_the_same_with_more_levels(tmp_path, stored, shown):
    pixels, header = STORED[stored]
    path = write_dicom(tmp_path / "a.dcm", pixels, **(header | SHOWN[shown]))
    image, box = DicomImage(path), Box(3, 5, 70, 50)
    expected = np.rint(read_dicom(path).shown.astype(np.float64) * 65535)[3:70, 5:50]
    deep = image.deep_window(box)[..., 0]
    assert deep.dtype == np.uint16 and np.abs(deep - expected).max() <= 1  # float32 has 24 bits
    assert np.abs(deep / 257 - image.window(box)[..., 0]).max() <= 0.51


def test_a_deep_window_of_values_that_no_table_holds(tmp_path):
    pixels = (WORDS.astype(np.uint32) << 12) + 7
    path = write_dicom(tmp_path / "a.dcm", pixels, BitsAllocated=32, BitsStored=32, HighBit=31)
    image, box = DicomImage(path), Box(0, 0, 40, 50)
    assert len(np.unique(image.deep_window(box))) > len(np.unique(image.window(box))) == 256
    assert np.abs(image.deep_window(box) / 257 - image.window(box)).max() <= 0.51
