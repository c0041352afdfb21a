"""Preprocessing: pixels and boxes move together, each step does what its paper says, and names and order count."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from data_partitions import Box, Cohort, Exam, Lesion, PatchTask, SplitRule, build_patches
from data_partitions.archives.folder import FolderSource
from data_partitions.archives.mini_mias import MiniMiasSource
from data_partitions.clahe import clahe, curve
from data_partitions.frames import Frame, square_around
from data_partitions.geometry import Geometry
from data_partitions.preprocessing import preprocessed

LESION = Box(40, 20, 60, 44)


class Picture:
    """Pixels with a body mask."""

    def __init__(self, pixels, body):
        self.pixels, self.body = pixels, body

    def window(self, box):
        return self.pixels[box.top : box.bottom, box.left : box.right]

    def tissue(self, step):
        return self.body[::step, ::step]


def mammogram(shape=(160, 120), laterality="L", lesion=LESION, channels=1, seed=0):
    """A half disc at the chest wall, one bright lesion in it, and a film label in the other corner."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    body = np.hypot((y - shape[0] / 2) / (0.45 * shape[0]), x / (0.7 * shape[1])) < 1
    pixels = np.where(body, rng.integers(60, 140, shape), 3).astype(np.uint8)
    pixels[lesion.top : lesion.bottom, lesion.left : lesion.right] = 255
    pixels[4:14, -20:-4] = 200  # the label
    if laterality == "R":
        body, pixels = body[:, ::-1], pixels[:, ::-1]
        lesion = Box(lesion.top, shape[1] - lesion.right, lesion.bottom, shape[1] - lesion.left)
    contour = np.array([[lesion.top, lesion.left], [lesion.bottom, lesion.right]], dtype=np.float32)
    pixels = np.repeat(pixels[..., None], channels, axis=2)
    return Exam("p", f"e{seed}", shape, partial(Picture, np.ascontiguousarray(pixels), body), laterality=laterality,
                spacing_mm=0.1, lesions=(Lesion(lesion, "mass", True, contour=contour),))  # fmt: skip


def run(exam, *steps):
    """(exam, whole image) after these steps, as a scenario would write them."""
    task = PatchTask.model_validate({"preprocess": list(steps)})
    done = preprocessed(Cohort([exam]), task.preprocess).exams[0]
    return done, done.open().window(Box(0, 0, *done.shape))


# --- geometry


@given(
    st.integers(5, 60), st.integers(5, 60), st.data(),
    st.floats(0.2, 3), st.floats(-1, 1).filter(lambda s: abs(s) > 0.2), st.integers(0, 9),
)  # fmt: skip
def test_a_moved_box_covers_every_moved_pixel_and_stays_inside(height, width, data, scale_y, scale_x, offset):
    top, left = data.draw(st.integers(0, height - 2)), data.draw(st.integers(0, width - 2))
    box = Box(top, left, data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width)))
    shape = (int(height * scale_y) + offset + 1, int(width * abs(scale_x)) + offset + 1)
    columns = (scale_x, float(offset) if scale_x > 0 else width * -scale_x + offset)
    geometry = Geometry(shape, (scale_y, float(offset)), columns)
    moved = geometry.box(box)
    assert 0 <= moved.top <= moved.bottom <= shape[0] and 0 <= moved.left <= moved.right <= shape[1]
    corners = geometry.points(np.array([[box.top, box.left], [box.bottom, box.right]], dtype=np.float64))
    for y, x in corners:
        assert moved.top - 1e-3 <= min(y, shape[0]) <= moved.bottom + 1e-3
        assert moved.left - 1e-3 <= min(x, shape[1]) <= moved.right + 1e-3
    # Never more than a pixel larger on any side than the exact box.
    assert moved.height <= box.height * scale_y + 2 and moved.width <= box.width * abs(scale_x) + 2


@given(st.floats(0.5, 2), st.floats(-5, 5), st.floats(-2, -0.5), st.floats(-5, 5))
def test_two_geometries_in_turn_are_one(a, b, c, d):
    points = np.array([[0.0, 1.0], [7.0, 3.0]])
    first, second = Geometry((9, 9), (a, b), (c, d)), Geometry((5, 5), (c, d), (a, b))
    np.testing.assert_allclose(
        first.then(second).points(points), second.points(first.points(points)), atol=1e-3, rtol=1e-4
    )


# --- steps


