"""DICOM pixels: each transform in closed form or against pydicom's own, and files that cannot be used."""

import types

import numpy as np
import pydicom
import pytest
from dicom_files import read_dicom, write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut
from pydicom.sequence import Sequence

from data_partitions import DataError
from data_partitions.archives.folder import FolderSource
from data_partitions.errors import BadFile
from data_partitions.reading import dicom
from data_partitions.reading.dicom import read_header
from data_partitions.reading.image_files import read_image
from data_partitions.reading.looks import looks

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def refused(path) -> BadFile:
    with pytest.raises(BadFile) as error:
        read_dicom(path)
    return error.value


# --- what is shown


def test_deep_values_are_kept_and_shown_over_their_own_range_without_a_window(tmp_path):
    picture = read_dicom(write_dicom(tmp_path / "a.dcm", RAMP, BitsStored=12, HighBit=11))
    assert picture.values.dtype == np.uint16 and (picture.values == RAMP).all()
    np.testing.assert_allclose(picture.shown, RAMP / 4095, atol=1e-6)
    assert picture.levels(np.dtype(np.uint8)).dtype == np.uint8
    assert (read_image(tmp_path / "a.dcm")[..., 0] == np.rint(RAMP / 4095 * 255)).all()


def test_monochrome1_is_turned_over(tmp_path):
    plain, inverse = (
        read_dicom(write_dicom(tmp_path / f"{kind}.dcm", RAMP, PhotometricInterpretation=kind)).shown
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    np.testing.assert_allclose(plain + inverse, 1, atol=1e-6)
    assert plain[0, 0] == 0 and inverse[0, 0] == 1


@given(
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]), st.floats(20, 9000), st.floats(-500, 5000),
    st.floats(0.1, 4), st.floats(-1000, 1000),
)  # fmt: skip
@settings(max_examples=60)
def test_windows_are_those_of_pydicom(function, width, centre, slope, intercept):
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.PixelRepresentation, dataset.BitsStored = "MONOCHROME2", 0, 12
    dataset.WindowWidth, dataset.WindowCenter, dataset.VOILUTFunction = width, centre, function
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    values = dicom.rescaled(RAMP, dataset)
    np.testing.assert_allclose(
        values, RAMP * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept), rtol=1e-4, atol=1e-2
    )
    low = float(dataset.RescaleIntercept)
    oracle = (apply_voi_lut(values, dataset) - low) / (4095 * float(dataset.RescaleSlope))
    np.testing.assert_allclose(dicom._shown(values, dataset), oracle, atol=2e-3)


def test_a_window_as_in_the_standards_own_example(tmp_path):
    """PS3.3 C.11.2.1.2.1: centre 2048, width 4096 shows 0 as 0 and 4095 as 1; centre 100, width 1 is a threshold."""
    whole = read_dicom(write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=2048, WindowWidth=4096)).shown
    np.testing.assert_allclose(whole, RAMP / 4095, atol=1e-6)
    narrow = read_dicom(write_dicom(tmp_path / "b.dcm", RAMP, WindowCenter=[100, 7], WindowWidth=[2, 3])).shown
    assert (narrow == (RAMP >= 100)).all()
    unusable = read_dicom(write_dicom(tmp_path / "c.dcm", RAMP, WindowCenter=100, WindowWidth=0)).shown
    np.testing.assert_allclose(unusable, RAMP / 4095, atol=1e-6)


def test_rescale_and_signed_values(tmp_path):
    signed = RAMP.astype(np.int16) - 1000
    picture = read_dicom(write_dicom(tmp_path / "a.dcm", signed, RescaleSlope=2, RescaleIntercept=-24))
    assert picture.values.dtype == np.float32
    np.testing.assert_allclose(picture.values, signed * 2.0 - 24)
    assert read_dicom(write_dicom(tmp_path / "b.dcm", signed)).values.min() == -1000


def table(first: int, entries: np.ndarray, name: str) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, 16]
    item.LUTData = entries.astype(np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    if name == "modality":
        item.ModalityLUTType = "OD"
    return Sequence([item])


def test_tables_are_looked_up(tmp_path):
    """A table wins over a window that is also there."""
    square = np.rint(np.linspace(0, 1, 4096) ** 2 * 65535)
    path = write_dicom(
        tmp_path / "a.dcm", RAMP, VOILUTSequence=table(0, square, "voi"), WindowCenter=10, WindowWidth=10
    )
    np.testing.assert_allclose(read_dicom(path).shown.ravel(), square / 65535, atol=1e-6)
    path = write_dicom(tmp_path / "b.dcm", RAMP, ModalityLUTSequence=table(0, square, "modality"))
    np.testing.assert_allclose(read_dicom(path).values.ravel(), square)


# --- the header


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({"PixelSpacing": [0.07, 0.07], "ImagerPixelSpacing": [0.1, 0.1]}, 0.07), ({"ImagerPixelSpacing": [0.1, 0.1]}, 0.1),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.05, 0.05]}, 0.05), ({"PixelSpacing": [0.1, 0.2]}, None), ({}, None),
    ],
)  # fmt: skip
def test_pixel_spacing(tmp_path, tags, spacing):
    assert read_header(write_dicom(tmp_path / "a.dcm", RAMP, **tags)).spacing_mm == spacing


@pytest.mark.parametrize(
    ("text", "years"), [("059Y", 59), ("018M", 1.5), ("026W", 0.5), ("0365", None), ("", None), ("Y", None)]
)
def test_age(text, years):
    assert dicom._age(text) == years


