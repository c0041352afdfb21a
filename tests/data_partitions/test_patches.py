"""Geometry of boxes: exact ones first, then what holds for all of them."""

import numpy as np
import pytest
from boxes import holds
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from basics.image_shape import ImageShape
from data_partitions.exams import Box, Lesion, bounding_box
from data_partitions.frames import Frame, central_square, square_around, square_around_body, union
from data_partitions.patches import PatchTask, Place, TissueMap, healthy_square, jittered
from data_partitions.resizing import resized

SQUARE = Frame(64, 64)
FRAMES = st.sampled_from([SQUARE, Frame(160, 128), Frame(16, 48), Frame(37, 31)])


@st.composite
def image_and_lesion(draw):
    shape = (draw(st.integers(40, 400)), draw(st.integers(40, 400)))
    top, left = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
    bottom, right = draw(st.integers(top + 1, shape[0])), draw(st.integers(left + 1, shape[1]))
    return shape, Box(top, left, bottom, right)


def inside(box, shape):
    return holds(Box(0, 0, *shape), box)


@pytest.mark.parametrize(
    ("lesion", "margin", "square"),
    [
        (Box(100, 100, 120, 140), 10, Box(80, 90, 140, 150)),  # wider than high: the side is 40 + 2 * 10
        (Box(100, 100, 140, 120), 10, Box(90, 80, 150, 140)),
        (Box(0, 0, 20, 20), 10, Box(0, 0, 40, 40)),  # at the corner: translated back, not cut
        (Box(180, 280, 200, 300), 10, Box(160, 260, 200, 300)),
        (Box(50, 50, 150, 150), 60, Box(0, 0, 200, 200)),  # larger than the image is high: the whole height
    ],
)
def test_square_around_a_lesion(lesion, margin, square):
    assert square_around(lesion, margin, (200, 300), SQUARE) == square


@given(image_and_lesion(), st.integers(0, 100), FRAMES)
def test_square_has_its_shape_is_inside_and_holds_the_lesion_where_it_can(drawn, margin, frame):
    shape, lesion = drawn
    square = square_around(lesion, margin, shape, frame)
    side = min(max(lesion.height, lesion.width) + 2 * margin, frame.largest(shape))
    assert (square.height, square.width) == frame.sides(side) and min(square.height, square.width) == side
    assert inside(square, shape)
    if frame is SQUARE:
        assert square.height == square.width == min(max(lesion.height, lesion.width) + 2 * margin, *shape)
    if max(lesion.height, lesion.width) <= side:
        assert holds(square, lesion)


@given(st.integers(16, 400), st.integers(16, 400), FRAMES)
def test_the_largest_frame_fits_and_one_larger_does_not(height, width, frame):
    side = frame.largest((height, width))
    assert all(own <= limit for own, limit in zip(frame.sides(side), (height, width), strict=True)) or side == 1
    assert any(own > limit for own, limit in zip(frame.sides(side + 1), (height, width), strict=True))
    least = frame.around(height, width)
    assert all(own >= wanted for own, wanted in zip(frame.sides(least), (height, width), strict=True))
    assert any(own < wanted for own, wanted in zip(frame.sides(least - 1), (height, width), strict=True))


@given(image_and_lesion(), st.integers(0, 60), st.integers(0, 2**32), st.sampled_from([64, [160, 128], [16, 48]]))
def test_jittered_crop_has_its_shape_is_inside_and_holds_the_lesion_where_it_can(drawn, margin, seed, size):
    (shape, lesion), task = drawn, PatchTask(image_size=size)
    square = square_around(lesion, margin, shape, task.frame)
    crop = jittered(square, lesion, task, shape, np.random.default_rng(seed))
    assert (crop.height, crop.width) == task.frame.sides(min(crop.height, crop.width)) and crop.height > 0
    assert inside(crop, shape)
    if task.frame.around(lesion.height, lesion.width) <= task.frame.largest(shape):
        assert holds(crop, lesion)


