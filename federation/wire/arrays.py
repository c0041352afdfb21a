"""Checks of the arrays that cross the wire, before any of them becomes a tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from flwr.app import Array

from federation.wire.errors import EnvelopeError
from federation.wire.names import is_array_name

MAX_BYTES = 2 * 1024**3
ALLOWED_DTYPES = {"float16", "float32", "float64", "int8", "uint8", "uint16", "int16", "int32", "int64", "bool"}


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
        if str(array.dtype) not in ALLOWED_DTYPES:
            raise EnvelopeError(
                "bad_dtype", f"array {name!r} has dtype {array.dtype}; allowed: {sorted(ALLOWED_DTYPES)}"
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise EnvelopeError("not_finite", f"array {name!r} holds NaN or infinity")
        total += array.nbytes
    if total > MAX_BYTES:
        raise EnvelopeError("too_large", f"{total} bytes of arrays exceed the limit of {MAX_BYTES}")
    return total


def read_array(name: str, array: Array) -> np.ndarray:
    """One array of a message. Its own header is compared with its bytes first, because numpy allocates what a header says.

    Raises:
        EnvelopeError: a dtype outside `ALLOWED_DTYPES`, or a header that does not match the bytes.
    """
    if array.dtype not in ALLOWED_DTYPES:
        raise EnvelopeError("bad_dtype", f"array {name!r} has dtype {array.dtype!r}")
    try:
        stream = BytesIO(array.data)
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, _, dtype = read_header(stream)
        if str(dtype) not in ALLOWED_DTYPES:
            raise EnvelopeError("bad_dtype", f"array {name!r} has dtype {dtype}")
        if math.prod(shape) * dtype.itemsize != len(array.data) - stream.tell() or min(shape, default=0) < 0:
            raise EnvelopeError(
                "size_mismatch", f"array {name!r} declares the shape {shape}, which does not match its bytes"
            )
        return array.numpy()
    except (KeyError, TypeError, ValueError, SyntaxError) as problem:
        if isinstance(problem, EnvelopeError):
            raise
        raise EnvelopeError("malformed", f"array {name!r} cannot be read: {problem!r}") from problem