def test_missing_tags_and_burnt_in_text_are_no_fault(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm", RAMP, ("PhotometricInterpretation", "SamplesPerPixel", "Modality", "PixelRepresentation"),
        BurnedInAnnotation="YES", Manufacturer="", WindowCenter="",
    )  # fmt: skip
    picture = read_dicom(path)
    assert picture.header.photometric == "MONOCHROME2" and picture.header.scanner == ""
    assert (picture.values == RAMP).all()


def test_a_file_without_preamble_and_transfer_syntax(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP, ViewPosition="CC")
    dataset = pydicom.dcmread(path)
    bare = Dataset()
    bare.update(dataset)
    pydicom.dcmwrite(tmp_path / "b.dcm", bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert not (tmp_path / "b.dcm").read_bytes().startswith(b"\0" * 128)
    picture = read_dicom(tmp_path / "b.dcm")
    assert (picture.values == RAMP).all() and picture.header.view == "CC"


# --- what cannot be used


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, share):
    whole = write_dicom(tmp_path / "a.dcm", RAMP).read_bytes()
    (tmp_path / "a.dcm").write_bytes(whole[: int(share * len(whole))])
    error = refused(tmp_path / "a.dcm")
    assert error.code == "bad_image" and "copy" in str(error) and "\n" not in str(error)


def test_other_files_colour_and_frames_are_refused(tmp_path):
    (tmp_path / "a.dcm").write_text("image,label\n" * 40)
    assert refused(tmp_path / "a.dcm").code == "bad_image"
    colour = np.zeros((8, 8, 3), np.uint8)
    path = write_dicom(
        tmp_path / "b.dcm", colour, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0
    )
    assert refused(path).code == "bad_photometric" and "'RGB'" in str(refused(path))
    stack = np.zeros((2, 8 * 8), np.uint8)
    path = write_dicom(tmp_path / "c.dcm", stack, Rows=8, Columns=8, NumberOfFrames=2)
    assert "2 frames" in str(refused(path))


def test_a_missing_decoder_names_the_extra_and_is_not_remembered(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    monkeypatch.setattr(dicom, "get_decoder", lambda syntax: types.SimpleNamespace(is_available=False))
    assert "pip install 'polycentre[dicom-codecs]'" in str(refused(path))
    (tmp_path / "metadata.csv").write_text("image,patient_id\na.dcm,p\n")
    with pytest.raises(DataError, match="dicom-codecs") as error:
        FolderSource(path=tmp_path).load("A", 0, tmp_path / "cache")
    assert error.value.code == "missing_decoder"
    monkeypatch.undo()
    assert len(FolderSource(path=tmp_path).load("A", 0, tmp_path / "cache").exams) == 1


def test_a_folder_of_dicom_files_brings_spacing_and_scanner(tmp_path):
    write_dicom(
        tmp_path / "a.dcm", RAMP, ImagerPixelSpacing=[0.07, 0.07], Manufacturer="X", ManufacturerModelName="Y 1"
    )
    (tmp_path / "metadata.csv").write_text("image,patient_id\na.dcm,p\n")
    for _ in range(2):  # read, then remembered
        (exam,) = FolderSource(path=tmp_path).load("A", 0, tmp_path / "cache").exams
        assert (exam.shape, exam.spacing_mm, exam.scanner) == ((64, 64), 0.07, "X Y 1")


def test_what_was_seen_is_remembered_until_a_file_changes(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(RAMP.astype(np.uint8)).save(file)
    seen = []

    def look(path, limits):
        seen.append(path)
        return (len(seen),)

    answers = [looks([file], tmp_path / "cache", "test", look, lambda n: (n,)) for _ in range(2)]
    assert answers == [[(1,)], [(1,)]] and len(seen) == 1
    file.write_bytes(file.read_bytes() + b"\0")
    assert looks([file], tmp_path / "cache", "test", look, lambda n: (n,)) == [(2,)]


# --- real files, where they are at hand


def test_real_files(real_images):
    folder = real_images / "format_samples" / "dicom"
    if not folder.is_dir():
        pytest.skip(f"no DICOM samples at {folder}")
    chest = read_dicom(folder / "CR-MONOCHROME1-10bit-chest.dcm")
    assert chest.values.shape == (440, 440) and chest.values.max() == 979
    # MONOCHROME1: the air around the body, stored high, is shown dark.
    stored_high = chest.values > np.quantile(chest.values, 0.9)
    assert chest.shown[stored_high].mean() < 0.3 < chest.shown[~stored_high].mean()
    pattern = read_dicom(folder / "MG_Explicit_Little.dcm")
    assert pattern.header.spacing_mm == 0.25 and pattern.header.laterality == "R"


@pytest.mark.parametrize(
    ("name", "shape", "plugin"),
    [("JPGLosslessP14SV1_1s_1f_8b.dcm", (768, 1024), "libjpeg"), ("RG1_J2KI.dcm", (1955, 1841), "openjpeg")],
)
def test_real_compressed_files(real_images, name, shape, plugin):
    path = real_images / "format_samples" / "dicom" / name
    if not path.is_file():
        pytest.skip(f"no DICOM sample {path}")
    pytest.importorskip(plugin)
    picture = read_dicom(path)
    assert picture.values.shape == shape and picture.header.spacing_mm is None
    assert 0 <= picture.shown.min() < picture.shown.max() <= 1