@pytest.mark.parametrize("by", ["laterality", "image"])
def test_flipping_puts_the_chest_wall_left_and_the_box_with_it(by):
    left, right = mammogram(laterality="L"), mammogram(laterality="R")
    (a, pixels_a), (b, pixels_b) = (run(exam, {"flip_to_left": {"by": by}}) for exam in (left, right))
    np.testing.assert_array_equal(pixels_a, pixels_b)
    assert a.lesions[0].box == b.lesions[0].box == left.lesions[0].box
    assert (a.open().tissue(8) != b.open().tissue(8)).mean() < 0.08, (
        "masks are samples, and mirrored ones lie in between"
    )
    np.testing.assert_allclose(sorted(b.lesions[0].contour[:, 1]), sorted(a.lesions[0].contour[:, 1]))


def test_without_a_laterality_the_image_decides():
    unknown = mammogram(laterality="R").__class__(**{**vars(mammogram(laterality="R")), "laterality": ""})
    assert run(unknown, "flip_to_left")[0].lesions[0].box == mammogram().lesions[0].box


def test_segmentation_removes_the_label_and_leaves_the_breast():
    exam = mammogram()
    image = exam.open()
    _, pixels = run(exam, "segment_breast")
    original = image.window(Box(0, 0, *exam.shape))
    assert pixels[4:14, -20:-4].max() == 0, "the label is gone"
    kept = pixels[..., 0] > 0
    assert (kept != image.body).mean() < 0.05, "the edge is within a few pixels"
    np.testing.assert_array_equal(pixels[kept], original[kept])


