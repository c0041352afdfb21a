"""Smaller arrays on the wire: half precision, or 8-bit integers with one scale per output channel.

`int8` is symmetric uniform quantisation per channel (Krishnamoorthi 2018, "Quantizing deep convolutional networks for
efficient inference", section 3.1): of each row of the first axis, which is the output channel of torch's linear and
convolution weights (the *input* channel of a transposed convolution), the largest magnitude becomes 127, and the step of
that row travels as a float32. Rounding is to nearest, so that encoding is deterministic and no element is off by more
than half a step. Arrays of one dimension stay float32: they are biases and batch norm's vectors, a negligible part of
the bytes, in which one scale would drown a small running variance beside a large one.

Both sides know from the job how arrays travel; neither guesses it from what arrives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

Transport = Literal["fp32", "fp16", "int8"]

# The scales of array `x` travel as array `x.int8_scale`.
SCALE_SUFFIX = ".int8_scale"
_STEPS = 127
_FP16_MAX = float(np.finfo(np.float16).max)
_FP32_MAX = float(np.finfo(np.float32).max)
_INT8_MAX = 2.0**127  # beyond, 127 rounded steps may overflow float32
# No step is subnormal: below, a step would have too few bits for "within half a step" to hold.
_SMALLEST_SCALE = np.finfo(np.float32).tiny


def encode(arrays: Mapping[str, np.ndarray], how: Transport) -> dict[str, np.ndarray]:
    """Arrays as they travel.

    fp32: the same objects, whatever their dtype. fp16: every floating array as float16. int8: floating arrays of two
    or more dimensions as int8 (same shape), each with a float32 array (first axis,) of scales named
    `<name>.int8_scale`; other floating arrays as float32. Integers and booleans pass in all three.

    Raises:
        ValueError: an unknown `how`; a value that the target cannot hold (beyond 65504 for fp16, 2^127 for int8,
            NaN or infinity for both); for int8, a name that ends like the name of scales.
    """
    check_transport(how)
    if how == "fp32":
        return dict(arrays)
    encoded: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if how == "int8" and name.endswith(SCALE_SUFFIX):
            raise ValueError(
                f"array {name!r} is named like the scales of an int8 array; rename it or send fp16 or fp32"
            )
        if not np.issubdtype(array.dtype, np.floating):
            encoded[name] = array
        elif how == "fp16":
            encoded[name] = _cast(name, array, np.dtype(np.float16), _FP16_MAX)
        elif array.ndim < 2:
            encoded[name] = _cast(name, array, np.dtype(np.float32), _FP32_MAX)
        else:
            single = _cast(name, array, np.dtype(np.float32), _INT8_MAX)
            encoded[name], encoded[name + SCALE_SUFFIX] = _quantise(single)
    return encoded


def decode(arrays: Mapping[str, np.ndarray], how: Transport) -> dict[str, np.ndarray]:
    """What `encode` made, as float32 (fp32: unchanged); integers and booleans as they were.

    Raises:
        ValueError: an unknown `how`, or scales that do not belong to the int8 array of their name.
    """
    check_transport(how)
    if how == "fp32":
        return dict(arrays)
    decoded: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if how == "int8" and name.endswith(SCALE_SUFFIX):
            if name.removesuffix(SCALE_SUFFIX) not in arrays:
                raise ValueError(f"scales {name!r} came without their array {name.removesuffix(SCALE_SUFFIX)!r}")
        elif how == "int8" and (scales := arrays.get(name + SCALE_SUFFIX)) is not None:
            decoded[name] = _dequantise(name, array, scales)
        elif np.issubdtype(array.dtype, np.floating):
            decoded[name] = array.astype(np.float32, copy=False)
        else:
            decoded[name] = array
    return decoded


def rounding_of(how: Transport, largest: float) -> float:
    """By how much decoded values differ at most from those that were encoded, in arrays whose magnitudes reach `largest`."""
    return {"fp32": 0.0, "fp16": 2.0**-11, "int8": 0.5 / _STEPS}[how] * largest


def relative_error(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> float:
    """||before - after|| / ||before||, Euclidean over all floating arrays together; 0 where both are 0.

    Raises:
        ValueError: the two do not hold the same names and shapes.
    """
    if before.keys() != after.keys():
        raise ValueError(f"array {sorted(before.keys() ^ after.keys())[0]!r} is on one side only")
    error = norm = 0.0
    for name in sorted(before):  # weights read in a resumed run have another order, which would round differently
        array = before[name]
        if array.shape != after[name].shape:
            raise ValueError(f"array {name!r} has shape {array.shape} before and {after[name].shape} after")
        if np.issubdtype(array.dtype, np.floating):
            exact = array.astype(np.float64)
            error += float(np.square(exact - after[name]).sum())
            norm += float(np.square(exact).sum())
    if norm == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return math.sqrt(error / norm)


def encode_noting_error(arrays: Mapping[str, np.ndarray], how: Transport) -> tuple[dict[str, np.ndarray], float]:
    """Arrays as they travel, and the relative error of what arrives; 0 where nothing is rounded.

    Raises:
        ValueError: see `encode`.
    """
    encoded = encode(arrays, how)
    return encoded, 0.0 if how == "fp32" else relative_error(arrays, decode(encoded, how))


def check_transport(how: str) -> None:
    """Raise ValueError for an unknown one."""
    if how not in get_args(Transport):
        raise ValueError(f"transport {how!r} is unknown; known: {', '.join(get_args(Transport))}")


def _cast(name: str, array: np.ndarray, dtype: np.dtype, largest: float) -> np.ndarray:
    extreme = float(np.abs(array).max(initial=0.0))
    if not extreme <= largest:  # in this form because of NaN
        raise ValueError(
            f"array {name!r} holds {extreme:.6g}, which {dtype} cannot carry (largest {largest:.6g}); "
            "send it as fp32, or lower the learning rate if the weights diverge"
        )
    return array.astype(dtype, copy=False)


def _quantise(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (rows, ...) to int8 of the same shape and float32 scales (rows,)."""
    rest = tuple(range(1, array.ndim))
    largest = np.maximum(array.max(axis=rest, initial=0.0), -array.min(axis=rest, initial=0.0))
    scales = np.maximum(largest / np.float32(_STEPS), _SMALLEST_SCALE).astype(np.float32)
    levels = np.rint(array / np.expand_dims(scales, rest))
    return np.clip(levels, -_STEPS, _STEPS).astype(np.int8), scales


def _dequantise(name: str, array: np.ndarray, scales: np.ndarray) -> np.ndarray:
    if array.dtype != np.int8 or array.ndim < 2 or scales.shape != array.shape[:1] or scales.dtype != np.float32:
        raise ValueError(
            f"array {name!r} is {array.dtype} {array.shape} with {scales.dtype} scales {scales.shape}; "
            "it must be int8 with one float32 scale per row of its first axis"
        )
    return array * np.expand_dims(scales, tuple(range(1, array.ndim)))