def test_jitter_is_symmetric_and_clipped():
    lesion, shape = Box(995, 995, 1005, 1005), (2000, 2000)
    square = square_around(lesion, 60, shape, SQUARE)
    rng = np.random.default_rng(0)
    crops = [jittered(square, lesion, PatchTask(zoom=(0.0, 0.0)), shape, rng) for _ in range(4000)]
    down = np.array([(crop.top + crop.bottom) / 2 - 1000 for crop in crops])
    right = np.array([(crop.left + crop.right) / 2 - 1000 for crop in crops])
    for shift in (down, right):
        assert abs(shift.mean()) < 4 * shift.std() / np.sqrt(len(shift))
        assert np.abs(shift).max() <= 0.33 * square.height + 1
        assert (shift > 1).mean() == pytest.approx((shift < -1).mean(), abs=0.04)
    sides = [jittered(square, lesion, PatchTask(), shape, rng).height for _ in range(2000)]
    assert 0.66 * square.height <= min(sides) and max(sides) <= 1.34 * square.height


@given(st.integers(2, 90), st.integers(16, 64), st.sampled_from([1, 3]), st.sampled_from([1, 3]), st.booleans())
@settings(max_examples=40)
def test_resizing_keeps_a_flat_image_flat(side, size, have, want, deep):
    dtype, value = (np.uint16, 40_001) if deep else (np.uint8, 137)
    out = resized(np.full((side, side, have), value, dtype), ImageShape(want, size, size // 2))
    assert out.shape == (want, size, size // 2) and out.dtype == dtype and (out == value).all()


def test_resizing_is_the_mean_over_the_area():
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 1), dtype=np.uint8)
    means = pixels[..., 0].reshape(32, 4, 32, 4).mean(axis=(1, 3))
    assert np.abs(resized(pixels, ImageShape(1, 32, 32))[0] - means).max() <= 1.01  # Pillow rounds after each axis


def test_margin_in_mm_wins_where_the_pixel_size_is_known():
    task = PatchTask(margin_px=60, margin_mm=6.0)
    assert task.margin(0.2) == 30
    assert task.margin(None) == 60
    assert PatchTask().margin(0.07) == 60


def test_task_takes_lesions_of_its_kind_and_with_a_label():
    mass, unlabelled = Lesion(Box(0, 0, 2, 2), "mass", True), Lesion(Box(0, 0, 2, 2), "calcification")
    assert [PatchTask(lesions="mass").wants(x) for x in (mass, unlabelled)] == [True, False]
    assert [PatchTask(label="malignancy").wants(x) for x in (mass, unlabelled)] == [True, False]


def test_central_square_and_union_and_bounding_box():
    assert central_square((150, 200), SQUARE) == Box(0, 25, 150, 175)
    assert central_square((100, 200), Frame(160, 128)) == Box(0, 60, 100, 140)
    assert union([Box(1, 5, 3, 7), Box(2, 0, 9, 6)]) == Box(1, 0, 9, 7)
    assert bounding_box(np.array([[1.2, 3.0], [4.0, 8.7]])) == Box(1, 3, 4, 9)


@given(st.integers(0, 92), st.integers(0, 92), st.integers(8, 100), st.integers(0, 2**16))
def test_background_counts_the_mask(top, left, side, seed):
    assume(top + side <= 100 and left + side <= 100)
    mask = np.random.default_rng(seed).random((100, 100)) < 0.6
    tissue = TissueMap(mask, step=1)
    share = 1 - mask[top : top + side, left : left + side].mean()
    assert tissue.background(Box(top, left, top + side, left + side)) == pytest.approx(share)


def half_disc(wall_is_left):
    y, x = np.mgrid[0:300, 0:200]
    mask = np.hypot((y - 150) / 120, x / 150) < 1
    return TissueMap((mask if wall_is_left else mask[:, ::-1])[::4, ::4], step=4)


@given(st.booleans(), st.floats(0.2, 0.8), st.floats(0.1, 0.5), st.integers(20, 80), st.integers(0, 2**16))
@settings(max_examples=60)
def test_healthy_square_lies_where_the_lesion_lay(wall_is_left, down, inwards, side, seed):
    tissue = half_disc(wall_is_left)
    like = Place(down, inwards, 0.1)
    square = healthy_square(side, like, tissue, (300, 200), PatchTask(), [], np.random.default_rng(seed))
    assume(square is not None)
    assert square.height == square.width == side and inside(square, (300, 200))
    place = tissue.place(square)
    assert place.background <= 0.4
    # Six standard deviations of the scatter, and half a square where the image's edge pushed it back.
    assert abs(place.down - down) < 0.48 + side / 480 and abs(place.inwards - inwards) < 0.48 + side / 300


def test_healthy_square_avoids_what_is_taken_and_gives_up_where_nothing_is_left():
    tissue, rng = half_disc(True), np.random.default_rng(0)
    everything = [Box(0, 0, 300, 200)]
    assert healthy_square(40, Place(0.5, 0.3, 0), tissue, (300, 200), PatchTask(), everything, rng) is None
    nothing = TissueMap(np.zeros((30, 20), bool), 10)
    assert healthy_square(40, Place(0.5, 0.3, 0), nothing, (300, 200), PatchTask(), [], rng) is None


@given(image_and_lesion(), st.integers(0, 2**32 - 1), FRAMES)
def test_squares_keep_the_body_where_the_image_allows(drawn, seed, frame):
    shape, body = drawn
    for rng in (None, np.random.default_rng(seed)):
        square = square_around_body(body, shape, frame, rng)
        assert (square.height, square.width) == frame.sides(min(square.height, square.width)) and inside(square, shape)
        for low, high, first, last in (
            (body.top, body.bottom, square.top, square.bottom), (body.left, body.right, square.left, square.right)
        ):  # fmt: skip
            # All of the body along this axis, or nothing but body.
            assert (first <= low and high <= last) or (low <= first and last <= high)
        if frame.around(body.height, body.width) <= frame.largest(shape):
            assert holds(square, body)


def test_random_squares_around_a_body_have_every_side_and_place():
    """A body of 10 x 6 in an image of 12 x 14: sides 10 to 12 are equally frequent, and each place of a side is."""
    body, rng = Box(1, 2, 11, 8), np.random.default_rng(0)
    squares = [square_around_body(body, (12, 14), SQUARE, rng) for _ in range(6000)]
    sides = np.bincount([square.height for square in squares])[10:]
    assert len(sides) == 3 and (abs(sides - 2000) < 5 * np.sqrt(2000)).all()
    lefts = np.bincount([square.left for square in squares if square.height == 12])
    assert len(lefts) == 3 and (abs(lefts - sides[2] / 3) < 5 * np.sqrt(sides[2] / 3)).all()
    assert square_around_body(body, (12, 14), SQUARE) == Box(1, 0, 11, 10)


def test_a_body_has_a_box():
    mask = np.zeros((10, 8), bool)
    mask[2:5, 3:8] = True
    assert TissueMap(mask, 8).box == Box(16, 24, 40, 64)
    assert TissueMap(np.zeros((10, 8), bool), 8).box == Box(0, 0, 80, 64)


def test_breasts_are_kept_on_whole_images_only():
    with pytest.raises(ValueError, match="keep_breast is for whole images"):
        PatchTask(keep_breast=True)


@pytest.mark.parametrize("name", ["", "../x", "1st", "a b", "a.b", "ä", "a\n", "a" * 41])
def test_a_tasks_name_can_name_files(name):
    with pytest.raises(ValueError, match="start with a letter and use at most 40") as refused:
        PatchTask(name=name)
    assert repr(name) in str(refused.value)
    assert PatchTask(name="Masses_2-" + "a" * 31).name.startswith("Masses_2-a")
