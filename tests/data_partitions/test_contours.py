"""What is connected is one lesion: outlines and masks against boxes that are known beforehand."""

import numpy as np
import pytest
from boxes import holds
from hypothesis import given, settings
from hypothesis import strategies as st

from data_partitions.exams import Box
from data_partitions.reading.contours import mask_areas, painted_areas, pixel_box

SHAPE = (120, 90)


def outline(box: Box) -> np.ndarray:
    """The corners of a box's outermost pixels, as (y, x)."""
    top, left, bottom, right = box.top, box.left, box.bottom - 1, box.right - 1
    return np.array([(top, left), (top, right), (bottom, right), (bottom, left)], dtype=float)


@st.composite
def boxes(draw):
    top, left = draw(st.integers(0, SHAPE[0] - 1)), draw(st.integers(0, SHAPE[1] - 1))
    return Box(top, left, draw(st.integers(top + 1, SHAPE[0])), draw(st.integers(left + 1, SHAPE[1])))


def touch(a: Box, b: Box) -> bool:
    """Whether two boxes overlap or are neighbours, corners included."""
    return Box(a.top - 1, a.left - 1, a.bottom + 1, a.right + 1).overlaps(b)


def merged(given_boxes: list[Box]) -> list[tuple[Box, int]]:
    """Boxes and pixels of the groups of boxes that touch, by brute force."""
    groups = [[box] for box in given_boxes]
    while True:
        pair = next(((i, j) for i in range(len(groups)) for j in range(i)
                     if any(touch(a, b) for a in groups[i] for b in groups[j])), None)  # fmt: skip
        if pair is None:
            break
        groups[pair[1]] += groups.pop(pair[0])
    out = []
    for group in groups:
        around = Box(
            min(b.top for b in group),
            min(b.left for b in group),
            max(b.bottom for b in group),
            max(b.right for b in group),
        )
        pixels = {(y, x) for b in group for y in range(b.top, b.bottom) for x in range(b.left, b.right)}
        out.append((around, len(pixels)))
    return sorted(out)


@given(st.lists(boxes(), min_size=1, max_size=5))
@settings(max_examples=80)
def test_areas_are_the_groups_of_outlines_that_touch(drawn):
    areas = painted_areas([outline(box) for box in drawn], SHAPE)
    assert sorted((area.box, area.pixels) for area in areas) == merged(drawn)
    assert sorted(number for area in areas for number in area.outlines) == list(range(len(drawn)))


@given(st.lists(st.tuples(st.floats(-30, 150), st.floats(-30, 150)), min_size=1, max_size=8))
@settings(max_examples=120)
def test_an_area_never_leaves_its_image(points):
    contour = np.array(points)
    for area in painted_areas([contour], SHAPE):
        assert holds(Box(0, 0, *SHAPE), area.box) and area.pixels > 0
        assert holds(pixel_box(contour), area.box)


@pytest.mark.parametrize(
    ("points", "box"),
    [
        ([(5.9, 7.2)], Box(5, 7, 6, 8)), ([(5, 7), (9, 7)], Box(5, 7, 10, 8)), ([(5, 7), (9, 12)], Box(5, 7, 10, 13)),
        ([(-4, -4), (-4, 10), (10, 10), (10, -4)], Box(0, 0, 11, 11)),
    ],
)  # fmt: skip
def test_points_lines_and_outlines_that_leave_the_image(points, box):
    (area,) = painted_areas([np.array(points, dtype=float)], SHAPE)
    assert area.box == box and area.outlines == (0,)


def test_an_outline_outside_is_in_no_area():
    assert painted_areas([np.array([(200.0, 5.0), (210.0, 5.0), (205.0, 9.0)])], SHAPE) == []


def mask_boxes(mask: np.ndarray) -> list[Box]:
    return [area.box for area in mask_areas(mask)]


def filled(*regions: Box, shape=(400, 300)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for box in regions:
        mask[box.top : box.bottom, box.left : box.right] = True
    return mask


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([Box(10, 20, 61, 93)], [Box(10, 20, 61, 93)]),
        ([Box(0, 0, 50, 50)], [Box(0, 0, 50, 50)]), ([Box(370, 280, 400, 300)], [Box(370, 280, 400, 300)]),
        ([Box(10, 20, 60, 90), Box(66, 50, 68, 52)], [Box(10, 20, 68, 90)]),  # a dot beside the lesion belongs to it
        ([Box(200, 20, 220, 40), Box(10, 20, 60, 90)], [Box(10, 20, 60, 90), Box(200, 20, 220, 40)]),  # the larger first
        ([Box(100, 100, 101, 101)], [Box(100, 100, 101, 101)]), ([], []),
    ],
)  # fmt: skip
def test_boxes_of_a_mask(regions, expected):
    assert mask_boxes(filled(*regions)) == expected


@given(st.lists(boxes(), min_size=1, max_size=4))
@settings(max_examples=60)
def test_boxes_of_a_mask_cover_it_and_lie_tight_around_it(drawn):
    mask = filled(*drawn, shape=SHAPE)
    found = mask_boxes(mask)
    covered = filled(*found, shape=SHAPE)
    assert (covered | ~mask).all()
    for box in found:
        part = mask[box.top : box.bottom, box.left : box.right]
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
    # Areas that are far apart stay apart.
    for number, box in enumerate(drawn):
        far = Box(box.top - 45, box.left - 45, box.bottom + 45, box.right + 45)
        if not any(far.overlaps(other) for place, other in enumerate(drawn) if place != number):
            assert box in found
