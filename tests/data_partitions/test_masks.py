"""Which values of a mask are a lesion, in every kind of file and for both sources that have masks."""

import numpy as np
import pytest
from archives import write_cbis_ddsm
from dicom_files import write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import deep_png
from PIL import Image
from test_mask_folder import LABELS, archive

from data_partitions import Box, DataError
from data_partitions.archives.cbis_ddsm import CbisDdsmSource
from data_partitions.archives.folder import FolderSource
from data_partitions.reading.contours import CLOSED_AT_MOST, closing_side, mask_areas
from data_partitions.reading.limits import DEFAULT
from data_partitions.reading.masks import MaskRule, mask_looks

BOXES = {1: Box(5, 5, 20, 20), 2: Box(40, 30, 60, 50), 3: Box(65, 2, 75, 12)}


def drawn(values, dtype=np.uint8, shape=(80, 60)):
    """A square of each value."""
    mask = np.zeros(shape, dtype)
    for box, value in zip(BOXES.values(), values, strict=False):
        mask[box.top : box.bottom, box.left : box.right] = value
    return mask


def look(path, mask, **rule):
    if path.suffix == ".npy":
        np.save(path, mask)
    elif path.suffix == ".dcm":
        write_dicom(path, mask, PhotometricInterpretation="MONOCHROME1", WindowCenter=1, WindowWidth=2)
    else:
        Image.fromarray(mask).save(path)
    (found,) = mask_looks([path], None, MaskRule(**rule), DEFAULT)
    return found


def boxes(found):
    assert not found.code, found.text
    return sorted((area.box, area.name) for area in found.found)


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy", ".dcm"])
@pytest.mark.parametrize("value", [1, 255])
def test_binary_masks(tmp_path, ending, value):
    assert boxes(look(tmp_path / f"a{ending}", drawn([value, value]))) == [(BOXES[1], ""), (BOXES[2], "")]
    assert boxes(look(tmp_path / f"b{ending}", drawn([]))) == []


def test_binary_masks_of_other_depths(tmp_path):
    assert boxes(look(tmp_path / "a.png", drawn([65535], np.uint16))) == [(BOXES[1], "")]
    assert boxes(look(tmp_path / "b.npy", drawn([True], bool))) == [(BOXES[1], "")]
    assert boxes(look(tmp_path / "c.npy", drawn([1.0], np.float32))) == [(BOXES[1], "")]


def test_noise_of_compression_is_cleaned_and_counted(tmp_path):
    path = tmp_path / "a.jpg"
    mask = drawn([255, 255])
    Image.fromarray(mask).save(path, quality=95)
    (found,) = mask_looks([path], None, MaskRule(), DEFAULT)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2 and found.facts == ("noisy_masks",)
    assert boxes(found) == [(BOXES[1], ""), (BOXES[2], "")]


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy", ".dcm"])
def test_class_numbers_are_lesions_of_the_classes_that_are_named_or_a_fault(tmp_path, ending):
    mask = drawn([1, 2, 3])
    assert boxes(look(tmp_path / f"a{ending}", mask, classes={1: "mass", 2: "calcification", 3: "none"})) == [
        (BOXES[1], "mass"), (BOXES[2], "calcification"),
    ]  # fmt: skip
    found = look(tmp_path / f"b{ending}", mask, classes={1: "mass"})
    assert (
        found.code == "bad_annotation"
        and "the values 2, 3 beside 0" in found.text
        and "mask_classes: {2: mass}" in found.text
    )


