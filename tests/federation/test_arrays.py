"""Arrays are carried as Flower itself carries them, and come back bit for bit."""

import numpy as np
import pytest
from flwr.app import Array

from federation.wire.arrays import ALLOWED_DTYPES, check_arrays, read_array, write_array
from federation.wire.errors import EnvelopeError

SHAPES = [(), (0,), (3,), (2, 3), (4, 0, 2), (2, 1, 3, 5)]


@pytest.mark.parametrize("dtype", sorted(ALLOWED_DTYPES))
@pytest.mark.parametrize("shape", SHAPES)
def test_the_bytes_are_flowers_own(dtype, shape):
    array = (np.random.default_rng(0).normal(size=shape) * 9).astype(dtype)
    array = np.asarray(array).reshape(shape)
    ours, theirs = write_array(array), Array(array)
    assert (ours.dtype, ours.shape, ours.stype, ours.data) == (theirs.dtype, theirs.shape, theirs.stype, theirs.data)
    for carried in (ours, theirs):
        found = read_array("x", carried)
        assert found.dtype == array.dtype and found.shape == array.shape and found.flags.writeable
        np.testing.assert_array_equal(found, array)
        np.testing.assert_array_equal(found, carried.numpy())


def test_an_array_in_another_order_arrives_the_same():
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(read_array("x", write_array(array.T[::2])), array.T[::2])
    by_column = read_array("x", Array(array))  # numpy says in the header that it lies by column
    np.testing.assert_array_equal(by_column, array)


def test_what_is_read_belongs_to_the_reader():
    carried = write_array(np.zeros(4, np.float32))
    read_array("x", carried)[:] = 1
    assert not read_array("x", carried).any()


def changed(old, new):
    good = write_array(np.zeros((2, 3), np.float32))
    assert old in good.data
    return Array(good.dtype, good.shape, good.stype, good.data.replace(old, new))


@pytest.mark.parametrize(
    ("carried", "code"),
    [
        (changed(b"(2, 3)", b"(2, 4)"), "size_mismatch"),
        (changed(b"(2, 3)", b"(-2,3)"), "size_mismatch"),
        (changed(b"<f4", b">f4"), "bad_dtype"),
        (changed(b"'<f4'", b"'|O' "), "bad_dtype"),
        (changed(b"NUMPY", b"NUMPX"), "malformed"),
        (changed(b"{'descr'", b"{'deacr'"), "malformed"),
        (changed(b"\x01\x00v\x00", b"\x03\x00v\x00"), "malformed"),  # a version whose header is UTF-8
        (changed(b"\x01\x00v\x00", b"\x01\x00\xff\xff"), "malformed"),  # longer than all there is
        (Array("float32", (2,), "numpy.ndarray", b""), "malformed"),
        (Array("float32", (2,), "pickle", write_array(np.zeros(2, np.float32)).data), "malformed"),
        (Array("object", (2,), "numpy.ndarray", b""), "bad_dtype"),
    ],
)
def test_what_does_not_fit_its_header_is_refused(carried, code):
    for _ in range(2):  # also when the header was seen before
        with pytest.raises(EnvelopeError) as refused:
            read_array("x", carried)
        assert refused.value.code == code


def test_another_byte_order_is_another_type():
    with pytest.raises(EnvelopeError, match=">f4"):
        check_arrays({"x": np.zeros(2, ">f4")})
