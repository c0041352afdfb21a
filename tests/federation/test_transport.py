"""Compressed transport: error bounds, what passes untouched, sizes known beforehand, and refusals."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.wire.arrays import check_arrays
from federation.wire.transport import SCALE_SUFFIX, decode, encode, relative_error
from strategies import layouts
from strategies.kind import layout_bytes, layout_of

HOW = ("fp32", "fp16", "int8")
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def floats(limit, shapes=SHAPES):
    """float32 and float64 arrays of values that float32 represents, subnormal ones among them."""
    dtypes = st.sampled_from([np.float32, np.float64])
    return hnp.arrays(dtype=dtypes, shape=shapes, elements=st.floats(-limit, limit, width=32))


ANY = floats(2.0**15) | hnp.arrays(
    dtype=st.sampled_from([np.int8, np.uint8, np.int64, np.bool_, np.float16]), shape=SHAPES, fill=st.nothing()
).filter(lambda array: np.isfinite(array).all())


@given(st.dictionaries(st.sampled_from(["a.weight", "b", "bn.running_var", "n"]), ANY))
def test_fp32_hands_on_the_same_objects(arrays):
    encoded = encode(arrays, "fp32")
    assert all(encoded[name] is array for name, array in arrays.items()) and encoded.keys() == arrays.keys()
    assert all(decode(encoded, "fp32")[name] is array for name, array in arrays.items())


@pytest.mark.parametrize("how", HOW)
@given(st.dictionaries(st.sampled_from(["a.weight", "b", "bn.running_var", "n"]), ANY))
def test_names_shapes_integers_and_bytes(how, arrays):
    encoded = encode(arrays, how)
    planned = layouts.encoded(layout_of(arrays), how)
    assert planned == layout_of(encoded) and layout_bytes(planned) == check_arrays(encoded)
    decoded = decode(encoded, how)
    assert list(decoded) == list(arrays)
    for name, array in arrays.items():
        assert decoded[name].shape == array.shape
        if np.issubdtype(array.dtype, np.floating):
            assert decoded[name].dtype == (array.dtype if how == "fp32" else np.float32)
        else:
            assert decoded[name] is array


@given(floats(60000.0))
def test_half_precision_rounds_to_11_bits(array):
    after = decode(encode({"w": array}, "fp16"), "fp16")["w"]
    # Half a unit in the last place: 2^-11 of the value, or of the smallest normal number where it is below.
    assert np.all(np.abs(after - array) <= np.maximum(np.abs(array), 2.0**-14) * 2.0**-11)


@given(floats(2.0**127, shapes=hnp.array_shapes(min_dims=2, max_dims=4, min_side=0)))
@example(np.array([[2e-43, 1e-43]], np.float32))  # a step for this row alone would be subnormal
def test_int8_is_within_half_a_step_of_its_row(array):
    encoded = encode({"w": array}, "int8")
    scales = encoded["w" + SCALE_SUFFIX].reshape(-1, *[1] * (array.ndim - 1))
    after = decode(encoded, "int8")["w"]
    # A millionth of the row's range is what float32 division and product may add.
    assert np.all(np.abs(after - array) <= scales * (0.5 + 127e-6))


@given(floats(2.0**100, shapes=hnp.array_shapes(min_dims=0, max_dims=1, min_side=0)))
def test_vectors_keep_their_float32_values_under_int8(array):
    after = decode(encode({"bn.running_var": array}, "int8"), "int8")["bn.running_var"]
    np.testing.assert_array_equal(after, array.astype(np.float32))


def test_int8_by_hand():
    weights = np.array([[127.0, -63.5, 1.6], [0.0, 0.0, 0.0], [-0.254, 0.127, 0.0]], np.float32)
    encoded = encode({"w": weights}, "int8")
    assert encoded["w"].tolist() == [[127, -64, 2], [0, 0, 0], [-127, 64, 0]]  # ties go to the even level
    np.testing.assert_allclose(encoded["w.int8_scale"], [1.0, 0.0, 0.002], atol=1e-30, rtol=1e-6)
    after = decode(encoded, "int8")
    np.testing.assert_allclose(after["w"], [[127, -64, 2], [0, 0, 0], [-0.254, 0.128, 0]], rtol=1e-6)
    assert relative_error({"w": weights}, after) == pytest.approx(0.64031 / 141.9973, rel=1e-4)


def test_encoding_twice_changes_nothing_more():
    weights = {"w": np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)}
    once = decode(encode(weights, "int8"), "int8")
    assert relative_error(once, decode(encode(once, "int8"), "int8")) < 1e-6
    assert 0.002 < relative_error(weights, once) < 0.02
    assert 1e-5 < relative_error(weights, decode(encode(weights, "fp16"), "fp16")) < 5e-4


@pytest.mark.parametrize("how", HOW)
def test_layout_in_memory_does_not_matter(how):
    weights = np.random.default_rng(1).normal(size=(6, 5, 4)).astype(np.float32)
    view = weights.transpose(2, 0, 1)[::2]
    assert not view.flags.c_contiguous
    after, same = decode(encode({"w": view}, how), how)["w"], decode(encode({"w": view.copy()}, how), how)["w"]
    np.testing.assert_array_equal(after, same)


@pytest.mark.parametrize("value", [65536.0, -1e6, np.nan, np.inf])
def test_half_precision_refuses_what_it_cannot_hold(value):
    arrays = {"fine": np.ones(3, np.float32), "main.0.weight": np.array([0.0, value])}
    with pytest.raises(ValueError, match="'main.0.weight'.*fp32"):
        encode(arrays, "fp16")


@pytest.mark.parametrize("array", [np.array([[1.0, np.nan]]), np.array([1e39]), np.array([[3e38]], np.float32)])
def test_int8_refuses_what_is_not_float32(array):
    with pytest.raises(ValueError, match="'w'"):
        encode({"w": array}, "int8")


def test_names_of_scales_are_reserved():
    arrays = {"w": np.ones((2, 2)), "w" + SCALE_SUFFIX: np.ones(2)}
    with pytest.raises(ValueError, match="'w.int8_scale'"):
        encode(arrays, "int8")
    assert decode(encode(arrays, "fp16"), "fp16").keys() == arrays.keys()


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"w.int8_scale": np.ones(2, np.float32)}, "without their array 'w'"),
        ({"w": np.ones((2, 2), np.int8), "w.int8_scale": np.ones(3, np.float32)}, r"scales \(3,\)"),
        ({"w": np.ones((2, 2), np.float32), "w.int8_scale": np.ones(2, np.float32)}, "must be int8"),
    ],
)
def test_scales_that_do_not_fit_are_refused(arrays, text):
    with pytest.raises(ValueError, match=text):
        decode(arrays, "int8")


def test_unknown_transport():
    for call in (lambda: encode({}, "int4"), lambda: decode({}, "int4"), lambda: layouts.encoded({}, "int4")):
        with pytest.raises(ValueError, match="'int4' is unknown; known: fp32, fp16, int8"):
            call()


def test_relative_error():
    before = {"w": np.array([3.0, 4.0]), "n": np.array([7])}
    assert relative_error(before, {"w": np.array([3.0, 4.5]), "n": np.array([9])}) == pytest.approx(0.1)
    assert relative_error({"w": np.zeros(2)}, {"w": np.zeros(2)}) == 0.0
    assert relative_error({"w": np.zeros(2)}, {"w": np.ones(2)}) == np.inf
    with pytest.raises(ValueError, match="'n' is on one side only"):
        relative_error(before, {"w": before["w"]})
    with pytest.raises(ValueError, match=r"'w' has shape \(2,\) before and \(3,\) after"):
        relative_error(before, before | {"w": np.zeros(3)})


@given(order=st.permutations(range(7)))
def test_a_rounding_error_does_not_depend_on_the_order_of_names(order):
    """A resumed run reads arrays in another order, and its record must be the same to the last bit."""
    rng = np.random.default_rng(3)
    before = {f"w{i}": (rng.normal(size=50 + i) * 10.0**i).astype(np.float32) for i in range(7)}
    after = {name: array + np.float32(1e-3) * rng.normal(size=array.shape) for name, array in before.items()}
    shuffled = {f"w{i}": before[f"w{i}"] for i in order}
    assert relative_error(shuffled, after) == relative_error(before, after)