@given(st.sets(st.integers(1, 255), min_size=1, max_size=3))
@settings(max_examples=60)
def test_no_set_of_values_passes_as_healthy(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("masks") / "a.png"
    found = look(path, drawn(sorted(values)))
    binary = len(values) == 1 and values <= {1, 255}
    noisy = max(values) > 222 and all(value <= 32 or value >= 223 for value in values)
    assert bool(found.code) == (not binary and not noisy)
    assert found.code or len(found.areas) >= 1


def test_soft_masks_have_a_threshold(tmp_path):
    soft = drawn([0.4, 0.6], np.float32)
    found = look(tmp_path / "a.npy", soft)
    assert boxes(found) == [(BOXES[2], "")] and found.facts == ("soft_masks",)
    assert boxes(look(tmp_path / "b.npy", soft, threshold=0.3)) == [(BOXES[1], ""), (BOXES[2], "")]
    assert boxes(look(tmp_path / "c.png", drawn([90, 160]), threshold=0.5)) == [(BOXES[2], "")]
    assert look(tmp_path / "d.png", drawn([90, 160])).code == "bad_annotation"


@pytest.mark.parametrize("bad", [[-1.0], [0.5, 3.5], [np.nan]])
def test_values_that_are_no_mask(tmp_path, bad):
    assert look(tmp_path / "a.npy", drawn(bad, np.float32)).code in ("bad_annotation", "nan_pixels")


def test_palettes_hold_class_numbers_and_colours_are_refused(tmp_path):
    picture = Image.fromarray(drawn([1, 2])).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
    numbers = Image.fromarray(drawn([1, 2]), "L")
    indexed = Image.new("P", numbers.size)
    indexed.putdata(list(numbers.getdata()))
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
    indexed.save(tmp_path / "a.png")
    (found,) = mask_looks([tmp_path / "a.png"], None, MaskRule({1: "mass", 2: "other"}), DEFAULT)
    assert boxes(found) == [(BOXES[1], "mass"), (BOXES[2], "other")]
    colours = np.stack([drawn([255]), drawn([0, 255]), drawn([])], axis=2)
    assert "is a mask in colours" in look(tmp_path / "b.png", colours).text


def test_a_mask_is_turned_like_its_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(drawn([255])).save(tmp_path / "a.png", exif=exif)
    (found,) = mask_looks([tmp_path / "a.png"], None, MaskRule(), DEFAULT)
    assert found.shape == (60, 80) and found.facts == ("turned",)
    assert boxes(found) == [(Box(5, 60, 20, 75), "")]


def test_the_range_of_a_soft_mask_is_that_of_its_format(tmp_path):
    soft, cut = drawn([60000, 20000], np.uint16), [(BOXES[1], "")]
    for ending in (".png", ".tif", ".npy", ".dcm"):
        assert boxes(look(tmp_path / f"a{ending}", soft, threshold=0.5)) == cut
    (tmp_path / "a.pgm").write_bytes(b"P5 60 80 65535\n" + soft.astype(">u2").tobytes())
    (found,) = mask_looks([tmp_path / "a.pgm"], None, MaskRule(threshold=0.5), DEFAULT)
    assert boxes(found) == cut
    twelve = write_dicom(tmp_path / "b.dcm", drawn([4095, 1500], np.uint16), BitsStored=12, HighBit=11)
    (found,) = mask_looks([twelve], None, MaskRule(threshold=0.5), DEFAULT)
    assert boxes(found) == cut
    full = write_dicom(tmp_path / "c.dcm", drawn([4095], np.uint16), BitsStored=12, HighBit=11)
    (found,) = mask_looks([full], None, MaskRule(), DEFAULT)
    assert boxes(found) == cut


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("a.png", drawn([255, 200], np.uint16)), ("b.tif", drawn([255, 200], np.uint16)), ("c.npy", drawn([255], np.uint16)),
        ("d.png", drawn([1])), ("e.npy", drawn([255, 3], np.float32)), ("f.tif", drawn([255, 3], np.float32)),
        ("g.npy", drawn([255], np.int64)), ("h.dcm", drawn([4095], np.uint16)),
    ],
)  # fmt: skip
def test_a_soft_mask_of_another_range_than_its_format_is_a_fault(tmp_path, name, mask):
    found = look(tmp_path / name, mask, threshold=0.5)
    assert found.code == "bad_annotation" and f"whose largest value is {mask.max():g}" in found.text


@pytest.mark.parametrize("values", [[1, 2, 255], [1], [255], [2, 3, 254]])
def test_named_classes_are_classes_whatever_else_they_look_like(tmp_path, values):
    found = look(tmp_path / "a.png", drawn(values), classes={2: "mass", 3: "none"})
    assert found.code == "bad_annotation" and "which `mask_classes` does not name" in found.text
    named = {value: f"class {value}" for value in values}
    expected = sorted((box, named[value]) for box, value in zip(BOXES.values(), values, strict=False))
    assert boxes(look(tmp_path / "b.png", drawn(values), classes=named)) == expected
    assert "expected whole numbers" in look(tmp_path / "c.npy", drawn([0.5], np.float32), classes={1: "mass"}).text


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy"])
def test_one_bit_holds_0_and_1(tmp_path, ending):
    mask = drawn([1]).astype(bool)
    assert boxes(look(tmp_path / f"a{ending}", mask, classes={1: "malignant"})) == [(BOXES[1], "malignant")]
    assert boxes(look(tmp_path / f"b{ending}", mask)) == boxes(look(tmp_path / f"c{ending}", mask, threshold=0.5))


