"""The arrays that cross the wire: how Flower carries them, and the checks before any of them becomes a tensor.

Flower carries numpy's own format. Numpy parses its header as Python, for 0.2 ms, which is more than all the rest of a small array;
so a header is made, and read, once for each that differs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array

from basics.words import one_line
from federation.wire.errors import EnvelopeError
from federation.wire.names import is_array_name

MAX_BYTES = 2 * 1024**3
# The networks here have some hundred, twice that with scales; an ensemble of ten generators has 700.
MAX_ARRAYS = 20_000
ALLOWED_DTYPES = {
    "float16", "float32", "float64", "int8", "uint8", "uint16", "int16", "int32", "int64", "uint64", "bool",
}  # fmt: skip
# In this machine's byte order, as the names mean.
_ALLOWED = {np.dtype(name): name for name in ALLOWED_DTYPES}
_CARRIED_AS = "numpy.ndarray"
# Magic and version; then the header's length, little endian, in so many bytes by version.
_MAGIC = len(np.lib.format.magic(1, 0))
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
_LONGEST_HEADER = 1024  # numpy pads what it writes of eight sides to 192 bytes
_MOST_SIDES = 8


def check_arrays(arrays: Mapping[str, np.ndarray]) -> int:
    """The number of bytes of arrays that may become tensors.

    Raises:
        EnvelopeError: a name that is not a plain identifier, a dtype outside `ALLOWED_DTYPES`,
            NaN or infinity, or more than `MAX_BYTES`.
    """
    check_names(arrays)
    total = 0
    for name, array in arrays.items():
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


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays: names, dtypes, shapes and values; 64 hex digits."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        whole = np.ascontiguousarray(array)
        digest.update(f"\0{name}\0{whole.dtype.str}\0{list(array.shape)}\0".encode())
        digest.update(whole.reshape(-1).view(np.uint8).data if whole.size else b"")
    return digest.hexdigest()


def check_names(names: Collection[str]) -> None:
    """Refuse names of arrays that are not plain identifiers, and more than `MAX_ARRAYS`.

    Raises:
        EnvelopeError: with the first.
    """
    if len(names) > MAX_ARRAYS:
        raise EnvelopeError("too_large", f"{len(names)} arrays exceed the limit of {MAX_ARRAYS}")
    for name in names:
        if not is_array_name(name):
            raise EnvelopeError("bad_array_name", f"array name {name[:64]!r} is not a plain identifier")


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
        raise EnvelopeError("bad_dtype", f"array {name!r} has dtype {array.dtype[:64]!r}")
    if array.stype != _CARRIED_AS:
        raise EnvelopeError("malformed", f"array {name!r} is carried as {array.stype[:64]!r}")
    try:
        start = _end_of_header(array.data)
        shape, fortran_order, dtype = _parsed_header(array.data[:start])
    except Exception as problem:  # numpy parses it as Python, which raises whatever its parts raise
        raise EnvelopeError("malformed", f"array {name!r} cannot be read: {one_line(problem, 200)}") from problem
    if dtype not in _ALLOWED:
        raise EnvelopeError("bad_dtype", f"array {name!r} has dtype {dtype}")
    # Of no bytes a side could still be longer than numpy counts.
    possible = len(shape) <= _MOST_SIDES and all(0 <= side <= MAX_BYTES for side in shape)
    if not possible or math.prod(shape) * dtype.itemsize != len(array.data) - start:
        raise EnvelopeError(
            "size_mismatch", f"array {name!r} declares the shape {str(shape)[:128]}, which does not match its bytes"
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