@settings(max_examples=25)
@given(st.integers(40, 220), st.integers(40, 220), st.sampled_from("LR"), st.integers(32, 200), st.integers(32, 200))
def test_fitting_keeps_aspect_hanging_and_the_lesion_under_its_box(height, width, laterality, to_height, to_width):
    lesion = Box(height // 4, width // 8, height // 2, width // 3)
    exam = mammogram((height, width), laterality, lesion)
    image = exam.open()
    image.pixels[:] = 0
    box = exam.lesions[0].box
    image.pixels[box.top : box.bottom, box.left : box.right] = 255
    exam = exam.__class__(**{**vars(exam), "open": lambda: image})
    done, pixels = run(exam, {"fit": {"height": to_height, "width": to_width}})
    assert pixels.shape == (to_height, to_width, 1) and done.shape == (to_height, to_width)
    scale = min(to_height / height, to_width / width)
    moved = done.lesions[0].box
    assert abs(moved.height - box.height * scale) <= 2 and abs(moved.width - box.width * scale) <= 2
    bright = np.argwhere(pixels[..., 0] > 0)
    # Bilinear enlargement may lend a neighbouring pixel a little brightness.
    slack = 0 if scale <= 1 else int(np.ceil(scale))
    assert (bright.min(axis=0) >= np.array(moved[:2]) - slack).all()
    assert (bright.max(axis=0) < np.array(moved[2:]) + slack).all()
    assert done.spacing_mm == pytest.approx(0.1 / scale, rel=0.05)
    used = round(width * scale)
    padding = pixels[:, used:] if laterality == "L" else pixels[:, : to_width - used]
    assert padding.size == 0 or padding.max() == 0


def test_the_paper_s_size():
    """4,084 x 3,328 at 70 um to 1,280 x 1,024: the height limits, 1,043 columns would be too wide, so the width does."""
    exam = mammogram((408, 332))
    done, pixels = run(exam, "fit")
    assert pixels.shape == (1280, 1024, 1)
    assert done.spacing_mm == pytest.approx(0.1 / (1024 / 332), rel=1e-3)


# --- contrast


def test_one_tile_without_a_limit_is_histogram_equalisation():
    grey = np.random.default_rng(0).integers(40, 90, (64, 48)).astype(np.uint8)
    counts = np.bincount(grey.ravel(), minlength=256)
    expected = np.rint(counts.cumsum()[grey] / grey.size * 255)
    np.testing.assert_allclose(clahe(grey, 1e9, (1, 1)), expected, atol=1)


def test_the_smallest_limit_adds_no_contrast():
    """With all counts clipped to their mean the curve is the identity, up to rounding, on a full range of levels."""
    grey = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    np.testing.assert_allclose(clahe(grey, 1.0, (1, 1)), grey, atol=1)


@given(st.integers(0, 2**32), st.sampled_from([0.01, 0.3, 1]), st.floats(1, 50))
@settings(max_examples=30)
def test_curves_rise_and_end_at_white(seed, used, limit):
    """used: share of the grey levels that occur; one always does."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 1000, 256) * (rng.random(256) < used)
    counts[rng.integers(256)] += 1
    found = curve(counts, limit)
    assert (np.diff(found) >= -1e-3).all() and found[0] >= 0 and found[-1] == pytest.approx(255, abs=0.01)


def test_a_larger_limit_adds_more_contrast():
    grey = (np.random.default_rng(1).normal(100, 6, (160, 160))).clip(0, 255).astype(np.uint8)
    spread = [clahe(grey, limit, (4, 4)).std() for limit in (1.0, 2.0, 4.0, 16.0)]
    assert spread == sorted(spread) and spread[-1] > 3 * spread[0]


@given(st.integers(0, 5))
@settings(max_examples=6)
def test_contrast_and_mirroring_may_change_places_where_tiles_fit(seed):
    grey = np.random.default_rng(seed).integers(0, 256, (64, 96)).astype(np.uint8)
    np.testing.assert_allclose(clahe(grey[:, ::-1], 3.0, (4, 4)), clahe(grey, 3.0, (4, 4))[:, ::-1].astype(int), atol=1)


def test_colour_keeps_its_hue():
    exam = mammogram(channels=3)
    _, pixels = run(exam, {"clahe": {"clip_limit": 4, "tiles": [2, 2]}})
    assert pixels.shape == (160, 120, 3)
    assert np.abs(pixels[..., 0].astype(int) - pixels[..., 2]).max() <= 2, "grey stays grey"


# --- in a task


def test_names_settings_and_what_is_written_out_mean_the_same():
    short = PatchTask.model_validate({"preprocess": ["flip_to_left", {"clahe": {"clip_limit": 3}}, {"fit": None}]})
    assert [step.step for step in short.preprocess] == ["flip_to_left", "clahe", "fit"]
    assert PatchTask.model_validate(short.model_dump(mode="json")) == short
    assert short.preprocess[1].clip_limit == 3 and short.preprocess[2].height == 1280


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (["sharpen"], "step 'sharpen' is unknown; known steps: flip_to_left, segment_breast, clahe, fit"),
        ([{"clahe": {"limit": 2}}], "clahe: unknown key 'limit'; known keys: clip_limit, tiles"),
        ([{"clahe": 2}], "give its settings by name"),
        ([{"clahe": {"clip_limit": 0.5}}], "greater than or equal to 1"),
        ([{"clahe": {}, "fit": {}}], "is unknown"),
    ],
)
def test_steps_that_do_not_exist(steps, told):
    with pytest.raises(ValidationError, match=told):
        PatchTask.model_validate({"preprocess": steps})


def test_order_and_settings_are_other_patches(tmp_path):
    table, lesions = ["image,patient_id"], ["image,x,y,radius"]
    for i in range(8):
        image = mammogram(seed=i).open()
        Image.fromarray(image.pixels[..., 0]).save(tmp_path / f"{i}.png")
        table.append(f"{i}.png,p{i}")
        lesions += [f"{i}.png,30,50,8"] if i % 2 else []
    (tmp_path / "metadata.csv").write_text("\n".join(table))
    (tmp_path / "lesions.csv").write_text("\n".join(lesions))
    source = FolderSource(path=tmp_path, lesions="lesions.csv")

    def digest(*steps):
        task = PatchTask.model_validate({"image_size": 16, "margin_px": 4, "crops": 1, "preprocess": list(steps)})
        return build_patches(source, task, SplitRule(), centre="A", seed=0, cache=tmp_path.parent / "c").digest(b"k")

    a, b, c = (digest("clahe", "segment_breast"), digest("segment_breast", "clahe"),
               digest("segment_breast", {"clahe": {"clip_limit": 4}}))  # fmt: skip
    assert len({a, b, c, digest()}) == 4


def test_the_paper_s_smallest_patch():
    assert square_around(Box(100, 100, 110, 120), 10, (400, 400), Frame(64, 64), 128) == Box(41, 46, 169, 174)
    assert square_around(Box(100, 100, 300, 200), 10, (400, 400), Frame(64, 64), 128).height == 220
    assert square_around(Box(0, 0, 5, 5), 0, (90, 400), Frame(64, 64), 128) == Box(0, 0, 90, 90)


def test_real_films_flipped_segmented_and_fitted(real_images):
    films = real_images / "format_samples" / "mini_mias_pgm"
    some = [e for e in MiniMiasSource(path=films, max_bad_fraction=1).load("A", 0).exams if e.lesions]
    assert {e.laterality for e in some} == {"L", "R"}
    task = PatchTask.model_validate(
        {"preprocess": ["flip_to_left", "clahe", "segment_breast", {"fit": {"height": 640, "width": 512}}]}
    )
    for before, after in zip(some, preprocessed(Cohort(some), task.preprocess).exams, strict=True):
        image = after.open()
        assert image.pixels.shape == (640, 512, 1)
        body = image.tissue(8)
        assert body[:, :32].sum() > body[:, 32:].sum(), "the chest wall is on the left"
        assert image.pixels[..., 0][np.repeat(np.repeat(~body, 8, 0), 8, 1)].mean() < 2, "no film label is left"
        for old, new in zip(before.lesions, after.lesions, strict=True):
            assert new.box.height == pytest.approx(old.box.height / 2, abs=2)