def test_a_palette_has_the_background_at_0(tmp_path):
    picture = Image.fromarray(1 - drawn([1])).convert("L")
    picture.putpalette([255, 0, 0, 0, 0, 0])  # a red lesion on black
    picture.save(tmp_path / "a.png")
    (found,) = mask_looks([tmp_path / "a.png"], None, MaskRule(), DEFAULT)
    assert "has a colour for 0 and black for 1" in found.text


def test_a_shape_in_transparency_alone_is_a_fault(tmp_path):
    def layers(grey, alpha):
        Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha))).save(tmp_path / "a.png")
        return mask_looks([tmp_path / "a.png"], None, MaskRule(), DEFAULT)[0]

    assert "black mask with a shape in its transparency" in layers(drawn([]), drawn([255])).text
    assert boxes(layers(drawn([255, 255]), drawn([255, 255]))) == [(BOXES[1], ""), (BOXES[2], "")]
    assert boxes(layers(drawn([]), drawn([]))) == []


def test_a_mask_in_which_0_is_white_and_one_of_deep_colours_are_faults(tmp_path):
    Image.fromarray(drawn([255])).save(tmp_path / "a.tif", tiffinfo={262: 0})
    (found,) = mask_looks([tmp_path / "a.tif"], None, MaskRule(), DEFAULT)
    assert "in which 0 is white" in found.text
    deep_png(tmp_path / "b.png", np.stack([drawn([1, 2], np.uint16)] * 3, axis=2))  # its upper bytes are all 0
    (found,) = mask_looks([tmp_path / "b.png"], None, MaskRule({1: "mass", 2: "mass"}), DEFAULT)
    assert "several channels of 16 bits" in found.text


# --- closing


@pytest.mark.parametrize(("longer", "side"), [(40, 1), (96, 2), (480, 10), (1728, 36), (6000, CLOSED_AT_MOST)])
def test_gaps_narrower_than_the_closing_are_closed(longer, side):
    assert closing_side((longer, longer // 2)) == side
    mask = np.zeros((longer, longer // 2), bool)
    for gap, areas in ((side - 1, 1), (side + 8, 2)):
        if gap < 1:
            continue
        mask[:] = False
        mask[4:12, 4:12] = mask[12 + gap : 20 + gap, 4:12] = True
        assert len(mask_areas(mask)) == areas


# --- the sources


def test_a_folder_of_class_masks(tmp_path):
    root = archive(tmp_path, LABELS | {"d": "benign"})
    for name, values in (("a.tif", [1, 2]), ("b.png", [2]), ("d.png", [3])):
        Image.fromarray(drawn(values)).save(root / "masks" / name)
    with pytest.raises(DataError, match="mask_classes"):
        FolderSource(path=root, masks="masks").load("A", 0)
    cohort = FolderSource(
        path=root, masks="masks", mask_classes={1: "malignant", 2: "calcification", 3: "normal"}
    ).load("A", 0)
    found = {e.name[7]: sorted((x.kind, x.malignant, x.diagnosis) for x in e.lesions) for e in cohort.exams}
    assert found == {
        "a": [("calcification", True, "calcification"), ("other", True, "malignant")],
        "b": [("calcification", False, "calcification")], "c": [], "d": [],
    }  # fmt: skip


def test_cbis_ddsm_reads_the_same_masks(tmp_path):
    root = write_cbis_ddsm(tmp_path, "png", 2)
    whole = [[x.box for x in e.lesions] for e in CbisDdsmSource(path=root).load("A", 0).exams]
    for file in root.rglob("*.png"):
        pixels = np.asarray(Image.open(file))
        if set(np.unique(pixels)) <= {0, 255}:
            Image.fromarray(pixels // 255).save(file)
    assert [[x.box for x in e.lesions] for e in CbisDdsmSource(path=root).load("A", 0).exams] == whole
    for file in root.rglob("*.png"):
        pixels = np.asarray(Image.open(file))
        if set(np.unique(pixels)) == {0, 1}:
            Image.fromarray(pixels * 2).save(file)
    with pytest.raises(DataError, match="is a mask with the values 2 beside 0"):
        CbisDdsmSource(path=root).load("A", 0)
