"""How the size of an image is written and read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from basics.image_shape import LARGEST_SIDE, SMALLEST_SIDE, ImageShape, ImageSize, size_text

SIDES = st.integers(SMALLEST_SIDE, LARGEST_SIDE)


class Sized(BaseModel):
    image_size: ImageSize


@given(SIDES, SIDES)
def test_a_size_survives_being_written(height, width):
    sized = Sized(image_size=[height, width])
    assert sized.image_size == (height, width)
    assert Sized.model_validate_json(sized.model_dump_json()) == sized


@given(SIDES)
def test_a_square_is_one_number(side):
    assert Sized(image_size=side).model_dump(mode="json") == {"image_size": side}
    assert Sized(image_size=[side, side]) == Sized(image_size=side)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (15, "height 15; sides lie between 16 and 1280"),
        ([64, 1281], "width 1281"),
        ([64], r"is \[64\]; give a number of pixels such as 64, or \[height, width\]"),
        ([64, 64, 3], "give a number of pixels"),
        ("64", "give a number of pixels"),
        (64.5, "give a number of pixels"),
        (True, "give a number of pixels"),
        ([64, "64"], "give a number of pixels"),
    ],
)
def test_what_is_no_size(value, words):
    with pytest.raises(ValidationError, match=words):
        Sized(image_size=value)


def test_words():
    assert size_text((64, 64)) == "64 px" and size_text((160, 128)) == "160x128 px"
    shape = ImageShape.of((160, 128), 3)
    assert shape == (3, 160, 128) and shape.size == (160, 128) and str(shape) == "160x128 px x 3"
