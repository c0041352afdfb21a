"""What stored bits mean: unused bits, padding, tables, magnification and sizes, by closed forms and by other readers."""

import numpy as np
import pydicom
import pytest
from dicom_files import write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, RLELossless
from test_dicom import table

from data_partitions import Box, DataError
from data_partitions.archives.folder import FolderSource
from data_partitions.errors import BadFile
from data_partitions.reading import dicom
from data_partitions.reading.dicom import read_header
from data_partitions.reading.dicom_bits import Bits, without_unused_bits
from data_partitions.reading.dicom_image import DicomImage
from data_partitions.reading.limits import Limits
from data_partitions.reading.looks import inspect

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
SHOWN = np.rint(RAMP / 4095 * 255).astype(np.uint8)


def shown(path):
    return DicomImage(path).whole()[..., 0]


def facts(path):
    return set(inspect([path], None)[0].facts)


# --- bits


@given(st.data())
@settings(max_examples=200)
def test_stored_bits_are_found_wherever_they_lie(data):
    allocated = data.draw(st.sampled_from([8, 16, 32]))
    stored = data.draw(st.integers(1, allocated))
    high = data.draw(st.integers(stored - 1, allocated - 1))
    signed = data.draw(st.booleans())
    least = -(2 ** (stored - 1)) if signed else 0
    values = data.draw(st.lists(st.integers(least, least + 2**stored - 1), min_size=1, max_size=9))
    junk = data.draw(st.integers(0, 2**allocated - 1))
    where = Bits(allocated, stored, high)
    mask = ((1 << stored) - 1) << where.below
    words = [(junk & ~mask & (2**allocated - 1)) | ((value << where.below) & mask) for value in values]
    dtype = np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")
    found = without_unused_bits(np.array(words, dtype=f"u{allocated // 8}").view(dtype), where)
    assert found.tolist() == values


def test_values_in_the_upper_bits_of_a_word(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP << 4, BitsStored=12, HighBit=15)
    assert (shown(path) == SHOWN).all() and "shifted_bits" in facts(path)
    compressed = pydicom.dcmread(path)
    compressed.compress(RLELossless)
    compressed.save_as(tmp_path / "b.dcm")
    with pytest.raises(BadFile, match="has HighBit 15 with 12 bits stored in compressed pixels"):
        DicomImage(tmp_path / "b.dcm")
    with pytest.raises(BadFile, match="12 of 16 bits with HighBit 3, which is impossible"):
        DicomImage(write_dicom(tmp_path / "c.dcm", RAMP, BitsStored=12, HighBit=3))


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless])
def test_overlays_in_unused_bits_are_dropped_after_every_decoder(tmp_path, syntax):
    overlay = RAMP | np.where(RAMP % 3 == 0, 0xA000, 0).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", overlay, BitsStored=16, HighBit=15)
    if syntax is not None:
        pytest.importorskip("openjpeg")
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax)
        dataset.save_as(path)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    assert (shown(path) == SHOWN).all()
    assert "unused_bits" in facts(path) or syntax is RLELossless  # whose decoder drops them itself
    plain = write_dicom(tmp_path / "b.dcm", RAMP, BitsStored=12, HighBit=11)
    assert "unused_bits" not in facts(plain)


def test_signs_above_the_stored_bits_are_no_unused_bits(tmp_path):
    signed = RAMP.astype(np.int16) - 2048
    assert "unused_bits" not in facts(write_dicom(tmp_path / "a.dcm", signed, BitsStored=12, HighBit=11))


# --- padding


