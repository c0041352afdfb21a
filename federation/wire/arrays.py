"""The arrays that cross the wire: how Flower carries them, and the checks before any of them becomes a tensor.

Flower carries numpy's own format. Numpy parses its header as Python, for 0.2 ms, which is more than all the rest of a small array;
so a header is made, and read, once for each that differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array

from federation.wire.errors import EnvelopeError
from federation.wire.names import is_array_name

MAX_BYTES = 2 * 1024**3
ALLOWED_DTYPES = {
    "float16",
    "float32",
    "float64",
    "int8",
    "uint8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "uint64",
    "bool",
}
# In this machine's byte order, as the names mean.
_ALLOWED = {np.dtype(name): name for name in ALLOWED_DTYPES}
_CARRIED_AS = "numpy.ndarray"
# Magic and version; then the header's length, little endian, in so many bytes by version.
_MAGIC = len(np.lib.format.magic(1, 0))
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
_LONGEST_HEADER = 10_000  # as numpy allows


def check_arrays(arrays: Mapping[str, np.ndarray]) -> int:
    """The number of bytes of arrays that may become tensors.

    Raises:
        EnvelopeError: a name that is not a plain identifier, a dtype outside `ALLOWED_DTYPES`,
            NaN or infinity, or more than `MAX_BYTES`.
    """
    total = 0
    for name, array in arrays.items():
        if not is_array_name(name):
            raise EnvelopeError("bad_array_name", f"array name {name!r} is not a plain identifier")
        if array.dtype not in _ALLOWED:
            raise EnvelopeError(
                "bad_dtype", f"array {name!r} has dtype {array.dtype}; allowed: {sorted(ALLOWED_DTYPES)}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise EnvelopeError("not_finite", f"array {name!r} holds NaN or infinity")
        total += array.nbytes
    if total > MAX_BYTES:
        raise EnvelopeError("too_large", f"{total} bytes of arrays exceed the limit of {MAX_BYTES}")
    return total


def write_array(array: np.ndarray) -> Array:
    """An array of an allowed dtype as Flower carries it; `read_array` reads it."""
    data = _header(array.dtype, array.shape) + np.asarray(array, order="C").tobytes()
    return Array(_ALLOWED[array.dtype], array.shape, _CARRIED_AS, data)


def read_array(name: str, array: Array) -> np.ndarray:
    """One array of a message, writable. Its own header is compared with its bytes first, because numpy allocates what a header says.

    Raises:
        EnvelopeError: a dtype outside `ALLOWED_DTYPES`, or a header that does not match the bytes.
    """
    if array.dtype not in ALLOWED_DTYPES:
        raise EnvelopeError("bad_dtype", f"array {name!r} has dtype {array.dtype!r}")
    if array.stype != _CARRIED_AS:
        raise EnvelopeError("malformed", f"array {name!r} is carried as {array.stype!r}")
    try:
        start = _end_of_header(array.data)
        shape, fortran_order, dtype = _parsed_header(array.data[:start])
    except (KeyError, TypeError, ValueError, SyntaxError) as problem:
        raise EnvelopeError("malformed", f"array {name!r} cannot be read: {problem!r}") from problem
    if dtype not in _ALLOWED:
        raise EnvelopeError("bad_dtype", f"array {name!r} has dtype {dtype}")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(array.data) - start:
        raise EnvelopeError(
            "size_mismatch", f"array {name!r} declares the shape {shape}, which does not match its bytes"
        )
    values = np.frombuffer(array.data, dtype, offset=start)
    # A copy: the bytes of the message cannot be written, and need not lie where a number of this size may.
    return values.reshape(shape, order="F" if fortran_order else "C").copy(order="K")


@lru_cache(maxsize=1024)
def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    stream = BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def _end_of_header(data: bytes) -> int:
    """Where the numbers begin.

    Raises:
        KeyError, ValueError: this is not numpy's format, in a version that has only such types as travel.
    """
    version = np.lib.format.read_magic(BytesIO(data[:_MAGIC]))
    begin = _MAGIC + _LENGTH_BYTES[version]
    length = int.from_bytes(data[_MAGIC:begin], "little")
    if length > _LONGEST_HEADER or begin + length > len(data):
        raise ValueError(f"a header of {length} bytes")
    return begin + length


@lru_cache(maxsize=1024)
def _parsed_header(header: bytes) -> tuple[tuple[int, ...], bool, Any]:
    """(shape, fortran_order, dtype); see `np.lib.format.read_array_header_1_0` for what it raises."""
    stream = BytesIO(header)
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)