def padded(value, dtype=np.uint16):
    pixels = RAMP.astype(dtype)
    pixels[:8] = value
    return pixels


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("pixels", "tags"),
    [
        (padded(65535), {"PixelPaddingValue": 65535}),
        (padded(-20000, np.int16), {"PixelPaddingValue": -20000}),
        (padded(60123), {"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 65535}),
        (padded(60123), {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 60000}),
        (padded(0), {"PixelPaddingValue": 0, "WindowCenter": 2048, "WindowWidth": 4096}),
        (padded(65535), {"PixelPaddingValue": 65535, "RescaleSlope": 2, "RescaleIntercept": -7}),
        (padded(65535).astype(np.uint32), {"PixelPaddingValue": 65535}),
    ],
)  # fmt: skip
def test_padding_is_dark_and_has_no_share_in_the_range(tmp_path, kind, pixels, tags):
    path = write_dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation=kind, **tags)
    dataset = pydicom.dcmread(path)
    for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if tag in tags:
            dataset[tag].VR = "SS" if pixels.dtype.kind == "i" else "US"
    dataset.save_as(path)
    found = shown(path).astype(int)
    assert (found[:8] == 0).all()
    low = 0 if "WindowCenter" in tags else 512
    expected = (RAMP[8:] - low) / (4095 - low) * 255
    assert np.abs(found[8:] - (255 - expected if kind == "MONOCHROME1" else expected)).max() <= 0.51
    deep = DicomImage(path).deep_window(Box(0, 0, 9, 64))
    assert (deep[:8] == 0).all()


def test_a_padding_value_that_cannot_occur_is_doubted_and_not_used(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP, BitsStored=12, HighBit=11, PixelPaddingValue=5000)
    assert (shown(path) == SHOWN).all() and "padding_impossible" in facts(path)


def test_an_image_of_padding_alone_is_blank(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.full((20, 20), 9, np.uint16), PixelPaddingValue=9)
    assert inspect([path], None)[0].blank


# --- tables


@pytest.mark.parametrize(("top", "announced"), [(4095, 16), (4095, 10), (1023, 12), (65535, 12), (255, 16)])
def test_a_table_of_levels_is_scaled_by_what_it_holds(tmp_path, top, announced):
    entries = np.rint(np.linspace(0, 1, 4096) ** 2 * top)
    lut = table(0, entries, "voi")
    lut[0].LUTDescriptor = [len(entries), 0, announced]
    path = write_dicom(tmp_path / "a.dcm", RAMP, BitsStored=12, HighBit=11, VOILUTSequence=lut)
    assert (shown(path).ravel() == np.rint(entries / top * 255)).all()
    assert "lut_bits" in facts(path)


def test_a_table_that_cannot_be_used_is_a_fault(tmp_path):
    broken = Dataset()
    broken.LUTDescriptor = [4096, 0, 16]
    path = write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=Sequence([broken]))
    assert inspect([path], None)[0].code == "bad_image"


def packed(entries, bits=8, **tags):
    """Two entries a word, as the standard allows for 8 bits."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), 0, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, dtype=np.uint8).tobytes())
    for name, value in tags.items():
        setattr(item, name, value)
    return Sequence([item])


def test_a_table_of_8_bits_shows_more_than_256_values(tmp_path):
    levels = np.arange(4096) // 16
    for name, lut in (("a", table(0, levels, "voi")), ("b", packed(levels))):
        lut[0].LUTDescriptor[2] = 8
        path = write_dicom(tmp_path / f"{name}.dcm", RAMP, BitsStored=12, HighBit=11, VOILUTSequence=lut)
        assert (shown(path) == RAMP // 16).all() and "lut_bits" not in facts(path)
    modality = packed(levels, ModalityLUTType="US")
    path = write_dicom(tmp_path / "c.dcm", RAMP, BitsStored=12, HighBit=11, ModalityLUTSequence=modality)
    assert (shown(path) == RAMP // 16).all()


def test_values_beyond_a_table_become_what_its_end_does(tmp_path):
    lut = table(0, np.arange(4096), "voi")
    path = write_dicom(
        tmp_path / "a.dcm", RAMP, BitsStored=12, HighBit=11, RescaleSlope=20, RescaleIntercept=0, VOILUTSequence=lut
    )
    assert (shown(path) == np.rint(np.minimum(RAMP.astype(int) * 20, 4095) / 4095 * 255)).all()
    signed = np.linspace(-32768, 32767, 4096).astype(np.int16).reshape(64, 64)
    lut = table(-32768, np.arange(65535), "modality")
    path = write_dicom(tmp_path / "b.dcm", signed, ModalityLUTSequence=lut)
    expected = (np.minimum(signed.astype(int) + 32768, 65534)) / 65534 * 255
    assert np.abs(shown(path) - expected).max() <= 0.51


def test_a_table_with_too_few_entries_is_a_fault(tmp_path):
    lut = table(0, np.arange(100), "voi")
    lut[0].LUTDescriptor[0] = 4096
    path = write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=lut)
    assert "it announces 4096 entries and has 100" in inspect([path], None)[0].text


# --- what is missing, or more than it should be


def test_a_missing_photometric_interpretation_and_half_a_rescale_are_doubted(tmp_path):
    for syntax in (None, RLELossless):
        path = write_dicom(tmp_path / "a.dcm", RAMP, BitsStored=12, HighBit=11)
        dataset = pydicom.dcmread(path)
        if syntax is not None:
            dataset.compress(syntax)
        del dataset.PhotometricInterpretation
        dataset.save_as(path)
        assert (shown(path) == SHOWN).all() and "photometric_missing" in facts(path)
    for tags in ({"RescaleSlope": 2}, {"RescaleIntercept": 5}):
        path = write_dicom(tmp_path / "b.dcm", RAMP, BitsStored=12, HighBit=11, **tags)
        assert (shown(path) == SHOWN).all() and "rescale_incomplete" in facts(path)
    assert not facts(write_dicom(tmp_path / "c.dcm", RAMP, RescaleSlope=2, RescaleIntercept=1)) & {
        "rescale_incomplete", "photometric_missing",
    }  # fmt: skip


@pytest.mark.parametrize("pixels", [RAMP, RAMP.astype(np.uint32), RAMP.astype(np.uint8)])
def test_more_pixels_than_rows_and_columns_are_a_fault(tmp_path, pixels):
    def changed(**tags):
        dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", pixels))
        for name, value in tags.items():
            setattr(dataset, name, value)
        dataset.save_as(tmp_path / "a.dcm")
        return inspect([tmp_path / "a.dcm"], None)[0]

    for wrong in (changed(Rows=32), changed(Rows=63), changed(PixelData=pixels.tobytes() * 3)):
        assert wrong.code == "bad_image" and "its size or its number of frames is wrong" in wrong.text
    assert not changed(PixelData=pixels.tobytes() + bytes(16)).code  # filling
    odd = write_dicom(tmp_path / "b.dcm", pixels.astype(np.uint8)[:63, :1])  # a byte makes the length even
    assert not inspect([odd], None, Limits())[0].code


def test_pixels_that_are_no_numbers_are_a_fault(tmp_path):
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", RAMP))
    values = (RAMP / 4095).astype(np.float32)
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    dataset.BitsAllocated, dataset.FloatPixelData = 32, values.tobytes()
    dataset.save_as(tmp_path / "a.dcm")
    assert (shown(tmp_path / "a.dcm") == SHOWN).all()
    values[3, 3] = np.nan
    dataset.FloatPixelData = values.tobytes()
    dataset.save_as(tmp_path / "a.dcm")
    look = inspect([tmp_path / "a.dcm"], None)[0]
    assert look.code == "nan_pixels" and "has 1 pixels that are not finite" in look.text


# --- frames, sizes and views


def test_tags_of_the_first_frame_of_an_enhanced_object(tmp_path):
    measures, values, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, values.RescaleSlope, values.RescaleIntercept = [0.085, 0.085], 2, -24
    shared.PixelMeasuresSequence, shared.PixelValueTransformationSequence = Sequence([measures]), Sequence([values])
    path = write_dicom(tmp_path / "a.dcm", RAMP, SharedFunctionalGroupsSequence=Sequence([shared]))
    image = DicomImage(path)
    assert image.header.spacing_mm == 0.085
    assert float(image._dataset.RescaleSlope) == 2 and float(image._dataset.RescaleIntercept) == -24


def test_several_frames_are_a_fault_or_the_first_is_used(tmp_path):
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", RAMP))
    dataset.NumberOfFrames, dataset.PixelData = 2, RAMP.tobytes() + RAMP[::-1].tobytes()
    dataset.save_as(tmp_path / "a.dcm")
    look = inspect([tmp_path / "a.dcm"], None)[0]
    assert look.code == "several_frames" and "limits: {frames: 2}" in look.text
    limits = Limits(frames=2)
    assert (DicomImage(tmp_path / "a.dcm", limits).whole()[..., 0] == SHOWN).all()
    assert "further_pages" in inspect([tmp_path / "a.dcm"], None, limits)[0].facts
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "b.dcm")
    assert (DicomImage(tmp_path / "b.dcm", limits).whole()[..., 0] == SHOWN).all()


@pytest.mark.parametrize(
    ("tags", "spacing", "fact"),
    [
        ({"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25}, 0.08, "spacing_magnified"),
        (
            {"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25},
            0.08, "spacing_magnified",
        ),
        ({"PixelSpacing": [0.09, 0.09], "ImagerPixelSpacing": [0.1, 0.1], "PixelSpacingCalibrationType": "GEOMETRY"}, 0.09, None),
        ({"PixelSpacing": [0.09, 0.09], "ImagerPixelSpacing": [0.1, 0.1]}, 0.09, "spacing_uncalibrated"),
        ({"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 0}, 0.1, None),
        ({"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [0.1, 0.1]}, None, "spacing_unusable"),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.1, 0.1]}, 0.1, "spacing_unusable"),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, None, "spacing_unusable"),
        ({}, None, None),
    ],
)  # fmt: skip
def test_the_size_of_a_pixel_in_the_patient(tmp_path, tags, spacing, fact):
    path = write_dicom(tmp_path / "a.dcm", RAMP, **tags)
    assert read_header(path).spacing_mm == pytest.approx(spacing)
    sizes = {"spacing_magnified", "spacing_uncalibrated", "spacing_unusable"}
    assert facts(path) & sizes == ({fact} if fact else set())


def magnification(code):
    modifier, view = Dataset(), Dataset()
    modifier.CodeValue = code
    view.ViewModifierCodeSequence = Sequence([modifier])
    return {"ViewCodeSequence": Sequence([view])}


def folder_of(folder, *pixels_and_tags, patients=None):
    rows = ["image,patient_id,label"]
    for number, (pixels, tags) in enumerate(pixels_and_tags):
        write_dicom(folder / f"{number}.dcm", pixels, **tags)
        rows.append(f"{number}.dcm,p{patients[number] if patients else number},{number % 2}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    return FolderSource(path=folder)


def test_magnification_views_are_left_out_and_counted(tmp_path):
    cohort = folder_of(
        tmp_path, (RAMP, {}), (RAMP[::-1], magnification("399163009")), (RAMP[:, ::-1], magnification("R-102D6")),
        (RAMP.T, {"EstimatedRadiographicMagnificationFactor": 1.8}), (RAMP // 2, {"EstimatedRadiographicMagnificationFactor": 1.05}),
    ).load("A", 0)  # fmt: skip
    assert [exam.name for exam in cohort.exams] == ["0.dcm", "4.dcm"] and cohort.report["magnified_images"] == 3


def test_a_raw_image_is_left_out_where_its_exposure_is_there_for_presentation(tmp_path):
    raw, seen = {"PresentationIntentType": "FOR PROCESSING"}, {"PresentationIntentType": "FOR PRESENTATION"}
    left, right = {"ImageLaterality": "L"}, {"ImageLaterality": "R"}
    cohort = folder_of(
        tmp_path, (RAMP, raw | left), (RAMP[::-1], seen | left), (RAMP.T, raw | right), (RAMP // 2, raw | left),
        patients=(1, 1, 1, 2),
    ).load("A", 0)  # fmt: skip
    assert [exam.name for exam in cohort.exams] == ["1.dcm", "2.dcm", "3.dcm"]
    assert cohort.report["raw_images"] == 1 and cohort.report["raw_alone"] == 2


def test_a_raw_image_of_which_nothing_is_known_is_no_double(tmp_path):
    raw, seen = {"PresentationIntentType": "FOR PROCESSING"}, {"PresentationIntentType": "FOR PRESENTATION"}
    cohort = folder_of(tmp_path, (RAMP, raw), (RAMP[::-1], seen), patients=(1, 1)).load("A", 0)
    assert len(cohort.exams) == 2 and cohort.report["raw_alone"] == 1 and "raw_images" not in cohort.report


def test_a_real_world_value_mapping_changes_nothing_that_is_shown(tmp_path):
    mapping = Dataset()
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, 4095
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = -3.0, 10.0
    path = write_dicom(tmp_path / "a.dcm", RAMP, RealWorldValueMappingSequence=Sequence([mapping]))
    assert (shown(path) == SHOWN).all()


def test_text_burnt_into_pixels_is_doubted(tmp_path):
    assert "burnt_in" in facts(write_dicom(tmp_path / "a.dcm", RAMP, BurnedInAnnotation="YES"))


def test_images_of_one_grey_value_by_slope_window_or_pixels(tmp_path):
    cases = [
        (RAMP, {"RescaleSlope": 0, "RescaleIntercept": 100}), (RAMP, {"WindowCenter": 40000, "WindowWidth": 100}),
        (np.full_like(RAMP, 7), {}),
    ]  # fmt: skip
    cohort = folder_of(tmp_path, (RAMP, {}), *cases).load("A", 0)
    assert [exam.name for exam in cohort.exams] == ["0.dcm"] and cohort.report["blank_images"] == 3
    with pytest.raises(DataError, match="limits"):
        FolderSource(path=tmp_path, limits={"megapixels": 1e-4}).load("A", 0)


# --- other readers


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    ("pixels", "tags"),
    [
        (RAMP, {"BitsStored": 12, "HighBit": 11}),
        (RAMP.astype(np.int16) - 2048, {"BitsStored": 16, "HighBit": 15, "RescaleSlope": 2, "RescaleIntercept": -24}),
        (RAMP << 4, {}),
    ],
)  # fmt: skip
def test_values_after_the_modality_transform_are_those_of_gdcm(tmp_path, syntax, pixels, tags):
    itk = pytest.importorskip("SimpleITK")
    path = write_dicom(tmp_path / "a.dcm", pixels, **tags)
    if syntax is not None:
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax)
        dataset.save_as(path)
    theirs = itk.GetArrayFromImage(itk.ReadImage(str(path), imageIO="GDCMImageIO"))[0]
    image = DicomImage(path)
    assert (dicom.rescaled(image.stored(), image._dataset) == theirs).all()


def test_the_size_on_the_detector_is_that_of_gdcm(tmp_path):
    """GDCM reads no calibration and no magnification for mammograms."""
    itk = pytest.importorskip("SimpleITK")
    path = write_dicom(tmp_path / "a.dcm", RAMP, ImagerPixelSpacing=[0.1, 0.1])
    across, down, _ = itk.ReadImage(str(path), imageIO="GDCMImageIO").GetSpacing()
    assert across == down == pytest.approx(read_header(path).spacing_mm)


SIGNED = RAMP.astype(np.int16) - 2048
TWELVE = {"BitsStored": 12, "HighBit": 11}
SQUARED = np.rint(np.linspace(0, 1, 4096) ** 2 * 65535)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("pixels", "tags"),
    [
        (RAMP, TWELVE | {"WindowCenter": 2000, "WindowWidth": 1000}),
        (RAMP, TWELVE | {"WindowCenter": 2000.5, "WindowWidth": 2}),
        (RAMP, TWELVE | {"WindowCenter": [900, 2000], "WindowWidth": [300, 1000]}),
        (RAMP, TWELVE | {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"}),
        (RAMP, TWELVE | {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"}),
        (SIGNED, {"WindowCenter": 0, "WindowWidth": 1000, "RescaleSlope": 1, "RescaleIntercept": 0}),
        (
            SIGNED,
            {"WindowCenter": -500, "WindowWidth": 3000, "RescaleSlope": 2.5, "RescaleIntercept": -24, "VOILUTFunction": "LINEAR_EXACT"},
        ),
        (RAMP, TWELVE | {"VOILUTSequence": (0, SQUARED)}),
        (RAMP, TWELVE | {"VOILUTSequence": (1000, SQUARED[1::2])}),
        (RAMP, TWELVE | {"ModalityLUTSequence": (0, SQUARED), "WindowCenter": 30000, "WindowWidth": 20000}),
    ],
)  # fmt: skip
def test_what_is_shown_is_what_highdicom_shows(tmp_path, kind, pixels, tags):
    """It takes the 1 off a window's width after the slope, so there the window is LINEAR_EXACT; it knows no padding."""
    highdicom = pytest.importorskip("highdicom")
    tags = {
        name: table(*value, name[:-11].lower()) if name.endswith("LUTSequence") else value
        for name, value in tags.items()
    }
    path = write_dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation=kind, **tags)
    theirs = highdicom.imread(path).get_frame(1, apply_voi_transform=True, voi_output_range=(0, 255), dtype=np.float64)
    assert np.abs(shown(path) - theirs).max() <= 0.51
